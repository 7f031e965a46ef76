"""Settings that finetune on the tiny cohort in a second, and tables written in one line."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from longvit.config import FinetuneConfig, FinetuneOptimiserConfig, SubtypeTask
from longvit.finetuning.model import SlideModel
from longvit.model import LongViT
from longvit.tokens import TokenBatch

TABLE = """\
case_id,slide_id,oncotree_code,survival_months,censorship
A,A-1.svs,LUAD,10.5,0
A,A-2.svs,LUAD,10.5,0
B,B-1.svs,LUSC,3,1
C,C-1,LUAD,7,0
"""


@pytest.fixture
def table(tmp_path) -> Callable[..., Path]:
    """Write the small table, after a change to its rows of strings."""

    def write(change: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows, name: str = "table.csv") -> Path:
        rows = pd.DataFrame(
            [line.split(",") for line in TABLE.splitlines()[1:]], columns=TABLE.split("\n")[0].split(",")
        )
        change(rows).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


@pytest.fixture
def config(cohort, tiny_encoder, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(
        stores=cohort.stores,
        table=cohort.table,
        splits=cohort.splits,
        out=tmp_path / "run",
        encoder=tiny_encoder,
        window=4,
        optimiser=FinetuneOptimiserConfig(epochs=2, learning_rate=1e-2, warmup_epochs=1),
        loader_workers=0,
        device="cpu",
    )


@pytest.fixture
def model(tiny_encoder) -> SlideModel:
    """A subtyping model with weights in its head."""
    torch.manual_seed(0)
    model = SlideModel(LongViT(tiny_encoder), SubtypeTask(), ("LUAD", "LUSC"))
    torch.nn.init.normal_(model.head.linear.weight)
    return model


@pytest.fixture
def random_slide() -> Callable[[int, int], TokenBatch]:
    """(tokens, seed) -> a slide of random patches of 16 pixels."""

    def slide(tokens: int, seed: int) -> TokenBatch:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(256, (1, tokens, 3 * 16**2), generator=generator, dtype=torch.uint8)
        rc = torch.randint(50, (1, tokens, 2), generator=generator)
        return TokenBatch(x, rc, torch.ones(1, tokens).bool())

    return slide
