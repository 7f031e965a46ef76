"""Verb `predict`: the models of a run on new slides, as one ensemble."""

from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from longvit.config import PredictConfig
from longvit.finetuning.data import sequences
from longvit.finetuning.ensemble import Ensemble, load_ensemble
from longvit.finetuning.representations import read_tokens
from longvit.runs import open_run
from longvit.tables import barcodes, few, read_table
from longvit.tokens.read import require_fit, require_one_scale
from longvit.training import pick_device, read_rows, write_rows
from preprocessing.errors import CohortError, StoreError
from preprocessing.store import find_stores, open_store

ENSEMBLE = "ensemble"
"""What the column `fold` says of a row that all folds' models made together."""


@dataclass(frozen=True)
class Predicted:
    """What a run of `predict` gives."""

    table: Path
    """`predictions.csv`; not there if nothing could be read."""
    failed: dict[str, StoreError]
    """Sequences that could not be read, and why."""


def run(config: PredictConfig) -> Predicted:
    """Predict every slide of a folder of stores; started again, only those that an earlier start could not read.

    Returns:
        `predictions.csv`, a row for each sequence that the models read (a slide, or with early fusion a patient):
        `patient_id`, `slide_id`, `fold` (`ensemble`), `split` (`test`, or `train` of who was known and accepted),
        `seen_by` (the folds that know the patient), then `p_<class>`, `sd_<class>` of each class or `risk`, `sd_risk`.

    Raises:
        CheckpointError: The run is not finished, or was made by another version.
        StoreError: There are no stores, or not such as the models were trained on.
        CohortError: The table lacks a slide, or the models were trained on some of the slides or patients.
        ConfigError: `out` holds another prediction.
    """
    ensemble = load_ensemble(config.run)
    stores = find_stores(config.stores)
    patients = read_patients(stores, config.table)
    seen = check_new(ensemble, stores, patients, config)
    result = config.out / "predictions.csv"
    open_run(config, "predict", result)
    rows: dict[str, dict] = {row["slide_id"]: row for row in read_rows(result)} if result.exists() else {}
    wanted = {";".join(s): (case, s) for case, of in patients.items() for s in sequences(of, ensemble.settings.fusion)}
    failed = {}
    for name in track([name for name in wanted if name not in rows], "predict"):
        case, slides = wanted[name]
        try:
            tokens = read_tokens(stores, ensemble.source, slides)
        except StoreError as error:
            failed[name] = error
            continue
        keys = {"patient_id": case, "slide_id": name, "fold": ENSEMBLE}
        keys |= {"split": "train" if seen[case] else "test", "seen_by": ";".join(map(str, seen[case]))}
        rows[name] = keys | ensemble.predict(tokens, pick_device(config.device))
    if rows:
        write_rows(result, [rows[name] for name in wanted if name in rows])
    return Predicted(result, failed)


def read_patients(stores: dict[str, Path], table: Path | None) -> dict[str, list[str]]:
    """Patient -> slides, in order; from the table, or by TCGA barcode, and else each slide a patient of its own.

    Raises:
        CohortError: The table cannot be read, or lacks a slide that has a store.
    """
    if table is None:
        patient_of = {slide: slide for slide in stores} | barcodes(stores)
    else:
        rows = read_table(table, ["case_id", "slide_id"])
        patient_of = dict(zip(rows["slide_id"], rows["case_id"], strict=True))
        strangers = sorted(set(stores) - set(patient_of))
        if strangers:
            what = f"{len(strangers)} of {len(stores)} stores are of no patient of the table: {few(strangers)}"
            raise CohortError(what, where=table, fix="add a row for each slide, or move the stores elsewhere")
    patients: dict[str, list[str]] = {}
    for slide in stores:
        patients.setdefault(patient_of[slide], []).append(slide)
    return patients


def check_new(
    ensemble: Ensemble, stores: dict[str, Path], patients: dict[str, list[str]], config: PredictConfig
) -> dict[str, tuple[int, ...]]:
    """Refuse stores that the models cannot read, and whom they know; patient -> folds whose model knows the patient.

    Raises:
        StoreError: A store has another scale than those the models were trained on, or lacks what they read.
        CohortError: Models were trained or selected on a patient, a slide, or a slide's file under another name.
    """
    require_one_scale(list(stores.values()))
    opened = {slide: open_store(path) for slide, path in stores.items()}
    ensemble.membership.require_scale(list(opened.values()))
    for store in opened.values():
        require_fit(store, ensemble.source)
    pairs = [(case, slide) for case, slides in patients.items() for slide in slides]
    hashes = [opened[slide].attributes["source"]["sha256"] for _, slide in pairs]
    known = ensemble.membership.seen([slide for _, slide in pairs], [case for case, _ in pairs], hashes)
    seen: dict[str, set[int]] = {case: set() for case in patients}
    for (case, _), folds in zip(pairs, known, strict=True):
        seen[case] |= set(folds)
    names = [case for case, folds in seen.items() if folds]
    if names and "seen" not in config.accept:
        raise CohortError(
            f"the models were trained or selected on {len(names)} of {len(patients)} patients: {few(names)}",
            where=ensemble.membership.path,
            fix="leave their stores out; predictions.csv of the run has them by the one model that did not know them; "
            "or --accept seen, which marks them as train",
        )
    return {case: tuple(sorted(folds)) for case, folds in seen.items()}
