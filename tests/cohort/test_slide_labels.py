from pathlib import Path

import pandas as pd
import pytest

from longvit.cohort.slide_labels import map_slides_to_patients, read_labelled
from longvit.config import ProbeConfig
from preprocessing.errors import CohortError
from preprocessing.store.store import find_stores


def write(path: Path, **columns: list) -> Path:
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def stores(*slides: str) -> dict[str, Path]:
    return {slide: Path(f"{slide}.zarr") for slide in slides}


def test_the_table_says_whose_slide_is_whose_with_and_without_file_endings(tmp_path):
    table = write(tmp_path / "t.csv", case_id=["a", "a", "b"], slide_id=["1.x.svs", "2", "unknown.svs"])
    assert map_slides_to_patients(table, stores("1.x", "2")) == {"1.x": "a", "2": "a"}


def test_without_a_table_barcodes_say_it():
    slide = "TCGA-05-4244-01Z-00-DX1.d4ff"
    assert map_slides_to_patients(None, stores(slide, "other")) == {slide: "TCGA-05-4244"}


def test_the_table_of_patients_must_name_every_store(tmp_path):
    table = write(tmp_path / "t.csv", case_id=["a"], slide_id=["1"])
    with pytest.raises(CohortError, match="2 of 3 stores have no patient in the table, the first: 2"):
        map_slides_to_patients(table, stores("1", "2", "3"))


def test_labelled_slides_are_those_with_a_label_and_a_store(cohort):
    found = find_stores(cohort.stores)
    labelled = read_labelled(ProbeConfig(table=cohort.table, folds=3), found)
    assert [path.stem for path in labelled.stores] == sorted(found)
    assert labelled.patients == [slide[:3] for slide in sorted(found)]
    assert labelled.labels == [("LUAD", "LUSC")[int(slide[1:3]) % 2] for slide in sorted(found)]
    del found["P00-0"]
    assert len(read_labelled(ProbeConfig(table=cohort.table, folds=3), found).labels) == 13


def test_without_a_table_nothing_is_labelled():
    assert read_labelled(ProbeConfig(), stores("1")) is None


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["x"] * 4, "there are 1 classes"),
        (["x", "x", "x", "y"], "class y has 1"),
        (["x", "x", "x", None], "are 1 classes"),
    ],
)
def test_too_few_patients_of_a_class_are_refused(tmp_path, labels, words):
    slides = ["1", "2", "3", "4"]
    table = write(tmp_path / "t.csv", case_id=slides, slide_id=slides, oncotree_code=labels)
    with pytest.raises(CohortError, match=words):
        read_labelled(ProbeConfig(table=table, folds=2), stores(*slides))


def test_patients_are_counted_and_not_slides(tmp_path):
    table = write(tmp_path / "t.csv", case_id=list("aabc"), slide_id=list("1234"), oncotree_code=list("xxyy"))
    with pytest.raises(CohortError, match="class x has 1"):
        read_labelled(ProbeConfig(table=table, folds=2), stores(*"1234"))


def test_a_table_that_is_not_there_or_lacks_a_column_is_refused(tmp_path):
    with pytest.raises(CohortError, match="does not exist"):
        map_slides_to_patients(tmp_path / "none.csv", stores("1"))
    table = write(tmp_path / "t.csv", slide_id=["1"])
    with pytest.raises(CohortError, match="no column case_id"):
        read_labelled(ProbeConfig(table=table, label_column="subtype"), stores("1"))


def test_a_table_without_the_label_is_refused_with_the_setting_to_change(tmp_path):
    table = write(tmp_path / "t.csv", case_id=["a"], slide_id=["1"])
    with pytest.raises(CohortError, match="no column subtype") as error:
        read_labelled(ProbeConfig(table=table, label_column="subtype"), stores("1"))
    assert "probe.label_column" in error.value.fix
