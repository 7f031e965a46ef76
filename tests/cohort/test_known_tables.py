"""Published tables as their publishers write them: recognised, said, and read without a setting."""

import re

import pytest

from longvit.cohort.known_tables import TABLES, fit_task, recognise
from longvit.cohort.patients import read_cohort
from longvit.config import CoxTask, SubtypeTask
from preprocessing.errors import CohortError

SLIDES = "File ID\tFile Name\tProject ID\tCase ID\tSample ID\n" + "".join(
    f"{n}\tTCGA-05-42{n}-01Z-00-DX1.AB{n}.svs\tTCGA-LUAD\tTCGA-05-42{n}\tTCGA-05-42{n}-01Z\n" for n in (49, 50, 55)
)
"""Sample sheet of GDC with three slides."""
PATIENTS = ["TCGA-05-4249", "TCGA-05-4250", "TCGA-05-4255"]
CDR = (
    ",bcr_patient_barcode,type,vital_status,OS,OS.time,DSS,DSS.time,DFI,DFI.time,PFI,PFI.time,Redaction\n"
    "1,TCGA-05-4249,LUAD,Alive,0,1523,0,1523,#N/A,#N/A,0,1523,\n"
    "2,TCGA-05-4250,LUAD,Dead,1,121,#N/A,#N/A,#N/A,#N/A,1,91,\n"
    "3,TCGA-05-4255,LUSC,Alive,0,30,0,30,0,30,0,30,\n"
    "4,TCGA-OR-A5J1,ACC,Dead,#N/A,#N/A,1,1355,1,754,1,754,\n"
)
XENA = (
    "sample\t_PATIENT\tOS\tOS.time\tDSS\tDSS.time\n"
    "TCGA-05-4249-01\tTCGA-05-4249\t0\t1523\t0\t1523\n"
    "TCGA-05-4250-01\tTCGA-05-4250\t1\t121\t\t\n"
    "TCGA-05-4250-11\tTCGA-05-4250\t1\t121\t\t\n"
    "TCGA-05-4255-01\tTCGA-05-4255\t0\t30\t0\t30\n"
)
GDC_OLD = (
    "case_id\tcase_submitter_id\tproject_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\ttreatment_type\n"
    "08b7-0\tTCGA-05-4249\tTCGA-LUAD\tAlive\t'--\t1523\tRadiation\n"
    "08b7-0\tTCGA-05-4249\tTCGA-LUAD\tAlive\t'--\t1523\tPharmaceutical\n"
    "08b7-1\tTCGA-05-4250\tTCGA-LUAD\tDead\t121\t'--\tRadiation\n"
    "08b7-2\tTCGA-05-4255\tTCGA-LUSC\tAlive\t'--\t30\tRadiation\n"
    "08b7-3\tTCGA-OR-A5J1\tTCGA-ACC\tNot Reported\t'--\t'--\tRadiation\n"
)
GDC_NEW = (
    "project.project_id\tcases.case_id\tcases.submitter_id\tdemographic.days_to_death\tdemographic.vital_status\t"
    "diagnoses.days_to_last_follow_up\n"
    "TCGA-LUAD\t08b7-0\tTCGA-05-4249\t'--\tAlive\t1523\n"
    "TCGA-LUAD\t08b7-1\tTCGA-05-4250\t121\tDead\t100\n"
    "TCGA-LUAD\t08b7-1\tTCGA-05-4250\t121\tDead\t'--\n"
    "TCGA-LUSC\t08b7-2\tTCGA-05-4255\t'--\tAlive\t30\n"
)
CBIOPORTAL = (
    "#Patient Identifier\tOverall Survival Status\tOverall Survival (Months)\tDSS\tDSS\n"
    "#Identifier\tstatus\tmonths\tstatus\tmonths\n#STRING\tSTRING\tNUMBER\tSTRING\tNUMBER\n#1\t1\t1\t1\t1\n"
    "PATIENT_ID\tOS_STATUS\tOS_MONTHS\tDSS_STATUS\tDSS_MONTHS\n"
    "TCGA-05-4249\t0:LIVING\t50.07\t0:ALIVE OR DEAD TUMOR FREE\t50.07\n"
    "TCGA-05-4250\t1:DECEASED\t3.98\t1:DEAD WITH TUMOR\t3.98\n"
    "TCGA-05-4255\t0:LIVING\t0.99\t0:ALIVE OR DEAD TUMOR FREE\t0.99\n"
)
WEBSITE = (
    "Study ID\tPatient ID\tSample ID\tOncotree Code\tOverall Survival (Months)\tOverall Survival Status\n"
    "luad\tTCGA-05-4249\tTCGA-05-4249-01\tLUAD\t50.07\t0:LIVING\n"
    "luad\tTCGA-05-4250\tTCGA-05-4250-01\tLUAD\t3.98\t1:DECEASED\n"
    "lusc\tTCGA-05-4255\tTCGA-05-4255-01\tLUSC\t0.99\t0:LIVING\n"
)
SURVIVAL = {
    "cdr": (CDR, "TCGA-CDR", "days", [1523, 121, 30]),
    "xena": (XENA, "UCSC Xena's survival table", "days", [1523, 121, 30]),
    "gdc": (GDC_OLD, "GDC's clinical table", "days", [1523, 121, 30]),
    "gdc of 2024": (GDC_NEW, "GDC's clinical table", "days", [1523, 121, 30]),
    "cbioportal": (CBIOPORTAL, "cBioPortal's table of patients", "months", [50.07, 3.98, 0.99]),
    "cbioportal's website": (WEBSITE, "cBioPortal's table of patients", "months", [50.07, 3.98, 0.99]),
}


@pytest.fixture
def written(tmp_path):
    def write(text, name="table.txt"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", SURVIVAL)
def test_survival_is_read_from_a_table_as_downloaded(written, capsys, name):
    text, title, unit, times = SURVIVAL[name]
    cohort = read_cohort(written(text), CoxTask(), written(SLIDES, "sheet.tsv"))
    assert list(cohort.slides) == PATIENTS
    assert cohort.targets["time"].tolist() == times
    assert cohort.targets["event"].tolist() == [0, 1, 0]
    assert cohort.task.unit == unit
    assert f"is read as {title}: columns" in capsys.readouterr().err
    forced = CoxTask(table=name.split("'")[0].split()[0])
    assert read_cohort(written(text), forced, written(SLIDES, "sheet.tsv")).targets.equals(cohort.targets)


@pytest.mark.parametrize("name", ["cdr", "gdc", "gdc of 2024", "cbioportal's website"])
def test_a_class_is_read_from_a_table_as_downloaded(written, name):
    cohort = read_cohort(written(SURVIVAL[name][0]), SubtypeTask(), written(SLIDES, "sheet.tsv"))
    assert [one.removeprefix("TCGA-") for one in cohort.targets["label"]] == ["LUAD", "LUAD", "LUSC"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("case_id,slide_id,label\nA,A-1.svs,x\nB,B-1,y\n", "clam"),
        ("PATIENT,FILENAME,label\nA,A-1.svs,x\nB,B-1,y\n", "stamp"),
        ("Case ID,slide,Subtype\nA,A-1.svs,x\nB,B-1,y\n", None),
        (",case_id,slide_id,oncotree_code,survival_months,censorship\n0,A,A-1,x,1,1\n1,B,B-1,y,1,1\n", "mcat"),
    ],
)
def test_slides_and_classes_of_other_tools_are_found(written, text, kind):
    path = written(text)
    cohort = read_cohort(path, SubtypeTask(table=kind))
    assert cohort.slides == {"A": ["A-1"], "B": ["B-1"]}
    assert cohort.targets["label"].to_dict() == {"A": "x", "B": "y"}
    assert read_cohort(path, SubtypeTask()).slides == cohort.slides


def test_slides_of_panda_are_patients(written, capsys):
    path = written(
        "image_id,data_provider,isup_grade,gleason_score\n0005f7aa,karolinska,0,0+0\n000920ad,radboud,3,4+3\n"
    )
    cohort = read_cohort(path, SubtypeTask())
    assert cohort.slides == {"0005f7aa": ["0005f7aa"], "000920ad": ["000920ad"]}
    assert cohort.classes == ("0", "3")
    assert "every slide a patient" in capsys.readouterr().err


def test_slides_are_patients_where_asked_for(written):
    path = written("slide_id,case_id,label\na,P,x\nb,P,y\n")
    assert read_cohort(path, SubtypeTask(patient="slide")).slides == {"a": ["a"], "b": ["b"]}
    with pytest.raises(CohortError, match=r"contradict each other in label: P") as error:
        read_cohort(path, SubtypeTask())
    assert str(error.value.where).endswith("lines 2, 3")
    with pytest.raises(CohortError, match="no column case_id") as error:
        read_cohort(written("slide_id,label\na,x\nb,y\n"), SubtypeTask())
    assert "--task.patient slide" in error.value.fix


@pytest.mark.parametrize(("endpoint", "patients"), [("DSS", PATIENTS[::2]), ("DFI", PATIENTS[2:]), ("PFI", PATIENTS)])
def test_patients_without_the_endpoint_are_left_out_by_name(written, endpoint, patients):
    task = CoxTask(endpoint=endpoint, missing="leave-out")
    cohort = read_cohort(written(CDR), task, written(SLIDES, "sheet.tsv"))
    assert list(cohort.slides) == patients
    assert cohort.unknown == tuple(sorted(set(PATIENTS) - set(patients)))
    assert dict(cohort.flow) == {
        "in the table": 4,
        "with a slide": 3,
        "with a known target": len(patients),
    }
    assert {*cohort.unknown, "TCGA-OR-A5J1"} <= cohort.left_out


def test_patients_without_the_endpoint_are_refused_otherwise(written):
    with pytest.raises(
        CohortError, match=r"2 of 3 patients with slides have no DFI.time and DFI: TCGA-05-4249"
    ) as error:
        read_cohort(written(CDR), CoxTask(endpoint="DFI"), written(SLIDES, "sheet.tsv"))
    assert error.value.fix.endswith("--task.missing leave-out")
    assert str(error.value.where).endswith("line 2")


@pytest.mark.parametrize("text", [GDC_OLD, GDC_NEW], ids=["old", "new"])
def test_cells_that_gdc_leaves_out_are_no_times_no_status_and_no_class(written, text):
    sheet, task = written(SLIDES, "sheet.tsv"), CoxTask(missing="leave-out")
    lost = written(text.replace("1523", "'--"))
    cohort = read_cohort(lost, task, sheet)
    assert (list(cohort.slides), cohort.unknown) == (PATIENTS[1:], (PATIENTS[0],))
    assert cohort.targets["time"].tolist() == [121, 30]
    with pytest.raises(CohortError, match=rf"1 of 3 patients with slides have no .*: {PATIENTS[0]}"):
        read_cohort(lost, CoxTask(), sheet)
    cohort = read_cohort(written(text.replace("Dead", "'--")), task, sheet)
    assert (list(cohort.slides), cohort.unknown) == (PATIENTS[::2], (PATIENTS[1],))
    with pytest.raises(CohortError, match="there is one class: TCGA-LUAD"):
        read_cohort(written(text.replace("TCGA-LUSC", "'--")), SubtypeTask(missing="leave-out"), sheet)


@pytest.mark.parametrize("text", [GDC_OLD, GDC_NEW], ids=["old", "new"])
@pytest.mark.parametrize("lost", ["Alive|Dead", r"(?<=\t)\d+(?=[\t\n])"], ids=["status", "times"])
@pytest.mark.parametrize("missing", ["refuse", "leave-out"])
def test_a_table_of_gdc_in_which_no_patient_has_a_time_or_a_status_is_refused(written, text, lost, missing):
    path = written(re.sub(lost, "'--", text))
    with pytest.raises(CohortError, match=r"3 of 3 patients with slides have no .*vital_status") as error:
        read_cohort(path, CoxTask(missing=missing), written(SLIDES, "sheet.tsv"))
    assert "task.time_column" in error.value.fix


def test_an_endpoint_that_a_table_lacks_is_refused_with_those_it_has(written):
    with pytest.raises(CohortError, match="no endpoint PFI; it has the endpoints OS"):
        read_cohort(written(GDC_OLD), CoxTask(endpoint="PFI"), written(SLIDES, "sheet.tsv"))


def test_a_table_that_is_not_the_named_one_is_refused_with_what_it_lacks(written):
    with pytest.raises(CohortError, match=r"(?m)this is not TCGA-CDR: it has no column bcr_patient_barcode$"):
        read_cohort(written(XENA), CoxTask(table="cdr"), written(SLIDES, "sheet.tsv"))


def test_rows_of_a_patient_that_differ_are_named_with_their_lines(written):
    text = GDC_OLD.replace("1523\tPharm", "1524\tPharm")
    with pytest.raises(CohortError, match=r"contradict each other in .*: TCGA-05-4249") as error:
        read_cohort(written(text), CoxTask(), written(SLIDES, "sheet.tsv"))
    assert str(error.value.where).endswith("lines 2, 3")


def test_slides_of_tcga_need_no_table_of_slides(written, capsys):
    stores = ["TCGA-05-4249-01Z-00-DX1.A", "TCGA-05-4250-01Z-00-DX1.B", "TCGA-05-4250-11A-01-TS1.C", "other"]
    cohort = read_cohort(written(CDR), CoxTask(), stores=stores)
    assert cohort.slides == {"TCGA-05-4249": [stores[0]], "TCGA-05-4250": [stores[1]]}
    assert f"note: 1 slides of normal tissue are left out, by their barcodes: {stores[2]}" in capsys.readouterr().err
    with pytest.raises(CohortError, match="no patient of the table is in the barcodes of the stores"):
        read_cohort(written(CDR), CoxTask(), stores=["other"])


def test_a_sample_is_cut_to_its_patient(written):
    cohort = read_cohort(written(XENA.replace("_PATIENT", "other")), CoxTask(), written(SLIDES, "sheet.tsv"))
    assert list(cohort.slides) == PATIENTS


@pytest.mark.parametrize(
    ("column", "unit"),
    [("days_to_event", "days"), ("os_months", "months"), ("Follow-up (years)", "years"), ("DSS.time", "days")],
)
def test_the_unit_is_in_the_name_of_the_column(written, column, unit):
    task, _ = fit_task(CoxTask(time_column=column, event_column="e"), [column, "e"], written(""))
    assert task.unit == unit
    given, _ = fit_task(task.model_copy(update={"time_unit": "years"}), [column, "e"], written(""))
    assert given.unit == "years"


def test_a_time_of_no_known_unit_is_refused(written):
    with pytest.raises(CohortError, match="the unit of column t is not known") as error:
        fit_task(CoxTask(time_column="t", event_column="e"), ["t", "e"], written(""))
    assert "--task.time-unit" in error.value.fix


@pytest.mark.parametrize("task", [CoxTask(), CoxTask(time_column="OS.time"), SubtypeTask()])
def test_a_table_without_known_columns_is_refused_with_the_setting(written, task):
    with pytest.raises(CohortError, match=r"no known column of the (time|status|label)") as error:
        fit_task(task, ["a", "b"], written(""))
    assert "task." in error.value.fix
    assert "columns: a, b" in str(error.value.where)


def test_a_time_column_of_a_known_table_brings_its_status(written):
    task, _ = fit_task(CoxTask(time_column="DSS.time"), CDR.split("\n")[0].split(","), written(""))
    assert (task.table_columns, task.event_column, task.unit) == (["DSS.time", "DSS"], "DSS", "days")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.name} by {table.signature[0]}")
def test_every_layout_is_recognised_by_its_own_columns(written, table):
    found = recognise([*table.signature, "more"], table.name, written(""))
    assert found is not None
    assert found.name == table.name
