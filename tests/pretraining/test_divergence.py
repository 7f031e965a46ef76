"""Law: training that diverges ends in a sentence, and no file holds numbers that are not finite."""

import pandas as pd
import pytest
import torch

from longvit.model import load_encoder
from longvit.pretraining.pretrain import run
from longvit.pretraining.statistics import feature_statistics
from longvit.training.loop import TrainingModule
from preprocessing.errors import ConfigError, TrainingError


def finite(path) -> bool:
    state = torch.load(path, weights_only=True)["state_dict"]
    return all(tensor.isfinite().all() for tensor in state.values())


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("rate", [1e4, 1e30])
def test_a_learning_rate_that_is_too_high_ends_in_a_sentence_or_in_a_finite_encoder(any_config, rate, precision):
    views = any_config.views.model_copy(update={"local_views": 0})
    optimiser = any_config.optimiser.model_copy(update={"learning_rate": rate, "clip_norm": None})
    config = any_config.model_copy(update={"views": views, "optimiser": optimiser, "precision": precision})
    error = None
    try:
        load_encoder(run(config))  # which takes finite weights alone
    except TrainingError as raised:
        error = raised
    if error:
        assert "became" in error.what
        assert error.where == f"optimiser.learning_rate {rate:g}"
        assert "lower optimiser.learning_rate" in error.fix
        assert not (config.out / "encoder.safetensors").exists()
    last = config.out / "checkpoints" / "last.ckpt"
    assert not last.exists() or finite(last)
    with pytest.raises(ConfigError, match=r"other settings \(optimiser\)") as error:
        run(config.model_copy(update={"optimiser": any_config.optimiser}))
    assert "--overwrite" in error.value.fix


def test_the_last_finite_epoch_stays_when_a_later_one_diverges(config, monkeypatch):
    step = TrainingModule.on_train_batch_start

    def poison(module: TrainingModule, batch: object, batch_idx: int) -> None:
        step(module, batch, batch_idx)
        if module.current_epoch == 1 and module.trainer.is_last_batch:
            next(module.parameters()).data.fill_(torch.inf)

    monkeypatch.setattr(TrainingModule, "on_train_batch_start", poison)
    with pytest.raises(TrainingError, match=r"became (nan|inf) in epoch 1"):
        run(config)
    last = config.out / "checkpoints" / "last.ckpt"
    assert finite(last)
    assert torch.load(last, weights_only=True)["epoch"] == 0
    assert pd.read_csv(config.out / "metrics.csv")["epoch"].tolist() == [0]


def test_features_that_are_not_finite_have_statistics_of_nan():
    assert all(value.isnan() for value in feature_statistics(torch.full((4, 3), torch.nan)).values())
