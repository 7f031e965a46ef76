"""Ensemble of a run's fold models: the mean of their predictions for a slide, and the deviation between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter

from longvit.config import FinetuneConfig, TokenInput
from longvit.config.yaml_files import load_yaml
from longvit.encoding.results import fingerprint
from longvit.formats.membership_csv import FOLD, Membership, read_membership
from longvit.formats.predictions_csv import PREDICTIONS
from longvit.model.outputs import SCALE_FILE, RiskScale
from longvit.model.predictor import SlideModel, load_model
from longvit.tokens.batch import TokenBatch
from preprocessing.errors import CheckpointError, PipelineError

_MAX_SCALE = 4096
"""Largest number of bytes that are read of a scale's file."""


@dataclass(frozen=True)
class Ensemble:
    """Models of a run, one per fold.

    Args:
        models: Model of each fold, by the fold's number, in evaluation mode.
        scales: Scale of the risks of each survival model; empty for subtypes.
        settings: Settings of the run.
        membership: Patients that each model was trained or selected on.
        files: All files of the run that decide a prediction, by their role.
        failed: Error of each fold whose model cannot be read.
    """

    models: dict[int, SlideModel]
    scales: list[RiskScale]
    settings: FinetuneConfig
    membership: Membership
    files: dict[str, Path]
    failed: dict[str, PipelineError]

    @property
    def source(self) -> TokenInput:
        """Input of the models' encoders."""
        return next(iter(self.models.values())).required_encoder.config.input

    @cached_property
    def shares_encoder(self) -> bool:
        """True if all models have the same encoder, as they do if the encoder was frozen."""
        return len({fingerprint(model.required_encoder) for model in self.models.values()}) == 1

    @torch.inference_mode()
    def predict(self, tokens: TokenBatch, device: torch.device) -> dict[str, float]:
        """Return the columns of one sequence, as in `ensemble_row`; a shared encoder runs once."""
        models = list(self.models.values())
        first, tokens = models[0].to(device), tokens.to(device)
        item = first.encode(tokens) if self.shares_encoder else tokens
        outputs = [model.to(device)(item)[0].float().cpu() for model in models]
        return ensemble_row([first.task.predictions(one_O, first.classes) for one_O in outputs], self.scales)


def load_ensemble(run: Path) -> Ensemble:
    """Read the models of a finished run; errors of models that cannot be read are in `failed`.

    Raises:
        CheckpointError: The folder is not a run, the run is not finished, or none of its models can be read.
    """
    files = fold_files(run)
    if not files or not (run / PREDICTIONS).is_file():
        what = "the run is not finished" if (run / "config.yaml").is_file() else "this is not the folder of a run"
        raise CheckpointError(what, where=run, fix="give the folder of a finished `longvit finetune`")
    settings = read_settings(run)
    models, scales, used, failed = {}, [], {}, {}
    for number, path in files.items():
        fold, scale = path.parent.name, path.with_name(SCALE_FILE)
        try:
            model = load_model(path)
            _require_alike(path, model, models)
            if not model.classes:
                scales.append(_read_scale(scale))
                used[f"{fold} scale"] = scale
        except CheckpointError as error:
            failed[fold] = error
        else:
            models[number], used[fold] = model, path
    if not models:
        raise next(iter(failed.values()))
    membership = read_membership(run)
    return Ensemble(models, scales, settings, membership, used | {"run": membership.path}, failed)


def fold_files(run: Path) -> dict[int, Path]:
    """Return the model's file of each fold of a run, by the fold's number."""
    found = {FOLD.fullmatch(path.parent.name): path for path in run.glob("fold_*/model.safetensors")}
    return dict(sorted((int(name[1]), path) for name, path in found.items() if name))


def read_settings(run: Path) -> FinetuneConfig:
    """Read the settings of a run.

    Raises:
        CheckpointError: The settings are not those of a run of this version.
    """
    try:
        return load_yaml(run / "config.yaml", FinetuneConfig)
    except PipelineError as error:
        fix = "train it again with this version"
        raise CheckpointError(f"the run's settings cannot be read: {error.what}", where=run, fix=fix) from error


def ensemble_row(outputs: Sequence[Mapping[str, float]], scales: Sequence[RiskScale]) -> dict[str, float]:
    """Return the mean prediction of all models for one slide, and the standard deviation between them.

    Probabilities are averaged. Risks of a Cox model have neither a zero nor a unit: they differ between folds by a
    constant, and by their spread. A plain mean would be dominated by the model with the widest spread. So each risk is
    first expressed in standard deviations from the mean of the model's own training patients. Training patients are
    used and not held-out patients, so that the model's scale does not depend on patients that it is tested on.

    Args:
        outputs: `p_<class>` of each class, or `risk`, from each model.
        scales: Scale of each survival model's risks; empty for subtypes.

    Returns:
        `p_<class>...` and `sd_<class>...`, or `risk` and `sd_risk`; the deviation is over the models (divisor n).
    """
    if "risk" in outputs[0]:
        risks = [scale.standardised(output["risk"]) for output, scale in zip(outputs, scales, strict=True)]
        return {"risk": float(np.mean(risks)), "sd_risk": float(np.std(risks))}
    values = {name: [output[name] for output in outputs] for name in outputs[0]}
    means = {name: float(np.mean(of_models)) for name, of_models in values.items()}
    return means | {f"sd_{name.removeprefix('p_')}": float(np.std(of_models)) for name, of_models in values.items()}


def _require_alike(path: Path, model: SlideModel, others: Mapping[int, SlideModel]) -> None:
    """Refuse a model whose task, classes or input differ from the models before it."""
    kinds = {(str(one.task), one.classes, str(one.encoder and one.encoder.config.input)) for one in others.values()}
    if model.encoder is None or kinds - {(str(model.task), model.classes, str(model.encoder.config.input))}:
        fix = "copy the fold's folder from the run again"
        raise CheckpointError("the model is not of this run: its task, classes or input differ", where=path, fix=fix)


def _read_scale(path: Path) -> RiskScale:
    try:
        with path.open("rb") as file:
            return TypeAdapter(RiskScale).validate_json(file.read(_MAX_SCALE))
    except (OSError, ValueError) as error:
        fix = f"train the fold again: delete its folder and the run's {PREDICTIONS}, and start the same command"
        raise CheckpointError("the scale of the fold's risks cannot be read", where=path, fix=fix) from error
