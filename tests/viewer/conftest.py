"""A run over the tiny cohort, one of whose slides is explained: all tokens of one tile score 1, all others 0."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from longvit.config import ViewConfig
from longvit.explanation.result import Explanation, ScoreMap
from longvit.viewer.find import find
from longvit.viewer.server import Server
from longvit.viewer.site import Site
from preprocessing.store.store import PatchStore, open_store

PER_TILE = 4
"""Tokens to a side of a tile."""
HOT = 2
"""Index of the tile whose tokens score 1."""


@dataclass(frozen=True)
class Planted:
    """What the viewer is shown, and what is true of it."""

    run: Path
    explanations: Path
    store: PatchStore

    @property
    def config(self) -> ViewConfig:
        return ViewConfig(source=self.run, explanations=self.explanations, browser=False)


def explain(store: PatchStore, folder: Path) -> None:
    """Two methods, the second of two layers: one with the planted square, one without a sign of it."""
    inside = np.stack(np.divmod(np.arange(PER_TILE**2), PER_TILE), axis=1)
    rc = (store.rc[:, None] * PER_TILE + inside).reshape(-1, 2)
    hot = np.repeat(np.arange(len(store)) == HOT, PER_TILE**2).astype(float)
    signed = np.where(hot > 0, 1.0, -0.5)
    maps = (
        ScoreMap("received", "received", "All layers", "Attention received; 1 is average.", False, hot),
        ScoreMap("received_layer_01", "received", "Layer 1", "Attention received in layer 1.", False, 1 - hot, 1),
        ScoreMap("contribution", "contribution", "Contribution", "Share of the log hazard.", True, signed),
    )
    size_l0, side_l0 = store.attributes["size_l0"], store.attributes["side_l0"]
    explanation = Explanation(
        slide_id=store.slide_id,
        store=os.path.relpath(store.path, folder),
        model="fold_0/model.safetensors",
        target="log hazard",
        prediction={"log hazard": 0.4},
        size_l0=tuple(size_l0),
        side_l0=tuple(side / PER_TILE for side in side_l0),
        mpp=store.attributes["mpp_level0"],
        rc=rc,
        maps=maps,
    )
    folder.mkdir(parents=True)
    explanation.save(folder)


@pytest.fixture(scope="session")
def planted(cohort, tmp_path_factory) -> Planted:
    root = tmp_path_factory.mktemp("viewer")
    table = pd.read_csv(cohort.table)
    rows = [
        {
            "patient_id": row.case_id,
            "slide_id": row.slide_id.removesuffix(".svs"),
            "fold": i % 2,
            "split": "test",
            "time": row.survival_months,
            "event": 1 - row.censorship,
            "risk": -row.survival_months + 0.1 * i,
        }
        for i, row in enumerate(table.itertuples())
        if row.case_id != "P11"
    ]
    folds = {row["patient_id"]: row["fold"] for row in reversed(rows)}
    pd.DataFrame([row | {"fold": folds[row["patient_id"]]} for row in rows]).to_csv(
        root / "predictions.csv", index=False
    )
    (root / "config.yaml").write_text(yaml.safe_dump({"stores": str(cohort.stores)}))
    store = open_store(cohort.stores / "P00-0.zarr")
    explain(store, root / "explanations" / store.slide_id)
    return Planted(root, root / "explanations", store)


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[ViewConfig], Server]]:
    """(config) -> a server that answers until the tests end."""
    servers = []

    def start(config: ViewConfig) -> Server:
        servers.append(Server(Site(find(config))))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def browser():
    """A Chromium without a window, the system's own."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e .[test]"
    )
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is on the path (apt install chromium)")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()
