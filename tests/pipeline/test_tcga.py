"""Law: the commands of configs/tcga/README.md lead from a GDC download and TCGA-CDR's file to a number, as they stand.

The download has gdc-client's layout, with slides of real tiles. Settings that make the run small are added to the
commands, and nothing is taken from them.
"""

import csv
import hashlib
import json
import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import openpyxl
import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT / ".." / "shared"
README = ROOT / "configs" / "tcga" / "README.md"
CDR = "TCGA-CDR-SupplementalTableS1.xlsx"
SMALL = {
    "tile": "--workers 2",
    "pretrain": "--encoder.width 32 --encoder.depth 1 --encoder.heads 2 --objective.prototypes 64 --objective.hidden 32"
    " --objective.bottleneck 16 --views.region-px 384 --views.global-px 256 --views.local-px 128 --views.local-views 2"
    " --optimiser.epochs 1 --optimiser.warmup-epochs 0 --batch-size 8 --regions-per-slide 1 --precision 32"
    " --loader-workers 1",
    "finetune": "--optimiser.epochs 2 --precision 32 --loader-workers 1",
}
PATIENTS = 24

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not (SHARED / "tools/make_lung_cohort.py").exists(), reason="../shared is not here"),
]


def commands() -> list[list[str]]:
    """The longvit commands of the README, in order."""
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("longvit ")]


def write_cdr(path: Path, patients: list[tuple[str, str, float, int]]) -> None:
    """TCGA-CDR's workbook: notes, the table with 11,000 patients of other cancers, and a sheet of more endpoints."""
    ages = np.random.default_rng(0).integers(40, 80, len(patients))
    head = [None, "bcr_patient_barcode", "type", "age_at_initial_pathologic_diagnosis", "gender"]
    head += ["ajcc_pathologic_tumor_stage", "vital_status", "OS", "OS.time", "DSS", "DSS.time", "PFI", "PFI.time"]
    book = openpyxl.Workbook(write_only=True)
    book.create_sheet("TCGA-CDR_Notes").append(["TCGA-CDR, a made-up copy"])
    sheet = book.create_sheet("TCGA-CDR")
    sheet.append(head)
    for n in range(11_000):
        sheet.append([n, f"TCGA-OR-{n:04d}", "ACC", 50, "MALE", "[Not Available]", "Alive", *(["#N/A"] * 6)])
    for n, (case, kind, days, event) in enumerate(patients):
        gender, status = ("MALE", "FEMALE")[n % 2], ("Alive", "Dead")[event]
        os = ["#N/A", "#N/A"] if n == 3 else [event, days]
        sheet.append(
            [n, case, kind, int(ages[n]), gender, f"Stage I{'I' * (n % 3)}A", status, *os, event, days, 0, days]
        )
    more = book.create_sheet("ExtraEndpoints")
    more.append([None, "bcr_patient_barcode", "type", "PFI.1", "PFI.time.1"])
    more.append([0, "TCGA-OR-0000", "ACC", 0, 10])
    book.save(path)


@pytest.fixture(scope="module")
def download(tmp_path_factory) -> Path:
    """gdc/<uuid>/<barcode>.<UUID>.svs with logs and an unfinished file, the manifest, and the workbook."""
    folder = tmp_path_factory.mktemp("tcga")
    make = [sys.executable, SHARED / "tools/make_lung_cohort.py", "--tiles", SHARED / "data/lc25000_lung"]
    subprocess.run([*make, "--out", folder / "made", "--patients", str(PATIENTS), "--grid", "4"], check=True)
    manifest, patients = ["id\tfilename\tmd5\tsize\tstate"], {}
    with (folder / "made/dataset.csv").open() as file:
        for row in csv.DictReader(file):
            number = int(row["case_id"][-4:])
            case = f"TCGA-{10 + number % 12}-{4000 + number}"
            source = folder / "made/slides" / row["slide_id"]
            name = uuid.uuid5(uuid.NAMESPACE_URL, row["slide_id"])
            home = folder / "gdc" / str(name)
            (home / "logs").mkdir(parents=True)
            (home / "logs" / f"{case}.svs.parcel").write_text("log")
            slide = home / f"{case}{row['slide_id'].removeprefix(row['case_id']).removesuffix('.svs')}.{name}.svs"
            source.rename(slide)
            md5 = hashlib.md5(slide.read_bytes(), usedforsecurity=False).hexdigest()
            manifest.append(f"{name}\t{slide.name}\t{md5}\t{slide.stat().st_size}\treleased")
            days, event = float(row["survival_months"]) * 30.44, 1 - int(row["censorship"])
            patients[case] = (case, row["oncotree_code"], round(days), event)
    (folder / "gdc" / str(name) / "other.svs.partial").write_bytes(b"half")
    (folder / "gdc_manifest.txt").write_text("\n".join(manifest) + "\n")
    (folder / "configs").symlink_to(ROOT / "configs")
    write_cdr(folder / CDR, list(patients.values()))
    return folder


def test_the_commands_lead_from_a_download_to_two_numbers(download):
    for verb, *arguments in commands():
        run = [sys.executable, "-m", "longvit", verb, *arguments, *shlex.split(SMALL.get(verb, ""))]
        done = subprocess.run(run, cwd=download, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join([verb, *arguments])}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        if verb == "finetune":
            assert "is read as TCGA-CDR: columns" in done.stderr
    survival, subtype = (
        json.loads((download / "runs" / n / "metrics.json").read_text()) for n in ("survival", "subtype")
    )
    print({name: each["pooled"][each["headline"]] for name, each in (("survival", survival), ("subtype", subtype))})
    assert survival["time_unit"] == "days"
    assert 0 <= survival["pooled"]["c_index"]["value"] <= 1
    assert 0 <= subtype["pooled"][subtype["headline"]]["value"] <= 1
    flow = dict(json.loads((download / "runs/survival/audit.json").read_text())["flow"])
    assert flow["in the table"] == 11_000 + PATIENTS
    assert (flow["with a slide"], flow["with a known target"], flow["in the splits"]) == (PATIENTS, *[PATIENTS - 1] * 2)
    report = (download / "runs/survival/report.md").read_text()
    assert "| with a known target | 23 | 1 |" in report
    assert "TCGA-13-4003" in report


def test_every_config_that_the_readme_names_exists():
    named = set(re.findall(r"configs/tcga/\w+\.yaml", README.read_text()))
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).is_file()] == []
