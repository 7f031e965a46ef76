import json

import pytest

from longvit.evaluation.compare import compared
from longvit.evaluation.folds import evaluate_folds
from longvit.evaluation.predictions import read_predictions
from longvit.formats.metrics_json import FoldMetrics, Metrics, ModelMetrics, metrics_text, read_metrics
from preprocessing.errors import CohortError


@pytest.fixture(params=["subtyping_csv", "survival_csv"])
def metrics(request) -> dict:
    """Numbers of a model, and of the same model as another one."""
    evaluated = evaluate_folds(read_predictions(request.getfixturevalue(request.param)))
    models = [entry | {"notes": ["the same"]} for entry in compared(evaluated, {"Other": evaluated})]
    return evaluated.metrics | {"models": models, "clinical": {"file": "clinical.csv", "sha256": "1"}}


def test_every_number_of_an_evaluation_is_in_the_schema(metrics):
    assert set(metrics) <= set(Metrics.model_fields)
    assert all(set(fold) <= set(FoldMetrics.model_fields) for fold in metrics["folds"])
    assert all(set(model) == set(ModelMetrics.model_fields) for model in metrics["models"])


def test_numbers_come_back(metrics, tmp_path):
    (tmp_path / "metrics.json").write_text(metrics_text(metrics))
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    found = read_metrics(tmp_path)
    assert found.pooled == metrics["pooled"]
    assert list(found.sources) == ["predictions", "predictions of Other", "clinical table"]


@pytest.mark.parametrize(
    ("key", "value"), [("pooled", {"auroc": {"value": float("nan")}}), ("folds", 3), ("name", None)]
)
def test_what_is_not_in_the_schema_is_not_written(metrics, key, value):
    with pytest.raises(ValueError, match=key):
        metrics_text(metrics | {key: value})


def test_there_may_be_no_metrics(tmp_path):
    assert read_metrics(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", "[" * 100_000, "\ud800", '{"source": 1e999}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "metrics.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CohortError):
        read_metrics(tmp_path)
