from pathlib import Path

import pytest

from longvit.prediction.new_patients import describe_patients, group_slides_by_patient, slide_sequences
from preprocessing.errors import CohortError

BARCODES = {"TCGA-05-4244": ["TCGA-05-4244-01Z-00-DX1", "TCGA-05-4244-01Z-00-DX2"]}


def test_slides_named_by_barcodes_are_their_patients(tmp_path):
    names = ["TCGA-05-4244-01Z-00-DX1", "TCGA-05-4244-01Z-00-DX2", "other-1"]
    stores = {name: tmp_path / name for name in names}
    assert group_slides_by_patient(stores, None, {}) == {"TCGA-05-4244": names[:2], "other-1": ["other-1"]}
    (tmp_path / "table.csv").write_text("case_id,slide_id\nA,other-1\n")
    with pytest.raises(CohortError, match="2 of 3 stores have no patient in the table: TCGA-05-4244-01Z-00-DX1"):
        group_slides_by_patient(stores, tmp_path / "table.csv", {})


@pytest.mark.parametrize(
    ("patients", "table", "sentence"),
    [
        (BARCODES, None, "1 patient with 2 slides, by TCGA barcodes; "),
        (
            BARCODES | {"a": ["a"]},
            None,
            "2 patients with 3 slides, by TCGA barcodes (1 slide without, each a patient); ",
        ),
        ({"a": ["a"]}, None, "1 patient with 1 slide, each slide a patient (no table, and no TCGA barcodes); "),
        ({"Q": ["a", "b"]}, Path("x/t.csv"), "1 patient with 2 slides, by t.csv; "),
        (BARCODES, Path("t.csv"), "1 patient with 2 slides, by t.csv; "),
    ],
)
def test_patients_are_counted_and_the_rule_is_given(patients, table, sentence):
    assert describe_patients(patients, table, "late") == sentence + "each slide is read by itself"
    early = describe_patients(patients, table, "early")
    assert early == sentence + "a patient's slides are read as one sequence"


def test_slides_that_a_run_has_recorded_are_counted_by_its_file():
    patients, known = {"Q": ["a", "b"], "c": ["c"]}, {"a": "Q", "b": "Q"}
    paths = {slide: Path(slide) for slide in "abc"}
    assert group_slides_by_patient(paths, None, known) == patients
    rule = "by membership.csv of the run (1 slide without, each a patient)"
    expected = f"2 patients with 3 slides, {rule}; each slide is read by itself"
    assert describe_patients(patients, None, "late", known) == expected


def test_a_sequence_is_a_slide_or_with_early_fusion_a_patient():
    patients, seen = {"Q": ["a", "b"], "R": ["c"]}, {"Q": (1,), "R": ()}
    late, early = (slide_sequences(patients, fusion, seen) for fusion in ("late", "early"))
    assert {name: (one.patient, one.slides) for name, one in late.items()} == {
        "a": ("Q", ("a",)), "b": ("Q", ("b",)), "c": ("R", ("c",))
    }  # fmt: skip
    assert list(early) == ["a;b", "c"]
    assert early["a;b"].columns()["split"] == "train"
    assert early["c"].columns()["split"] == "test"
