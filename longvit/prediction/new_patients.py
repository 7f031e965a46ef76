"""Patients of new slides, by a table or by TCGA barcodes, and the sequences in which models read their slides."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from longvit.cohort.tables import barcodes, read_table
from longvit.formats.csv_rows import JOINED
from longvit.formats.membership_csv import MEMBERSHIP, Membership
from longvit.formats.predictions_csv import ENSEMBLE, sequence_columns
from longvit.tokens.sequences import sequences
from preprocessing.errors import CohortError, few
from preprocessing.store.piece import all_pieces, with_pieces
from preprocessing.store.store import PatchStore, find_stores


class SlideSequence(NamedTuple):
    """Slides that the models read together, their patient, and the folds that trained or selected on the patient."""

    patient: str
    slides: tuple[str, ...]
    seen_by: tuple[int, ...]

    def columns(self) -> dict[str, str]:
        """Return the first columns of the sequence's row."""
        split, seen_by = "train" if self.seen_by else "test", JOINED.join(map(str, self.seen_by))
        names = sequence_columns(self.patient, self.slides)
        return names | {"fold": ENSEMBLE, "split": split, "seen_by": seen_by}


def slide_sequences(
    patients: Mapping[str, Sequence[str]], fusion: Literal["late", "early"], seen: Mapping[str, tuple[int, ...]]
) -> dict[str, SlideSequence]:
    """Return the sequences of all patients by name, which is the ids of the slides joined by `;`."""
    return {
        JOINED.join(slides): SlideSequence(case, slides, seen[case])
        for case, of_patient in patients.items()
        for slides in sequences(of_patient, fusion)
    }


def find_stores_of_patients(
    folder: Path, table: Path | None, known: Mapping[str, str] | None = None, *, pieces: bool = False
) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Return the stores, each divided into the pieces that the table names, and the slides of each patient.

    Args:
        folder: Folder of stores.
        table: Table with the patient of each slide; None to find patients among the known slides and by TCGA barcodes.
        known: Patients of slides that a run has recorded.
        pieces: Whether all stores are divided into all their pieces.

    Raises:
        StoreError: There are no stores.
        CohortError: The table cannot be read, or lacks the slide of a store.
    """
    stores = find_stores(folder)
    if pieces:
        stores = all_pieces(stores)
    elif table is not None:
        stores = with_pieces(stores, read_table(table)["slide_id"])
    return stores, group_slides_by_patient(stores, table, known or {})


def group_slides_by_patient(
    stores: Mapping[str, Path], table: Path | None, known: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the slides of each patient; without a table, an unknown slide without barcode is a patient of its own.

    Raises:
        CohortError: The table cannot be read, or lacks the slide of a store.
    """
    if table is None:
        patient_of = {slide: slide for slide in stores} | barcodes(stores) | dict(known)
    else:
        rows = read_table(table)
        patient_of = dict(zip(rows["slide_id"], rows["case_id"], strict=True))
        strangers = sorted(set(stores) - set(patient_of))
        if strangers:
            what = f"{len(strangers)} of {len(stores)} stores have no patient in the table: {few(strangers)}"
            raise CohortError(what, where=table, fix="add a row for each slide, or move the stores elsewhere")
    patients: dict[str, list[str]] = {}
    for slide in stores:
        patients.setdefault(patient_of[slide], []).append(slide)
    return patients


def folds_that_saw(
    membership: Membership, opened: Mapping[str, PatchStore], patients: Mapping[str, Sequence[str]]
) -> dict[str, tuple[int, ...]]:
    """Return the folds whose model was trained or selected on each patient: on the patient, a slide, or its file."""
    pairs = [(case, slide) for case, slides in patients.items() for slide in slides if slide in opened]
    hashes = [opened[slide].source.sha256 for _, slide in pairs]
    known = membership.seen([slide for _, slide in pairs], [case for case, _ in pairs], hashes)
    seen: dict[str, set[int]] = {case: set() for case in patients}
    for (case, _), folds in zip(pairs, known, strict=True):
        seen[case] |= set(folds)
    return {case: tuple(sorted(folds)) for case, folds in seen.items()}


def describe_patients(
    patients: Mapping[str, Sequence[str]],
    table: Path | None,
    fusion: Literal["late", "early"],
    known: Collection[str] = (),
) -> str:
    """Return a sentence with the number of patients, the rule that finds them, and the slides that are read together.

    >>> describe_patients({"TCGA-05-4244": ["TCGA-05-4244-01Z-00-DX1", "TCGA-05-4244-01Z-00-DX2"]}, None, "late")
    '1 patient with 2 slides, by TCGA barcodes; each slide is read by itself'
    """
    slides = [slide for of_patient in patients.values() for slide in of_patient]
    others = [slide for slide in slides if slide not in known]
    alone = len(others) - len(barcodes(others))
    rules = [f"by {MEMBERSHIP} of the run"] * (len(others) < len(slides)) + ["by TCGA barcodes"] * (alone < len(others))
    if table is not None:
        rule = f"by {table.name}"
    elif rules:
        rule = " and ".join(rules) + (f" ({_counted(alone, 'slide')} without, each a patient)" if alone else "")
    else:
        rule = "each slide a patient (no table, and no TCGA barcodes)"
    read = "each slide is read by itself" if fusion == "late" else "a patient's slides are read as one sequence"
    return f"{_counted(len(patients), 'patient')} with {_counted(len(slides), 'slide')}, {rule}; {read}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
