"""Faithfulness of maps: response of the output when the highest scores are removed, and agreement with a truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, Int64
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from torch import Tensor

from longvit.explanation.model_output import ModelOutput

CURVE_FILES = ("faithfulness.csv", "faithfulness.png")
"""Names of the files of curves."""


@dataclass(frozen=True)
class Curves:
    """Outputs while squares of tokens are removed from the sequence, or added to an empty sequence, in one order."""

    share: Float[np.ndarray, " S"]
    """Share of the squares that is removed, or added, at each step; the first step is 0 and the last step is 1."""
    deletion: Float[np.ndarray, " S"]
    """Output without that share; without any tokens it is the output for the mean slide of the training."""
    insertion: Float[np.ndarray, " S"]
    """Output with that share alone."""

    @property
    def areas(self) -> tuple[float, float]:
        """Areas under deletion, which is low for a faithful order, and under insertion, which is high for it."""
        return float(np.trapezoid(self.deletion, self.share)), float(np.trapezoid(self.insertion, self.share))


@torch.no_grad()
def curves(
    explained: ModelOutput, x_LD: Float[Tensor, "L D"], square_L: Int64[Tensor, " L"], scores_L: Tensor, steps: int = 10
) -> Curves:
    """Return deletion and insertion curves (RISE, arXiv:1806.07421); tokens are removed, not painted over.

    Args:
        explained: Output to explain.
        x_LD: One slide, embedded by `encoder.embed`, without padding.
        square_L: Square of each token, from `squares`; squares with the highest mean scores go first.
        scores_L: Scores of the tokens.
        steps: Steps of equal shares.
    """
    count = int(square_L.max()) + 1
    total = torch.zeros(count, dtype=torch.float64).index_add_(0, square_L.cpu(), scores_L.double().cpu())
    rank_of_square = (-total / square_L.cpu().bincount()).argsort(stable=True).argsort()
    rank_L = rank_of_square.to(square_L.device)[square_L]
    moved = [round(count * step / steps) for step in range(steps + 1)]

    def output(kept_L: Tensor) -> float:
        empty = not bool(kept_L.any())
        return float(explained.of_slide(explained.model.head.mean) if empty else explained(x_LD[kept_L]))

    return Curves(
        share=np.array(moved) / count,
        deletion=np.array([output(rank_L >= k) for k in moved]),
        insertion=np.array([output(rank_L < k) for k in moved]),
    )


def blind_orders(
    rc: Int[np.ndarray, "L 2"], square: Int[np.ndarray, " L"], grid_rc: tuple[float, float]
) -> dict[str, Float[np.ndarray, " L"]]:
    """Return two maps independent of the model, which a faithful map must beat: `random` squares, and `centre`.

    Args:
        rc: Row and column of each token.
        square: Square of each token.
        grid_rc: Numbers of rows and columns of the slide's token grid; tokens near its middle come first in `centre`.
    """
    return {
        "random": np.random.default_rng(0).random(int(square.max()) + 1)[square],
        "centre": -np.linalg.norm(rc + 0.5 - np.array(grid_rc) / 2, axis=1),
    }


def save_curves(found: Mapping[str, Curves], blind: Mapping[str, Curves], quantity: str, folder: Path) -> None:
    """Write `faithfulness.csv`, one row per map and step, and `faithfulness.png`, the curves with their areas.

    Args:
        found: Curves of each map, by the map's name.
        blind: Curves of orders independent of the model, drawn dashed.
        quantity: Name of the output.
        folder: Folder to write to.
    """
    every = {**found, **blind}
    columns = ("share", "deletion", "insertion")
    tables = [
        pd.DataFrame({name: getattr(one, name) for name in columns}).assign(map=key) for key, one in every.items()
    ]
    pd.concat(tables)[["map", *columns]].to_csv(
        folder / CURVE_FILES[0], index=False, float_format="%.7g", lineterminator="\n"
    )
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    halves = (
        ("deletion", "highest scores leave; low is faithful"),
        ("insertion", "highest scores come; high is faithful"),
    )
    for i, (axes, (kind, how)) in enumerate(zip(figure.subplots(1, 2, sharey=True), halves, strict=True)):
        for key, one in every.items():
            style = {"ls": "--", "c": "0.3" if key == "random" else "0.6"} if key in blind else {}
            axes.plot(one.share, getattr(one, kind), label=f"{key} ({one.areas[i]:.2f})", **style)
        axes.set(title=f"{kind}: {how}", xlabel="share of the squares of tokens")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(title="area under the curve", fontsize=8, title_fontsize=8, frameon=False)
    figure.axes[0].set_ylabel(quantity)
    figure.savefig(folder / CURVE_FILES[1], format="png")


def auroc(scores: Float[np.ndarray, " L"], truth: Float[np.ndarray, " L"]) -> float:
    """Return the probability that a token of the truth scores higher than other tokens; NaN without both kinds.

    Args:
        scores: Scores of the tokens.
        truth: Share of each token's area in the truth; a token with more than half belongs to the truth.
    """
    inside = truth > 0.5
    return float(roc_auc_score(inside, scores)) if 0 < inside.sum() < len(inside) else float("nan")
