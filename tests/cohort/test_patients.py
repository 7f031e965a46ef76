import time

import pandas as pd
import pytest

from longvit.cohort.checks import audit_splits
from longvit.cohort.patients import read_cohort
from longvit.config import AuditConfig, CoxTask, SubtypeTask
from preprocessing.errors import CohortError


def put(row: int, column: str, value: str | None):
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[row, column] = value
        return rows

    return change


def test_a_table_of_slides_becomes_patients_with_their_slides_and_class(table):
    cohort = read_cohort(table(), SubtypeTask())
    assert cohort.slides == {"A": ["A-1", "A-2"], "B": ["B-1"], "C": ["C-1"]}
    assert cohort.targets["label"].to_dict() == {"A": "LUAD", "B": "LUSC", "C": "LUAD"}
    assert cohort.classes == ("LUAD", "LUSC")
    assert cohort.patient_of == {"A-1": "A", "A-2": "A", "B-1": "B", "C-1": "C"}
    assert cohort.left_out == frozenset()


def test_an_event_is_where_censorship_is_0(table):
    cohort = read_cohort(table(), CoxTask())
    assert cohort.targets["event"].to_dict() == {"A": 1, "B": 0, "C": 1}
    assert cohort.targets["time"].to_dict() == {"A": 10.5, "B": 3.0, "C": 7.0}
    assert cohort.classes == ()


def test_classes_are_in_the_order_asked_for_and_patients_of_others_are_left_out(table):
    path = table(lambda rows: pd.concat([rows, rows[2:3].assign(case_id="D", slide_id="D-1", oncotree_code="MESO")]))
    cohort = read_cohort(path, SubtypeTask(classes=("LUSC", "LUAD")))
    assert cohort.classes == ("LUSC", "LUAD")
    assert set(cohort.slides) == set(cohort.targets.index) == {"A", "B", "C"}
    assert cohort.left_out == {"D", "D-1"}


def test_columns_may_have_other_names(table):
    path = table(lambda rows: rows.rename(columns={"oncotree_code": "kind", "survival_months": "t", "censorship": "c"}))
    assert read_cohort(path, SubtypeTask(label_column="kind")).classes == ("LUAD", "LUSC")
    assert (
        read_cohort(path, CoxTask(time_column="t", time_unit="days", censorship_column="c")).targets["time"]["C"] == 7
    )


def test_a_zipped_table_is_read_as_it_is(table):
    zipped, plain = (read_cohort(table(name=name), CoxTask()) for name in ("table.csv.zip", "table.csv"))
    assert zipped.slides == plain.slides
    assert zipped.targets.equals(plain.targets)


def test_times_are_read_to_the_last_bit(table):
    time = "78.18873094883070962"  # pandas.to_numeric is a bit off
    cohort = read_cohort(table(put(3, "survival_months", time)), CoxTask())
    assert cohort.targets["time"]["C"] == float(time)


def test_ids_that_look_like_numbers_stay_as_they_are(table):
    path = table(lambda rows: rows.assign(case_id=["007", "007", "08", "1e5"]))
    assert list(read_cohort(path, SubtypeTask()).slides) == ["007", "08", "1e5"]


REFUSED = [
    (lambda rows: rows.drop(columns="case_id"), "no column case_id$"),
    (lambda rows: rows.drop(columns=["slide_id", "oncotree_code"]), "no known column of the label"),
    (put(3, "oncotree_code", None), "1 of 3 patients with slides have no oncotree_code: C"),
    (put(1, "slide_id", None), "1 of 4 rows have no slide_id"),
    (put(1, "slide_id", "A-1"), "slides are in two rows: A-1"),
    (put(1, "oncotree_code", "LUSC"), "contradict each other in oncotree_code: A"),
    (lambda rows: rows.assign(oncotree_code="LUAD"), "there is one class: LUAD"),
]


def test_rows_with_an_ignored_label_are_left_out_whatever_else_their_patient_has(table):
    path = table(put(1, "oncotree_code", "MESO"))
    with pytest.raises(CohortError, match="contradict each other in oncotree_code: A"):
        read_cohort(path, SubtypeTask())
    cohort = read_cohort(path, SubtypeTask(ignore=("MESO",)))
    assert cohort.slides == {"A": ["A-1"], "B": ["B-1"], "C": ["C-1"]}
    assert cohort.classes == ("LUAD", "LUSC")
    assert cohort.left_out == {"A-2"}
    with pytest.raises(CohortError, match="every label is ignored"):
        read_cohort(path, SubtypeTask(ignore=("MESO", "LUAD", "LUSC")))


def test_labels_are_merged_into_classes(table):
    path = table(lambda rows: rows.assign(oncotree_code=["LUAD", "LUAD", "LUSC", "MUC"]))
    cohort = read_cohort(path, SubtypeTask(label_map={"LUAD": "adeno", "MUC": "adeno"}))
    assert cohort.classes == ("LUSC", "adeno")
    assert cohort.targets["label"].to_dict() == {"A": "adeno", "B": "LUSC", "C": "adeno"}
    with pytest.raises(CohortError, match="renames labels that the table does not contain: LUUD") as error:
        read_cohort(path, SubtypeTask(label_map={"LUUD": "adeno"}))
    assert "labels LUAD, LUSC, MUC" in str(error.value.where)


@pytest.mark.parametrize("name", ["None", "NA", "nan", "null", "N/A"])
def test_a_class_with_the_name_of_a_missing_value_is_a_class_from_the_table_to_the_splits(table, tmp_path, name):
    path = table(lambda rows: rows.replace({"oncotree_code": {"LUAD": name}}))
    cohort = read_cohort(path, SubtypeTask())
    assert cohort.classes == tuple(sorted([name, "LUSC"]))
    assert cohort.targets["label"].to_dict() == {"A": name, "B": "LUSC", "C": name}
    (tmp_path / "splits_0.csv").write_text("train,val,test\nA-1,C-1,B-1\n")
    counts = audit_splits(AuditConfig(table=path, splits=tmp_path)).counts
    assert [(row["part"], row[name], row["LUSC"]) for row in counts] == [("train", 1, 0), ("val", 1, 0), ("test", 0, 1)]
    with pytest.raises(CohortError, match="there is one class: LUSC"):
        read_cohort(path, SubtypeTask(missing_words=(name.upper(),)))


@pytest.mark.parametrize("ending", [".bif", ".BIF", ".ome.tif", ".vms", ".svslide", ".zarr"])
def test_a_slide_may_have_any_slide_s_ending_in_the_table_and_in_the_split(table, tmp_path, ending):
    path = table(lambda rows: rows.assign(slide_id=[f"{name}{ending}" for name in ("A-1", "A-2", "B-1", "C-1")]))
    cohort = read_cohort(path, SubtypeTask())
    assert cohort.slides == {"A": ["A-1", "A-2"], "B": ["B-1"], "C": ["C-1"]}
    (tmp_path / "splits_0.csv").write_text(f"train,val,test\nA-1{ending},B-1{ending},C-1\n")
    (fold,) = audit_splits(AuditConfig(table=path, splits=tmp_path)).folds
    assert (fold.train, fold.val, fold.test) == (("A",), ("B",), ("C",))


def test_a_preset_fills_in_what_is_not_set():
    task = SubtypeTask(preset="tcga_brca", ignore=(), classes=None)  # as a copied reference file has them
    assert (task.classes, len(task.ignore)) == (("IDC", "ILC"), 9)
    assert SubtypeTask(preset="tcga_brca", classes=("ILC", "IDC")).classes == ("ILC", "IDC")
    with pytest.raises(ValueError, match="tcga_brca"):
        SubtypeTask(preset="brca")


def test_an_event_column_is_read_instead_of_the_censorship(table):
    path = table(lambda rows: rows.assign(died=["1", "1", "1", "0"]))
    assert read_cohort(path, CoxTask(event_column="died")).targets["event"].to_dict() == {"A": 1, "B": 1, "C": 0}
    with pytest.raises(CohortError, match=r"died 0 or 1 \(1 = event observed, or Dead and Alive\)"):
        read_cohort(table(lambda rows: rows.assign(died="maybe")), CoxTask(event_column="died"))


def test_a_table_of_patients_and_one_of_slides_are_joined(tmp_path, table):
    (tmp_path / "clini.csv").write_text("PATIENT,KIND,days,event\nA,x,3,1\nB,y,4,0\nC,y,5,0\nD,x,6,0\n")
    (tmp_path / "slide.csv").write_text("FILENAME,PATIENT\nA-1.h5,A\nA-2.h5,A\nB-1.h5,B\nC-1.h5,C\nE-1.h5,E\n")
    task = SubtypeTask(label_column="KIND", ignore=("z",))
    cohort = read_cohort(tmp_path / "clini.csv", task, tmp_path / "slide.csv")
    assert cohort.slides == {"A": ["A-1", "A-2"], "B": ["B-1"], "C": ["C-1"]}
    assert cohort.targets["label"].to_dict() == {"A": "x", "B": "y", "C": "y"}
    assert cohort.left_out == {"D", "E", "E-1"}
    survival = CoxTask(time_column="days", event_column="event")
    assert read_cohort(tmp_path / "clini.csv", survival, tmp_path / "slide.csv").targets["event"].sum() == 1
    with pytest.raises(CohortError, match="no column slide_id") as error:
        read_cohort(tmp_path / "clini.csv", task)
    assert "--slide-table" in error.value.fix
    with pytest.raises(CohortError, match="no patient of the table is in the table of slides"):
        read_cohort(table(), SubtypeTask(), slide_table=_write(tmp_path / "other.csv", "PATIENT,FILENAME\nZ,Z-1\n"))


def _write(path, text):
    path.write_text(text)
    return path


def test_sites_come_from_barcodes_or_from_a_column(table):
    def barcodes(rows):
        return rows.replace({"case_id": {"A": "TCGA-05-4250", "B": "TCGA-3C-AALI"}}).assign(ward=list("xxyz"))

    assert read_cohort(table(barcodes), SubtypeTask()).sites == {"TCGA-05-4250": "05", "TCGA-3C-AALI": "3C"}
    assert read_cohort(table(barcodes), SubtypeTask(), site_column="ward").sites["C"] == "z"


def test_a_cohort_without_some_slides_has_no_patient_without_slides(table):
    cohort = read_cohort(table(), SubtypeTask()).without({"A-1", "B-1"})
    assert cohort.slides == {"A": ["A-2"], "C": ["C-1"]}
    assert list(cohort.targets.index) == ["A", "C"]
    assert cohort.left_out == {"A-1", "B-1", "B"}


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_a_table_that_cannot_be_used_for_subtyping_is_refused(table, change, sentence):
    path = table(change)
    with pytest.raises(CohortError, match=f"(?m){sentence}") as error:
        read_cohort(path, SubtypeTask())
    assert str(path) in str(error.value.where)


@pytest.mark.parametrize(
    ("row", "column", "value", "found"),
    [
        (2, "survival_months", "soon", "soon and 1"),
        (2, "survival_months", "-1", "-1 and 1"),
        (2, "survival_months", "inf", "inf and 1"),
        (3, "censorship", "2", "7 and 2"),
        (3, "censorship", "no", "7 and no"),
    ],
)
def test_an_impossible_time_or_censorship_is_refused_with_its_line(table, row, column, value, found):
    with pytest.raises(CohortError, match=f"found {found}") as error:
        read_cohort(table(put(row, column, value)), CoxTask())
    assert str(error.value.where).endswith(f"line {row + 2}")


def test_an_empty_value_is_refused_with_its_line(table):
    with pytest.raises(CohortError) as error:
        read_cohort(table(put(2, "survival_months", None)), CoxTask())
    assert str(error.value.where).endswith("line 4")


def test_two_times_of_one_patient_are_refused(table):
    with pytest.raises(CohortError, match="contradict each other in survival_months and censorship: A"):
        read_cohort(table(put(1, "survival_months", "11")), CoxTask())


def test_a_class_that_the_table_lacks_is_refused_with_those_it_has(table):
    with pytest.raises(CohortError, match="no patient of class MESO") as error:
        read_cohort(table(), SubtypeTask(classes=("LUAD", "MESO")))
    assert "classes LUAD, LUSC" in str(error.value.where)


def test_a_class_that_a_spreadsheet_would_compute_is_refused_unless_it_is_renamed(table):
    path = table(lambda rows: rows.replace({"oncotree_code": {"LUAD": "+", "LUSC": "-"}}))
    with pytest.raises(CohortError, match=r"class '\+' begins with \+") as error:
        read_cohort(path, SubtypeTask())
    assert "task.label_map" in error.value.fix
    assert read_cohort(path, SubtypeTask(label_map={"+": "yes", "-": "no"})).classes == ("no", "yes")


def test_a_large_cohort_takes_seconds(tmp_path):
    rows = "".join(f"P{i // 2},S{i},{'ab'[i // 2 % 2]}\n" for i in range(100_000))
    (tmp_path / "t.csv").write_text("case_id,slide_id,oncotree_code\n" + rows)
    start = time.process_time()
    cohort = read_cohort(tmp_path / "t.csv", SubtypeTask())
    assert len(cohort.without(list(cohort.patient_of)[::2]).slides) == 50_000
    assert time.process_time() - start < 20


PUBLISHED = {  # slides and patients of each class
    "brca": ({"IDC": 726, "ILC": 149}, {"IDC": 694, "ILC": 143}, 62),
    "lung": ({"LUAD": 492, "LUSC": 466}, {"LUAD": 430, "LUSC": 432}, 0),
    "kidney": ({"CCRCC": 498, "PRCC": 289, "CHRCC": 118}, {"CCRCC": 492, "PRCC": 267, "CHRCC": 107}, 0),
}


@pytest.mark.parametrize("cancer", PUBLISHED)
def test_the_presets_end_in_the_classes_of_the_published_tables(tcga, cancer):
    slides, patients, ignored = PUBLISHED[cancer]
    path = tcga / "subtyping" / "dataset_csv" / f"tcga_{cancer}_subset.csv.zip"
    cohort = read_cohort(path, SubtypeTask(preset=f"tcga_{cancer}"))
    assert cohort.classes == tuple(slides)
    assert cohort.targets["label"].value_counts().to_dict() == patients
    assert cohort.targets["label"][list(cohort.patient_of.values())].value_counts().to_dict() == slides
    assert len([name for name in cohort.left_out if "DX" in name]) == ignored
    assert not any(slide.endswith(".svs") for slide in cohort.patient_of)


def test_published_survival_of_luad_is_read(tcga):
    cohort = read_cohort(tcga / "survival" / "dataset_csv" / "tcga_luad_all_clean.slim.csv", CoxTask())
    assert (len(cohort.slides), len(cohort.patient_of), int(cohort.targets["event"].sum())) == (453, 516, 158)
    assert cohort.targets.loc["TCGA-05-4249"].tolist() == [50.03, 0]
