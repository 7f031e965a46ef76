"""Damaged slides, stores, masks and manifests: refused in a sentence, or read; no traceback, no hang, no 2 GB."""

import runpy
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KINDS = ("tiff", "svs", "ome", "dicom", "lossless_dicom", "store", "geojson", "png", "manifest")


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_ends_in_more_than_a_sentence(kind, tmp_path):
    harness = runpy.run_path(str(HERE / "harness.py"))
    outcomes = harness["run_cases"](HERE / "preprocessing_targets.py", kind, tmp_path)
    print(f"{kind}: {dict(outcomes.counts)}")
    assert outcomes.faults == {}
    assert outcomes.counts["refused"] > outcomes.counts["read"] / 100
