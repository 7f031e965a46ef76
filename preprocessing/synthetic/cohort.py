"""Synthetic cohort with known truth: pyramidal slides with planted subtype and hazard, and the tables of a TCGA study.

The subtype is the growth pattern of tumour cells (rings or streams), the hazard is the share of the tumour that is
high-grade. Colour is independent of both (see `preprocessing.synthetic.histology`). So a model that uses morphology can
predict both, and a model that uses brightness only predicts neither. Demo, tests and notebooks use this cohort.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, zip_longest
from pathlib import Path

import cv2
import numpy as np
import tifffile

from preprocessing.errors import CohortError
from preprocessing.synthetic.histology import HIGH_GRADE, LOW_GRADE, MPP, Growth, draw_slide

GROWTH: dict[str, Growth] = {"SYNA": "acinar", "SYNS": "spindle"}
"""Growth pattern of the tumour by subtype code."""
LOG_HAZARD_SLOPE = 9.0
"""Log hazard ratio of an all high-grade to an all low-grade tumour; the true hazard then has a c-index near 0.89."""
TRUTH_GREY = {LOW_GRADE: 128, HIGH_GRADE: 255}
"""Greys of the truth masks; other pixels are 0. A mask pixel is `LAYOUT_PX` (8) level-0 pixels wide, which is 4 um."""

_WEIBULL_SHAPE, _MEDIAN_MONTHS = 3.0, 36.0
_TWO_SLIDES = 0.2  # share of patients
_FOLLOW_UP_MONTHS = (24.0, 120.0)
_JPEG_QUALITY = 85
_TILE = (240, 240)


@dataclass(frozen=True)
class CohortPaths:
    """Paths of the parts of a cohort."""

    slides: Path
    """Folder of `<slide_id>.svs`."""
    dataset: Path
    """Clinical table: case_id, slide_id (with .svs), oncotree_code, survival_months, censorship (1: event not seen)."""
    splits: Path
    """Folder of `splits_<k>.csv`: columns train, val, test of slide ids without .svs; each patient is in one column."""
    truth: Path
    """Table of the planted values, never an input of models: case_id, high_grade, log_hazard."""
    truth_masks: Path
    """Folder of `<slide_id>.png`: `TRUTH_GREY` of each block of 8 x 8 level-0 pixels (4 x 4 um)."""


@dataclass(frozen=True)
class PlannedPatient:
    """Patient of the cohort: planted values, follow-up and slides."""

    case_id: str
    code: str
    high_grade: float
    log_hazard: float
    months: float
    event: bool
    slide_ids: tuple[str, ...]


def make_cohort(
    out: Path | str,
    *,
    patients: int = 40,
    folds: int = 5,
    seed: int = 0,
    side_l0: int = 2048,
    workers: int = 2,
    on_slide: Callable[[str], None] | None = None,
) -> CohortPaths:
    """Draw a cohort and write its slides and tables to `out`; `dataset.csv` is written last and marks it as complete.

    Equal arguments give equal bytes for any number of workers. Half of the patients have each subtype, one in five has
    two slides, and about 30 % are censored.

    Args:
        out: Output folder; slides of an equal cohort in it are overwritten.
        patients: Number of patients, at least two per fold.
        folds: Number of folds, at least three: test, validation, training.
        seed: Random seed; each seed gives another cohort.
        side_l0: Side of a slide, level-0 pixels of 0.5 um; a multiple of 32.
        workers: Number of threads; drawing and compression release Python's lock.
        on_slide: Function called with the id of each finished slide, in order.

    Raises:
        CohortError: There are too few patients or folds, or `out` contains slides of another cohort.
    """
    check_size(patients, folds)
    out = Path(out)
    cohort = CohortPaths(out / "slides", out / "dataset.csv", out / "splits", out / "truth.csv", out / "truth")
    of_tables, per_slide = np.random.SeedSequence(seed).spawn(2)
    rng = np.random.default_rng(of_tables)
    plan = plan_patients(rng, patients)
    jobs = [(patient, slide_id) for patient in plan for slide_id in patient.slide_ids]
    _refuse_strangers(cohort.slides, {slide_id for _, slide_id in jobs})
    for folder in (cohort.slides, cohort.splits, cohort.truth_masks):
        folder.mkdir(parents=True, exist_ok=True)
    grey = np.array([TRUTH_GREY.get(kind, 0) for kind in range(HIGH_GRADE + 1)], np.uint8)

    def draw(job: tuple[PlannedPatient, str], source: np.random.SeedSequence) -> str:
        patient, slide_id = job
        drawing = draw_slide(np.random.default_rng(source), side_l0, GROWTH[patient.code], patient.high_grade)
        save_svs(cohort.slides / f"{slide_id}.svs", drawing.image)
        cv2.imwrite(str(cohort.truth_masks / f"{slide_id}.png"), grey[drawing.layout])
        return slide_id

    with ThreadPoolExecutor(workers) as pool:
        for slide_id in pool.map(draw, jobs, per_slide.spawn(len(jobs))):
            if on_slide is not None:
                on_slide(slide_id)
    _write_truth(cohort.truth, plan)
    _write_splits(cohort.splits, plan, assign_folds(rng, [(p.code, p.event) for p in plan], folds), folds)
    _write_dataset(cohort.dataset, plan)
    return cohort


def assign_folds(rng: np.random.Generator, strata: Sequence[tuple[str, bool]], folds: int) -> np.ndarray:
    """Return the test fold of each patient, (n,) int64, stratified by (subtype, event).

    Patients are shuffled, sorted by stratum and assigned to the folds in turn. So the numbers of patients, of each
    subtype and of each (subtype, event) differ by at most one between folds.
    """
    shuffled = rng.permutation(len(strata))
    dealt = sorted(shuffled.tolist(), key=lambda patient: strata[patient])
    fold = np.empty(len(strata), np.int64)
    fold[dealt] = np.arange(len(strata)) % folds
    return fold


def save_svs(path: Path, image: np.ndarray, mpp: float = MPP) -> None:
    """Write an Aperio-style pyramid (levels 1 and 1/4, and a thumbnail), which OpenSlide reads as vendor `aperio`.

    Args:
        path: File to write, `.svs`.
        image: Level 0, (height, width, 3) uint8 RGB, each side at least 8 pixels.
        mpp: Micrometres per pixel of level 0, written to the image description.
    """
    height, width = image.shape[:2]
    thumbnail, low = (
        cv2.resize(image, (width // step, height // step), interpolation=cv2.INTER_AREA) for step in (8, 4)
    )
    size = f"Aperio Image Library\n{width}x{height}"
    about = f"Q={_JPEG_QUALITY}|AppMag = {round(10 / mpp)}|MPP = {mpp}"
    jpeg = {
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": _JPEG_QUALITY},
        "metadata": None,
        "maxworkers": 1,
    }
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, tile=_TILE, description=f"{size} [0,0 {width}x{height}] (240x240) JPEG/RGB {about}", **jpeg)
        tiff.write(thumbnail, rowsperstrip=16, description=f"{size} -> {width // 8}x{height // 8} - ", **jpeg)
        reduced = f"{size} [0,0 {width}x{height}] (240x240) -> {width // 4}x{height // 4} JPEG/RGB {about}"
        tiff.write(low, tile=_TILE, description=reduced, **jpeg)


def check_size(patients: int, folds: int = 5) -> None:
    """Check that a cohort has at least three folds, and two patients per fold.

    Raises:
        CohortError: There are too few patients or folds.
    """
    if folds < 3:
        raise CohortError(
            f"{folds} folds leave no fold for training", where="folds", fix="use 3 or more: test, validation, training"
        )
    if patients < 2 * folds:
        raise CohortError(
            f"{patients} patients are too few for {folds} folds with a patient of each subtype",
            where="patients",
            fix=f"use {2 * folds} or more",
        )


def _refuse_strangers(slides: Path, expected: set[str]) -> None:
    strangers = sorted(path.name for path in slides.glob("*.svs") if path.stem not in expected)
    if strangers:
        raise CohortError(
            f"the folder already contains {len(strangers)} slides of another cohort, such as {strangers[0]}",
            where=slides,
            fix="choose another folder, or delete this one",
        )


def plan_patients(rng: np.random.Generator, patients: int) -> list[PlannedPatient]:
    """Draw the planted values and the follow-up of each patient: Weibull times with independent uniform censoring."""
    codes = rng.permutation([code for code, _ in zip(cycle(GROWTH), range(patients))])
    high_grade = np.empty(patients)
    for code in GROWTH:  # evenly from 0 to 1 within each subtype, so that both are independent
        n = (codes == code).sum()
        high_grade[codes == code] = (rng.permutation(n) + rng.random(n)) / n
    log_hazard = LOG_HAZARD_SLOPE * (high_grade - 0.5)
    months = _MEDIAN_MONTHS * (rng.exponential(size=patients) / np.log(2) / np.exp(log_hazard)) ** (1 / _WEIBULL_SHAPE)
    followed = rng.uniform(*_FOLLOW_UP_MONTHS, patients)
    slides = 1 + (rng.permutation(patients) < round(_TWO_SLIDES * patients))
    return [
        PlannedPatient(
            case_id=f"SYN-{i:04d}",
            code=str(codes[i]),
            high_grade=float(high_grade[i]),
            log_hazard=float(log_hazard[i]),
            months=float(min(months[i], followed[i])),
            event=bool(months[i] <= followed[i]),
            slide_ids=tuple(f"SYN-{i:04d}-01Z-00-DX{k + 1}" for k in range(slides[i])),
        )
        for i in range(patients)
    ]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _write_truth(path: Path, plan: list[PlannedPatient]) -> None:
    rows = [(p.case_id, round(p.high_grade, 4), round(p.log_hazard, 4)) for p in plan]
    _write_csv(path, ("case_id", "high_grade", "log_hazard"), rows)


def _write_dataset(path: Path, plan: list[PlannedPatient]) -> None:
    header = ("case_id", "slide_id", "oncotree_code", "survival_months", "censorship")
    rows = [
        (p.case_id, f"{slide_id}.svs", p.code, round(p.months, 2), int(not p.event))
        for p in plan
        for slide_id in p.slide_ids
    ]
    _write_csv(path, header, rows)


def _write_splits(folder: Path, plan: list[PlannedPatient], fold: np.ndarray, folds: int) -> None:
    """Write the split of each fold: fold k is test, fold k + 1 validation, and all other folds are training."""
    for k in range(folds):
        parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for patient, at in zip(plan, (fold - k) % folds, strict=True):
            parts["test" if at == 0 else "val" if at == 1 else "train"].extend(patient.slide_ids)
        rows = enumerate(zip_longest(*parts.values(), fillvalue=""))
        _write_csv(folder / f"splits_{k}.csv", ("", *parts), [(i, *row) for i, row in rows])
