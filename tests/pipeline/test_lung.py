"""The whole line on slides of real H&E tiles with real classes; survival is simulated from the share of tumour."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sksurv.metrics import concordance_index_censored

SHARED = Path(__file__).parents[2] / ".." / "shared"
CONFIGS = Path(__file__).parents[2] / "configs" / "lung"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not (SHARED / "tools/make_lung_cohort.py").exists(), reason="../shared is not here"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lung")
    make = [sys.executable, SHARED / "tools/make_lung_cohort.py", "--tiles", SHARED / "data/lc25000_lung"]
    subprocess.run([*make, "--out", folder / "cohort", "--patients", "60"], check=True)
    line = [sys.executable, "-m", "longvit", "demo", "--configs", CONFIGS, "--cohort", folder / "cohort"]
    subprocess.run([*line, "--out", folder / "out"], check=True)
    return folder


def pooled(folder, task):
    metrics = json.loads((folder / "out" / task / "metrics.json").read_text())
    return metrics["pooled"][metrics["headline"]]


def oracle_c_index(folder):
    """What the true hazard reaches on all patients."""
    table = pd.read_csv(folder / "cohort/dataset.csv").groupby("case_id").first()
    truth = pd.read_csv(folder / "cohort/truth.csv").set_index("case_id").loc[table.index]
    return concordance_index_censored(table["censorship"] == 0, table["survival_months"], truth["log_hazard"])[0]


def test_real_subtypes_are_told_apart_better_than_by_shuffled_labels(results):
    auroc = pooled(results, "subtype")
    print(f"AUROC {auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f}), shuffled {auroc['shuffled']:.3f}")
    assert auroc["value"] > 0.75
    assert 0.35 < auroc["shuffled"] < 0.65


def test_real_tumour_share_predicts_simulated_survival_below_its_oracle(results):
    c_index, oracle = pooled(results, "survival"), oracle_c_index(results)
    print(f"c-index {c_index['value']:.3f}, shuffled {c_index['shuffled']:.3f}, oracle {oracle:.3f}")
    assert 0.6 < c_index["value"] < oracle
    assert 0.35 < c_index["shuffled"] < 0.65
