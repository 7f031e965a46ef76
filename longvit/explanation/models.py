"""Models to explain: all folds of a run, whose numbers and maps are averaged, or the model of one fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import Tensor

from longvit.encoding.results import fingerprint
from longvit.formats.membership_csv import FOLD, MEMBERSHIP, Membership, read_membership
from longvit.model.outputs import RiskScale
from longvit.model.predictor import SlideModel, load_model
from longvit.prediction.ensemble import Ensemble, ensemble_row, fold_files, load_ensemble, read_settings
from preprocessing.errors import ConfigError, PipelineError

_MODEL = "model.safetensors"


@dataclass(frozen=True)
class ExplainedModels:
    """Models whose mean output is explained."""

    models: tuple[SlideModel, ...]
    """Models in evaluation mode, one per fold."""
    files: Mapping[str, Path]
    """All files that decide a prediction, by their role."""
    folds: tuple[int, ...] = ()
    """Number of each model's fold; empty for a model that is not in the folder of a run."""
    ensemble: bool = False
    """True if predictions are those of `longvit predict`, False for the output of a single model."""
    scales: tuple[RiskScale, ...] = ()
    """Scale of the risks of each survival model of an ensemble."""
    fusion: Literal["late", "early"] = "late"
    """Combination of a patient's slides, as in the settings of the run."""
    membership: Membership | None = None
    """Patients that each model was trained or selected on, if known."""
    failed: Mapping[str, PipelineError] = field(default_factory=dict)
    """Error of each fold whose model cannot be read."""

    @property
    def first(self) -> SlideModel:
        """Model of the first fold; task, classes and input of all models are alike."""
        return self.models[0]

    @cached_property
    def shares_encoder(self) -> bool:
        """True if all models have the same encoder: it was frozen, or there is a single model."""
        return len(self.models) == 1 or len({fingerprint(one.required_encoder) for one in self.models}) == 1

    def prediction(self, outputs_O: Sequence[Tensor]) -> dict[str, float]:
        """Return `p_<class>` of each class, or `risk`, from the output of each model."""
        rows = [self.first.task.predictions(one_O, self.first.classes) for one_O in outputs_O]
        row = ensemble_row(rows, self.scales) if self.ensemble else rows[0]
        return {name: row[name] for name in rows[0]}

    def unit(self, place: int) -> float:
        """Return the factor from one model's output to the unit of the prediction, in which risks have deviation 1."""
        return self.scales[place].unit if self.scales else 1.0


def load_models(path: Path, fold: int | None = None) -> ExplainedModels:
    """Read the models of a finished run, or of one of its folds, on the CPU.

    Args:
        path: Folder of the run, folder of a fold, or a fold's `model.safetensors`.
        fold: Number of the fold, if `path` is the folder of a run; default: all folds.

    Raises:
        CheckpointError: The models cannot be read, or the run is not finished.
        ConfigError: The run does not have the fold, or `path` is already one fold's.
    """
    if not path.is_dir() or (path / _MODEL).is_file():
        if fold is not None:
            fix = f"leave fold out, or give the folder of the run and fold: {fold}"
            raise ConfigError("this is the model of one fold, so no fold can be chosen", where=path, fix=fix)
        return _of_fold(path / _MODEL if path.is_dir() else path)
    if fold is None:
        return _of_run(load_ensemble(path))
    files = fold_files(path)
    if files and fold not in files:
        what = f"the run has no model of fold {fold}"
        raise ConfigError(what, where=path, fix=f"choose from the folds {', '.join(map(str, files))}")
    return _of_fold(files[fold]) if files else _of_run(load_ensemble(path))  # which refuses a folder without folds


def _of_run(run: Ensemble) -> ExplainedModels:
    return ExplainedModels(
        models=tuple(run.models.values()),
        files=run.files,
        folds=tuple(run.models),
        ensemble=True,
        scales=tuple(run.scales),
        fusion=run.settings.fusion,
        membership=run.membership,
        failed=run.failed,
    )


def _of_fold(file: Path) -> ExplainedModels:
    """Return one model, with the fusion and the patients of its run if the file is in the folder of a run."""
    models, files, run = (load_model(file),), {"model": file}, file.absolute().parent.parent
    number = FOLD.fullmatch(file.absolute().parent.name)
    if number is None or not (run / "config.yaml").is_file():
        return ExplainedModels(models, files)
    membership = read_membership(run) if (run / MEMBERSHIP).is_file() else None
    return ExplainedModels(models, files, (int(number[1]),), fusion=read_settings(run).fusion, membership=membership)


def require_one_model(models: ExplainedModels, path: Path) -> None:
    """Refuse several models, whose faithfulness cannot be measured: a measure follows the output of one model.

    Raises:
        ConfigError: The models are an ensemble.
    """
    if models.ensemble:
        what = "faithfulness follows the output of one model, and these are the models of all folds"
        raise ConfigError(what, where=path, fix=f"choose a fold: fold: {models.folds[0]}")
