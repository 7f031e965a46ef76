import io
import json
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from longvit.cohort.audit import print_findings
from longvit.cohort.checks import Audit, audit_splits, untrainable
from longvit.cohort.findings import FindingCollector, refuse
from longvit.config import AuditConfig, CoxTask, SubtypeTask
from preprocessing.errors import CohortError, ConfigError


def audited(config: AuditConfig, **changes) -> Audit:
    return audit_splits(config.model_copy(update=changes))


def found(result: Audit, category: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(finding.level, finding.names) for finding in result.findings if finding.category == category]


@pytest.fixture
def sound(cohort) -> AuditConfig:
    """The tiny cohort: 12 patients, 14 slides, a store each, in two folds."""
    return AuditConfig(table=cohort.table, splits=cohort.splits, stores=cohort.stores)


@pytest.fixture
def small(table, tmp_path):
    """(`parts` of fold 0, changed settings) -> the audit of the small table: A with two slides, B and C."""

    def run(parts: dict[str, list[str]], **changes) -> Audit:
        folder = tmp_path / "splits"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        pd.DataFrame({part: pd.Series(names, dtype=str) for part, names in parts.items()}).to_csv(
            folder / "splits_0.csv"
        )
        return audit_splits(AuditConfig(**{"table": table(), "splits": folder} | changes))

    return run


def test_a_sound_cohort_has_counts_and_nothing_to_refuse(sound):
    result = audit_splits(sound)
    result.refuse()
    assert (result.findings, result.accepted) == ((), ())
    assert result.counts[:3] == [
        {"fold": 0, "part": "train", "patients": 6, "slides": 7, "LUAD": 3, "LUSC": 3},
        {"fold": 0, "part": "val", "patients": 2, "slides": 2, "LUAD": 1, "LUSC": 1},
        {"fold": 0, "part": "test", "patients": 4, "slides": 5, "LUAD": 2, "LUSC": 2},
    ]
    assert [row["events"] for row in audited(sound, task=CoxTask()).counts] == [4, 2, 2, 4, 1, 3]


LEAKS = [
    ({"train": ["A-1"], "val": ["B"], "test": ["A-2"]}, "1 patients are in both train and test: A"),
    ({"train": ["A-1"], "val": ["A-2"], "test": ["C"]}, "1 patients are in both train and val: A"),
    ({"train": ["B"], "val": ["A-1", "C"], "test": ["A", "C-1"]}, "2 patients are in both val and test: A, C"),
]


@pytest.mark.parametrize(("parts", "sentence"), LEAKS)
def test_a_patient_in_two_parts_is_refused_with_the_fix(small, tmp_path, parts, sentence):
    with pytest.raises(CohortError, match=sentence) as error:
        small(parts).refuse()
    assert error.value.where == str(tmp_path / "splits" / "splits_0.csv")
    assert "--move-leaks-to train" in error.value.fix


@pytest.mark.parametrize("home", ["train", "val", "test"])
@pytest.mark.parametrize(("parts", "_sentence"), LEAKS)
def test_a_leak_is_moved_where_it_is_asked_to(small, parts, _sentence, home):
    result = small(parts, move_leaks_to=home)
    result.refuse()
    (fold,) = result.folds
    assert len(set(fold.train + fold.val + fold.test)) == len(fold.train + fold.val + fold.test)
    assert "A" in fold.parts[home]
    assert found(result, "leak") == []
    assert found(result, "moved")[0][1][0] == "A"


def test_a_leak_accepted_by_name_leaves_the_others_refused(small):
    parts = {"train": ["A-1", "B", "C-1"], "val": ["A-2", "C"]}
    result = small(parts, accept=("leak:A",))
    assert found(result, "leak") == [("error", ("C",)), ("accepted", ("A",))]
    with pytest.raises(CohortError, match="1 patients are in both train and val: C"):
        result.refuse()
    for accept in (("leak:A", "leak:C"), ("leak",)):
        accepted = small(parts, accept=accept)
        accepted.refuse()
        assert accepted.accepted == accept
        assert accepted.folds[0].val == ("A", "C")


ALIKE = [
    ("p00", "P00"),
    ("P 00", "P00"),
    ("P_00", "P-00"),
    ("P-0", "P_000"),
    ("0007", "7"),
    ("100.0", "100"),
    ("TCGA-05-4250-01A", "TCGA-05-4250-06A"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_patients_that_differ_in_spelling_are_an_error_across_parts_and_a_note_within(small, table, one, other):
    path = table(lambda rows: rows.replace({"case_id": {"B": one, "C": other}}), "u.csv")
    pair = " = ".join(sorted((one, other)))
    with pytest.raises(CohortError, match="in two parts and may be one patient") as error:
        small({"train": ["A", "B-1"], "val": ["C-1"]}, table=path).refuse()
    assert pair in error.value.what
    accepted = small({"train": ["A", "B-1"], "val": ["C-1"]}, table=path, accept=(f"alike:{pair}",))
    accepted.refuse()
    within = small({"train": ["B-1", "C-1"], "val": ["A"]}, table=path)
    within.refuse()
    assert found(within, "alike-names") == [("note", (pair,))]


def test_patients_of_slides_with_one_barcode_are_alike(small, table):
    slides = {"B-1.svs": "TCGA-05-4250-01Z-00-DX1", "C-1": "TCGA-05-4250-01Z-00-DX2"}
    path = table(lambda rows: rows.replace({"slide_id": slides}), "u.csv")
    result = small({"train": ["A", "B"], "val": ["C"]}, table=path)
    assert found(result, "alike") == [("error", ("B = C",))]


@pytest.mark.parametrize("names", [("1_10", "11_0"), ("P1", "P10"), ("TCGA-05-4250", "TCGA-05-4251"), ("P1.1", "P11")])
def test_other_patients_are_not_alike(small, table, names):
    path = table(lambda rows: rows.replace({"case_id": dict(zip("BC", names, strict=True))}), "u.csv")
    result = small({"train": ["A", "B-1"], "val": ["C-1"]}, table=path)
    assert found(result, "alike") == []


def test_white_space_at_the_ends_of_a_patient_makes_no_second_one(small, table):
    path = table(lambda rows: rows.assign(case_id=["A", "A ", "B", "\u00a0A\t"]), "u.csv")
    with pytest.raises(CohortError, match="1 patients are in both train and val: A"):
        small({"train": ["A-1"], "val": ["B", "C-1"]}, table=path).refuse()
    blank = table(lambda rows: rows.assign(case_id=["A", " ", "B", "C"]), "u.csv")
    with pytest.raises(CohortError, match="1 of 4 rows have no case_id"):
        small({"train": ["A-1"], "val": ["B"]}, table=blank)


def test_labels_that_differ_in_case_or_spaces_are_refused_unless_merged(small, table):
    path = table(lambda rows: rows.assign(oncotree_code=["LUAD", "LUAD ", "LUSC", "Lu ad"]), "u.csv")
    parts = {"train": ["A", "B"], "val": ["C"]}
    with pytest.raises(CohortError, match="2 classes differ only in case or white space: LUAD, Lu ad"):
        small(parts, table=path).refuse()
    merged = small(parts, table=path, task=SubtypeTask(label_map={"Lu ad": "LUAD"}))
    merged.refuse()
    assert merged.cohort.classes == ("LUAD", "LUSC")
    assert found(merged, "rare") == [("note", ("LUSC",))]


def test_the_table_s_spelling_of_a_name_is_shown(small, table):
    path = table(lambda rows: rows.assign(slide_id=["0001", "0002", "0003", "0004"]), "u.csv")
    with pytest.raises(CohortError, match="is in train: the split has 1, the table has 0001"):
        small({"train": ["1"], "val": ["3"]}, table=path)
    with pytest.raises(CohortError, match=r"does not contain: 4 \(the split has 4, the table has 0004\)"):
        small({"train": ["0001"], "val": ["0003", "4"]}, table=path).refuse()


@pytest.mark.parametrize(("written", "of_split"), [("100", "100.0"), ("100.0", "100")])
def test_whole_numbers_are_joined_whether_or_not_they_end_in_a_point_and_zero(small, table, written, of_split):
    path = table(lambda rows: rows.replace({"slide_id": {"B-1.svs": written}}), "u.csv")
    result = small({"train": ["A"], "val": [of_split], "test": ["C"]}, table=path)
    result.refuse()
    assert result.folds[0].val == ("B",)


def test_names_that_the_table_lacks_are_refused_or_accepted_together(small):
    parts = {"train": ["A", "X"], "val": ["B", "C"], "test": ["Y-1"]}
    with pytest.raises(CohortError, match=r"names 2 slides or cases .* does not contain: X, Y-1"):
        small(parts).refuse()
    result = small(parts, accept=("missing-slides", "leak"))
    result.refuse()
    assert result.accepted == ("missing-slides",)  # nothing leaked, so nothing was accepted
    assert found(result, "missing-slides") == [("accepted", ("X", "Y-1"))]


def test_patients_of_ignored_labels_are_no_strangers(small):
    parts = {"train": ["A", "B"], "val": ["C-1"]}
    task = SubtypeTask(classes=("LUAD", "LUSC"), ignore=("MESO",))
    assert found(small(parts, task=task), "missing-slides") == []


def test_an_unknown_category_is_refused_with_those_there_are(small):
    with pytest.raises(ConfigError, match="accept has entries of no category of the audit: leaks:A") as error:
        small({"train": ["A"], "val": ["B"]}, accept=("leaks:A",))
    assert "leak, missing-slides, no-store, duplicate" in error.value.fix


def test_slides_without_stores_are_refused_or_left_out(sound, tmp_path):
    shutil.copytree(sound.stores, tmp_path / "stores")
    for name in ("P02-1", "P05-0"):
        shutil.rmtree(tmp_path / "stores" / f"{name}.zarr")
    with pytest.raises(CohortError, match="2 of 14 slides have no store: P02-1, P05-0") as error:
        audited(sound, stores=tmp_path / "stores").refuse()
    assert error.value.where == str(tmp_path / "stores")
    result = audited(sound, stores=tmp_path / "stores", accept=("no-store",))
    result.refuse()
    assert result.cohort.slides["P02"] == ["P02-0"]
    assert "P05" not in result.cohort.slides
    assert all("P05" not in fold.train + fold.val + fold.test for fold in result.folds)
    by_name = audited(sound, stores=tmp_path / "stores", accept=("no-store:P05-0",))
    assert found(by_name, "no-store") == [("error", ("P02-1",)), ("accepted", ("P05-0",))]


def test_stores_that_the_table_does_not_name_are_a_note(sound, tmp_path):
    rows = pd.read_csv(sound.table)
    rows[rows["case_id"] != "P03"].to_csv(tmp_path / "t.csv", index=False)
    result = audited(sound, table=tmp_path / "t.csv", accept=("missing-slides",))
    assert found(result, "unlabelled-stores") == [("note", ("P03-0",))]
    assert found(audited(sound, task=SubtypeTask(classes=("LUAD", "LUSC"))), "unlabelled-stores") == []


def test_two_slides_with_one_file_are_refused(sound, tmp_path):
    shutil.copytree(sound.stores, tmp_path / "stores")
    document = tmp_path / "stores" / "P09-0.zarr" / "zarr.json"
    metadata = json.loads(document.read_text())
    metadata["attributes"]["source"]["sha256"] = "P01-0"
    document.write_text(json.dumps(metadata))
    with pytest.raises(CohortError, match="1 slides have the file of another slide, by its sha256: P09-0 = P01-0"):
        audited(sound, stores=tmp_path / "stores").refuse()
    audited(sound, stores=tmp_path / "stores", accept=("duplicate:P09-0",)).refuse()


def test_slides_whose_file_is_unknown_are_no_duplicates(sound, tmp_path):
    shutil.copytree(sound.stores, tmp_path / "stores")
    for slide in ("P01-0", "P09-0"):  # features that were brought without the slide
        document = tmp_path / "stores" / f"{slide}.zarr" / "zarr.json"
        metadata = json.loads(document.read_text())
        metadata["attributes"]["source"] |= {"size": None, "sha256": None}
        metadata["attributes"]["arrays"] = ["rc", "xy_l0"]
        document.write_text(json.dumps(metadata))
    assert found(audited(sound, stores=tmp_path / "stores"), "duplicate") == []


def test_held_out_patients_from_hospitals_of_the_training_are_noted(tmp_path):
    cases = [f"TCGA-{site}-000{i}" for i, site in enumerate(["AA", "AA", "BB", "CC", "DD"])]
    rows = {"case_id": cases, "slide_id": [f"{case}-x" for case in cases], "oncotree_code": list("ababa")}
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv")
    (tmp_path / "splits_0.csv").write_text(
        f",train,val,test\n0,{cases[0]},{cases[2]},{cases[1]}\n1,{cases[3]},,{cases[4]}\n"
    )
    result = audit_splits(AuditConfig(table=tmp_path / "t.csv", splits=tmp_path))
    assert found(result, "site-overlap") == [("note", ("AA",))]
    assert "1 of 2 test patients come from 1 sites seen in training: AA" in result.findings[0].what


def test_parts_without_a_class_and_patients_in_no_part_are_noted(small):
    result = small({"train": ["A"], "val": ["C"]})
    assert found(result, "one-sided") == [("note", ("LUSC",))]
    assert found(result, "unassigned") == [("note", ("B",))]
    assert found(small({"train": ["A"], "val": ["B"]}, task=CoxTask()), "one-sided") == [("note", ("events",))]


def test_patients_held_out_in_several_folds_are_noted(small, tmp_path, table):
    small({"train": ["A"], "val": ["B", "C"]})
    pd.DataFrame({"train": ["A", "B"], "val": ["C", None]}).to_csv(tmp_path / "splits" / "splits_1.csv")
    result = audit_splits(AuditConfig(table=table(), splits=tmp_path / "splits"))
    assert found(result, "held-out-again") == [("note", ("C",))]


def test_several_findings_are_refused_together_each_in_a_note(small):
    result = small({"train": ["A-1", "X"], "val": ["A-2", "B"], "test": ["B-1"]})
    with pytest.raises(CohortError, match="found 3 errors") as error:
        result.refuse()
    said = str(error.value)
    for piece in ("both train and val: A", "both val and test: B", "does not contain: X", "--move-leaks-to train"):
        assert piece in said
    assert said.count("--accept leak") == 1


def test_the_written_audit_says_what_was_found_and_accepted(small):
    result = small({"train": ["A-1", "C"], "val": ["A-2", "B"]}, accept=("leak:A",))
    document = json.loads(result.file.model_dump_json())
    assert set(document) == {"findings", "accepted", "verdict", "flow", "counts"}
    assert document["accepted"] == ["leak:A"]
    rare, finding = document["findings"]
    assert (rare["category"], rare["names"]) == ("rare", ["LUSC"])
    assert finding["level"] == "accepted"
    assert {"what", "where", "fix", "category", "names"} <= set(finding)
    assert document["counts"] == result.counts


def test_names_with_markup_and_braces_are_shown_as_they_are(table, tmp_path):
    """The console reads [/] as markup, the sentences of findings read {n} as a number."""
    names = {"LUAD": "[/]{n}", "LUSC": "[red]{0}"}
    rows = pd.read_csv(table(), dtype=str).replace({"oncotree_code": names, "case_id": {"A": "[/A]{"}})
    rows.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "splits_0.csv").write_text("train,val,test\nA-1,A-2,B-1\nC-1,{names},[/red]\n")
    result = audit_splits(AuditConfig(table=tmp_path / "t.csv", splits=tmp_path, accept=("missing-slides",)))
    console = Console(file=io.StringIO(), width=300)
    print_findings(result, console)
    said = console.file.getvalue()
    for piece in ("[/]{n}", "[red]{0}", "[/A]{", "{names}, [/red]"):
        assert piece in said


def test_twins_with_braces_in_their_names_are_named(cohort):
    judge = FindingCollector(())
    judge.find("duplicate", ["a{b}"], "{n} twins: " + "a{{b}} = c", where="here", fix="none")
    assert judge.findings[0].what == "1 twins: a{b} = c"


def test_a_hundred_thousand_names_are_judged_in_a_moment():
    names = [str(i) for i in range(100_000)]
    judge = FindingCollector(("leak", *(f"no-store:{name}" for name in names)))
    start = time.process_time()
    for category in ("leak", "no-store"):
        judge.find(category, names, "{n}: {names}", where="here", fix="none")
    assert judge.used == judge.accept
    assert time.process_time() - start < 5


@settings(max_examples=100)
@given(
    names=st.lists(st.sampled_from("ABCDEF"), unique=True),
    accept=st.lists(st.sampled_from(["leak", "no-store", *(f"leak:{n}" for n in "ABCDEF"), "no-store:A"]), unique=True),
)
def test_every_name_is_refused_or_accepted_and_only_what_was_needed_counts_as_accepted(names, accept):
    judge = FindingCollector(accept)
    judge.find("leak", names, "{n}: {names}", where="here", fix="mend it")
    by_level = {finding.level: set(finding.names) for finding in judge.findings}
    wanted = {name for name in names if "leak" in accept or f"leak:{name}" in accept}
    assert by_level.get("accepted", set()) == wanted
    assert by_level.get("error", set()) == set(names) - wanted
    assert set(judge.used) == {
        entry for entry in accept if (entry == "leak" and names) or entry in {f"leak:{name}" for name in wanted}
    }
    if by_level.get("error"):
        with pytest.raises(CohortError):
            refuse(judge.findings, Path("splits"))
    else:
        refuse(judge.findings, Path("splits"))


SUBTYPING = {  # patients in two parts of each fold, and slides of each fold that the table lacks
    "brca": ([12, 14, 10, 11, 14, 7, 14, 9, 15, 7], 166),
    "lung": ([14, 19, 17, 16, 14, 12, 12, 16, 14, 16], 75),
    "kidney": ([10, 11, 9, 8, 6, 7, 8, 7, 5, 6], 26),
}


@pytest.mark.parametrize("cancer", SUBTYPING)
def test_the_published_subtyping_splits_are_refused_for_what_they_leak_and_lack(tcga, cancer):
    leaks, missing = SUBTYPING[cancer]
    config = AuditConfig(
        table=tcga / "subtyping" / "dataset_csv" / f"tcga_{cancer}_subset.csv.zip",
        splits=tcga / "subtyping" / "splits" / "10foldcv_subtype" / f"tcga_{cancer}",
        task=SubtypeTask(preset=f"tcga_{cancer}"),
    )
    result = audit_splits(config)
    leaking = [
        {name for f in result.findings if f.category == "leak" and f.where.endswith(f"_{k}.csv") for name in f.names}
        for k in range(10)
    ]
    assert [len(names) for names in leaking] == leaks
    assert [len(names) for _, names in found(result, "missing-slides")] == [missing] * 10
    with pytest.raises(CohortError, match=r"the audit of this cohort found \d+ errors"):
        result.refuse()
    mended = audited(config, move_leaks_to="train", accept=("missing-slides",))
    mended.refuse()
    assert [len(names) for _, names in found(mended, "moved")] == leaks
    assert found(mended, "unassigned") == found(mended, "one-sided") == []


@pytest.mark.parametrize(
    ("cancer", "table", "patients", "events"),
    [
        ("brca", "tcga_brca_all_clean.slim.csv", 956, 130),
        ("luad", "tcga_luad_all_clean.slim.csv", 453, 158),
        ("ucec", "tcga_ucec_all_clean.csv.zip", 480, 75),
    ],
)
def test_the_published_survival_splits_are_sound(tcga, cancer, table, patients, events):
    folder = tcga / "survival"
    splits = folder / "splits" / "5foldcv" / f"tcga_{cancer}"
    result = audit_splits(AuditConfig(table=folder / "dataset_csv" / table, splits=splits, task=CoxTask()))
    result.refuse()
    assert {finding.category for finding in result.findings} == {"site-overlap"}
    val = pd.DataFrame(result.counts).query("part == 'val'")
    assert (val["patients"].sum(), val["events"].sum()) == (patients, events)


def test_times_that_cannot_be_in_the_stated_unit_are_refused_with_the_flag(small, table):
    in_days = table(lambda rows: rows.assign(survival_months=["3000", "3000", "700", "900"]), "days.csv")
    parts = {"train": ["A"], "val": ["B"], "test": ["C"]}
    with pytest.raises(CohortError, match="column survival_months has a longest follow-up of 3000 months") as refused:
        small(parts, table=in_days, task=CoxTask()).refuse()
    assert "a median of 900, which is more than 60 years" in refused.value.what
    assert "--task.time-unit days" in refused.value.fix
    assert "--accept time-unit" in refused.value.fix
    assert found(small(parts, table=in_days, task=CoxTask(time_unit="days")), "time-unit") == []
    accepted = small(parts, table=in_days, task=CoxTask(), accept=("time-unit",))
    accepted.refuse()
    assert found(accepted, "time-unit") == [("accepted", ("survival_months",))]
    assert (
        small(parts, task=CoxTask(time_unit="days"))
        .findings[0]
        .fix.startswith("set the unit of the column, as --task.time-unit months does")
    )
    assert found(small(parts, table=in_days), "time-unit") == []  # subtypes have no times


def test_names_with_markup_are_shown(small, table, capsys):
    odd = table(lambda rows: rows.replace({"oncotree_code": {"LUSC": "[/]"}}), "odd.csv")
    print_findings(small({"train": ["A"], "val": ["B"], "test": ["C"]}, table=odd), Console(width=200))
    assert "[/]" in capsys.readouterr().out


def test_the_flow_of_patients_ends_in_the_splits(sound):
    flow = [("in the table", 12), ("with a slide", 12), ("of the task's classes", 12), ("with a known target", 12)]
    assert audit_splits(sound).flow == (*flow, ("with a store", 12), ("in the splits", 12))
    assert audit_splits(sound).file.flow == audit_splits(sound).flow


def test_patients_without_a_label_are_left_out_by_name_with_a_note(small, table):
    rows = "case_id,slide_id,label\nA,A-1,x\nA,A-2,x\nB,B-1,y\nC,C-1,\nD,D-1,y\n"
    parts = {"train": ["A", "C"], "val": ["B"], "test": []}
    path = table(lambda _: pd.read_csv(io.StringIO(rows)), "gaps.csv")
    with pytest.raises(CohortError, match="1 of 4 patients with slides have no label: C"):
        small(parts, table=path)
    result = small(parts, table=path, task=SubtypeTask(missing="leave-out"))
    result.refuse()
    assert found(result, "left-out") == [("note", ("C",))]
    assert [patients for _, patients in result.flow] == [4, 4, 4, 3, 3, 2]
    assert "C" not in result.folds[0].train


def test_the_audit_ends_with_a_verdict(small, table):
    parts = {"train": ["A", "B"], "val": ["C"], "test": []}
    console = Console(width=200, record=True)
    print_findings(small(parts), console)
    assert (
        console.export_text()
        .rstrip()
        .endswith("verdict: no errors, no accepted findings, 2 notes: these splits can be trained on")
    )
    leaking = small({"train": ["A-1", "B"], "val": ["A-2"], "test": ["C"]})
    assert leaking.verdict.startswith("1 error, no accepted findings, ")
    assert leaking.verdict.endswith(": `longvit finetune` refuses these splits")
    assert leaking.file.verdict == leaking.verdict
    accepted = small({"train": ["A-1", "B"], "val": ["A-2"], "test": ["C"]}, accept=("leak",))
    assert accepted.verdict.startswith("no errors, 1 accepted finding, ")


def test_a_training_part_that_teaches_nothing_is_an_error_that_cannot_be_accepted(small):
    parts = {"train": ["B"], "val": ["A"], "test": ["C"]}
    found = untrainable(small(parts, task=CoxTask()))
    assert [(one.level, one.what) for one in found] == [
        ("error", "fold 0 has 0 observed events in train, fewer than 2")
    ]
    assert [one.what for one in untrainable(small(parts))] == ["fold 0 has no training patient of class LUAD"]
    assert untrainable(small(parts | {"train": ["B", "C"]})) == []
    with pytest.raises(ConfigError, match="no category of the audit: untrainable"):
        small(parts, accept=("untrainable",))


def test_a_status_that_is_turned_round_is_an_error(tmp_path):
    status = [1] * 57 + [0] * 3
    rows = [f"P{n:02d},s{n},{n + 1},{one}" for n, one in enumerate(status)]
    (tmp_path / "t.csv").write_text("case_id,slide_id,survival_months,event\n" + "\n".join(rows) + "\n")
    splits = [",train,val,test", *(f"{n},P{n:02d},P{n + 20:02d},P{n + 40:02d}" for n in range(20))]
    (tmp_path / "splits_0.csv").write_text("\n".join(splits) + "\n")
    config = AuditConfig(table=tmp_path / "t.csv", splits=tmp_path, task=CoxTask(event_column="event"))
    with pytest.raises(CohortError, match=r"column event may be turned round: 95\.0 % of 60 patients have") as e:
        audit_splits(config).refuse()
    assert "--accept censoring" in e.value.fix
