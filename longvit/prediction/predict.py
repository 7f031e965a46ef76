"""Verb `predict`: predictions of a run's models, as one ensemble, on new slides."""

import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from rich.progress import track

from longvit.config import PredictConfig
from longvit.formats.csv_rows import JOINED
from longvit.formats.predictions_csv import (
    PREDICTIONS,
    read_prediction_rows,
    write_predictions,
)
from longvit.prediction.ensemble import Ensemble, load_ensemble
from longvit.prediction.new_patients import (
    SlideSequence,
    describe_patients,
    find_stores_of_patients,
    folds_that_saw,
    slide_sequences,
)
from longvit.runs.folder import Run, open_run, settings_of
from longvit.runs.input_hashes import read_inputs
from longvit.runs.outcome import Outcome
from longvit.tokens.read import StoreScale, open_stores, require_one_scale, require_scale
from longvit.tokens.sequences import read_tokens
from longvit.tokens.source import token_source
from longvit.training.loop import pick_device
from longvit.training.mesh import Mesh, open_mesh
from preprocessing.errors import CohortError, StoreError, few
from preprocessing.store.store import PatchStore

SAVE_SECONDS = 10.0
"""Seconds between two savings of the table, and so the most work that a killed run loses."""


def run(config: PredictConfig) -> Outcome:
    """Predict every slide of a folder of stores; a later start predicts only new slides and slides of changed stores.

    In a mesh, `data` ranks take turns with the sequences, and the first rank writes the table.

    Returns:
        `predictions.csv`, one row per sequence that the models read: a slide, or with early fusion a patient. Its
        columns are `patient_id`, `slide_id`, `fold` (`ensemble`) and `split` (`test`, or `train` for an accepted
        training patient). Then `seen_by` (folds that trained or selected on the patient) and `models` (folds whose
        models are averaged). Then `p_<class>` and `sd_<class>` of each class, or `risk` and `sd_risk`.

    Raises:
        CheckpointError: The run is not finished, or another version made it.
        StoreError: There are no stores, or the stores do not fit the models.
        CohortError: The table lacks a slide, or the models were trained on some of the slides or patients.
        ConfigError: `out` contains another prediction, the ranks of a mesh disagree, or a sequence has fewer tokens
            than ranks.
        RankError: Another process of the mesh has stopped.
    """
    with open_mesh(config.execution, config.device) as mesh:
        return _run(config, mesh)


def _run(config: PredictConfig, mesh: Mesh) -> Outcome:
    ensemble = load_ensemble(config.run)
    for model in ensemble.models.values():
        encoder = model.required_encoder
        encoder.execution, encoder.group = config.execution, mesh.sequence
    stores, patients = find_stores_of_patients(config.stores, config.table)
    opened, failed = open_stores(stores, ensemble.source)
    seen = check_new(ensemble, opened, patients, config)
    mesh.from_first(lambda: print(describe_patients(patients, config.table, ensemble.settings.fusion), file=sys.stderr))
    wanted = slide_sequences(patients, ensemble.settings.fusion, seen)
    unread = {name: next((failed[s] for s in one.slides if s in failed), None) for name, one in wanted.items()}
    failed = ensemble.failed | {name: error for name, error in unread.items() if error is not None}
    tokens = {slide: len(token_source(store, ensemble.source)) for slide, store in opened.items()}
    whole = {name: one.slides for name, one in wanted.items() if name not in failed}
    mesh.require_tokens({name: sum(tokens[slide] for slide in slides) for name, slides in whole.items()})
    models = JOINED.join(map(str, ensemble.models))
    inputs = read_inputs(ensemble.files, {slide: stores[slide] for slide in opened}, ensemble.source)
    mesh.require_same("settings, slides or models", (settings_of(config), inputs.stores, inputs.files, wanted))
    opening = open_run(config, "predict", inputs, config.out / PREDICTIONS, adds_slides=True)
    with mesh.entered_by_first(opening) as run:
        rows = mesh.from_first(lambda: _kept_rows(run, wanted))
        table = PredictionsWriter(run, rows, list(wanted), writes=mesh.first)
        todo = [name for name in wanted if name not in rows and name not in failed]
        if not todo and mesh.from_first(lambda: run.finished and table.is_current()):
            mesh.from_first(run.say_finished)
            return Outcome(run.result, failed)
        mesh.from_first(lambda: run.begin(table.slides()))
        at_once = mesh.data.size if mesh.data else 1
        try:
            for start in track(range(0, len(todo), at_once), "predict"):
                names = todo[start : start + at_once]
                for name, found in _predict(ensemble, stores, wanted, names, config, mesh).items():
                    if isinstance(found, StoreError):
                        failed[name] = found
                    else:
                        table.add(name, wanted[name].columns() | {"models": models} | found)
        finally:
            table.save()
    return Outcome(run.result, failed)


def _predict(
    ensemble: Ensemble,
    stores: Mapping[str, Path],
    wanted: Mapping[str, SlideSequence],
    names: list[str],
    config: PredictConfig,
    mesh: Mesh,
) -> dict[str, dict[str, float] | StoreError]:
    """Return prediction or error of a sequence per `data` rank, by the sequences' names, on all ranks."""
    found: dict[str, dict[str, float] | StoreError] = {}
    for name in names[mesh.data_part]:
        try:
            with mesh.sequence.together() if mesh.sequence else nullcontext():
                share = mesh.sequence.share if mesh.sequence else None
                tokens = read_tokens(stores, ensemble.source, wanted[name].slides, share)
        except StoreError as error:
            found[name] = error
        else:
            found[name] = ensemble.predict(tokens, pick_device(config.device))
    return {name: one for of_rank in mesh.of_all(found) for name, one in of_rank.items()}


class PredictionsWriter:
    """Growing `predictions.csv`: it is saved every few seconds at most, together with the record of its stores.

    Args:
        run: The run of `predict`.
        rows: Rows of an earlier start, by sequence.
        order: Names of all sequences, in the order of the file.
        writes: Whether this process writes the file.
    """

    def __init__(self, run: Run, rows: dict[str, dict], order: list[str], *, writes: bool = True) -> None:
        self.run, self.rows, self.order, self.writes, self._saved = run, rows, order, writes, time.monotonic()

    def is_current(self) -> bool:
        """Return whether the file has exactly these rows."""
        written = [row["slide_id"] for row in read_prediction_rows(self.run.result)]
        return written == [name for name in self.order if name in self.rows]

    def slides(self) -> set[str]:
        """Return the slides of all rows."""
        return {slide for name in self.rows for slide in name.split(JOINED)}

    def add(self, name: str, row: dict) -> None:
        """Add a row, and save the table if a saving is due."""
        self.rows[name] = row
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the rows, then the record of their stores; a row without a record would be predicted again."""
        if not self.writes:
            return
        if self.rows:
            write_predictions(self.run.result, [self.rows[name] for name in self.order if name in self.rows])
        self.run.record(self.slides())
        self._saved = time.monotonic()


def _kept_rows(run: Run, wanted: Mapping[str, SlideSequence]) -> dict[str, dict]:
    """Return rows of an earlier start that are still valid: their stores and patients are unchanged."""
    rows = {row["slide_id"]: row for row in read_prediction_rows(run.result)} if run.finished else {}
    return {
        name: row
        for name, row in rows.items()
        if name in wanted
        and not any(slide in run.changed or slide in run.unrecorded for slide in wanted[name].slides)
        and all(row.get(key) == value for key, value in wanted[name].columns().items())
    }


def check_new(
    ensemble: Ensemble, opened: Mapping[str, PatchStore], patients: dict[str, list[str]], config: PredictConfig
) -> dict[str, tuple[int, ...]]:
    """Refuse stores of another scale and patients of the models' training; return the folds that saw each patient.

    Raises:
        StoreError: A store has another scale than the models' training stores.
        CohortError: Models were trained or selected on a patient, a slide, or a slide's file under another name.
    """
    require_one_scale([store.path for store in opened.values()])
    one = ensemble.membership.members[0]
    require_scale(opened.values(), StoreScale(mpp=one.mpp, tile_px=one.tile_px), "this run")
    seen = folds_that_saw(ensemble.membership, opened, patients)
    names = [case for case, folds in seen.items() if folds]
    if names and "seen" not in config.accept:
        raise CohortError(
            f"the models were trained or selected on {len(names)} of {len(patients)} patients: {few(names)}",
            where=ensemble.membership.path,
            fix=f"leave their stores out, and use {PREDICTIONS} of the run, where models predict held-out patients; "
            "or pass --accept seen, which marks these patients as train",
        )
    return seen
