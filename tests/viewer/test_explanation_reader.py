import json
import os

import numpy as np
import pytest

from longvit.viewer import explanation_reader as explained
from longvit.viewer.explanation_reader import ShownExplanation, find_explanations
from preprocessing.errors import CohortError


def test_what_explain_wrote_is_read_as_it_was(planted):
    found = find_explanations(planted.explanations)["P00-0"]
    assert [layer.key for layer in found.layers] == ["received", "received_layer_01", "contribution"]
    assert found.side_l0 == (32, 32)
    assert (found.rc // 4 == np.repeat(planted.store.rc, 16, axis=0)).all()
    assert found.scores("received").sum() == 16
    assert found.scores("received").dtype == np.float32


def test_a_folder_that_is_an_explanation_itself_is_one(planted):
    assert set(find_explanations(planted.explanations / "P00-0")) == {"P00-0"}


def test_a_folder_without_explanations_is_refused(tmp_path):
    with pytest.raises(CohortError, match="there are no explanations here"):
        find_explanations(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "not JSON"), ("[1]", "not JSON"), ("{}", "layers"), ('{"layers": 3}', "layers")]
)
def test_a_document_that_is_not_ours_is_refused(tmp_path, text, said):
    (tmp_path / "explanation.json").write_text(text)
    with pytest.raises(CohortError, match=said):
        find_explanations(tmp_path)


def test_scores_that_lack_a_column_are_refused(planted, tmp_path):
    document = json.loads((planted.explanations / "P00-0" / "explanation.json").read_text())
    (tmp_path / "explanation.json").write_text(json.dumps(document))
    (tmp_path / "scores.csv").write_text("row,column,received\n0,0,1\n")
    with pytest.raises(CohortError, match="received_layer_01"):
        ShownExplanation.read(tmp_path).scores("received")


def of(planted, place, /, scores=None, **changes) -> ShownExplanation:
    """The planted explanation with changes, read from another folder."""
    document = json.loads((planted.explanations / "P00-0" / "explanation.json").read_text())
    (place / "explanation.json").write_text(json.dumps(document | changes))
    (place / "scores.csv").write_text(
        scores if scores is not None else (planted.explanations / "P00-0" / "scores.csv").read_text()
    )
    return ShownExplanation.read(place)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prediction": {"risk": float("nan")}}, "prediction.risk"),
        ({"prediction": {"risk": float("-inf")}}, "prediction.risk"),
        ({"prediction": {"risk": 10**400}}, "prediction.risk"),
        ({"prediction": {}}, "prediction"),
        ({"prediction": {str(i): 0.0 for i in range(2000)}}, "prediction"),
        ({"side_l0": [0, 32]}, "side_l0"),
        ({"side_l0": [float("inf"), 32]}, "side_l0"),
        ({"slide_id": "../../etc"}, "slide_id"),
        ({"slide_id": "a\x1b[31m"}, "slide_id"),
        ({"slide_id": "a" * 5000}, "slide_id"),
        ({"target": "a" * 5000}, "target"),
        ({"layers": []}, "layers"),
        ({"layers": [{"vmin": 1}]}, "layers.0.key"),
    ],
)
def test_values_that_cannot_be_shown_are_refused(planted, tmp_path, changes, said):
    with pytest.raises(CohortError, match=said):
        of(planted, tmp_path, **changes)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("colours", ["red", "#000000"], "colours"),
        ("colours", ["#000000"], "colours"),
        ("vmin", 1e9, "vmin is not below"),
    ],
)
def test_layers_that_cannot_be_drawn_are_refused(planted, tmp_path, name, value, said):
    layers = json.loads((planted.explanations / "P00-0" / "explanation.json").read_text())["layers"]
    with pytest.raises(CohortError, match=said):
        of(planted, tmp_path, layers=[layers[0] | {name: value}])


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, '"\\ud800"', "\0", "NaN", '{"a": 1e999}']
)
def test_hostile_json_is_refused(tmp_path, text):
    (tmp_path / "explanation.json").write_text(text)
    with pytest.raises(CohortError):
        find_explanations(tmp_path)


def test_a_file_too_large_to_be_ours_is_not_read(planted, tmp_path):
    found = of(planted, tmp_path)
    for name in ("explanation.json", "scores.csv"):
        os.truncate(tmp_path / name, 2_000_000_000)  # a hole, which takes no room
    with pytest.raises(CohortError, match="not a file of at most 4,000,000 bytes"):
        ShownExplanation.read(tmp_path)
    with pytest.raises(CohortError, match="not a file of at most 1,000,000,000 bytes"):
        _ = found.rc


def test_what_is_no_file_is_not_waited_for(planted, tmp_path):
    found = of(planted, tmp_path)
    for name in ("explanation.json", "scores.csv"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    with pytest.raises(CohortError):
        ShownExplanation.read(tmp_path)
    with pytest.raises(CohortError, match="not a file"):
        _ = found.rc


def test_a_document_cannot_lead_to_another_folder(planted, tmp_path):
    assert of(planted, tmp_path, folder="/etc").folder == tmp_path


HEAD = "row,column,received,received_layer_01,contribution\n"


@pytest.mark.parametrize(
    "rows",
    [
        *("", "0,0,nan,0,0", "0,0,inf,0,0", "0,0,1e300,0,0", "0,0,x,0,0", "0,0,,0,0", "nan,0,1,1,1", "0,1e12,1,1,1"),
        *("-1,0,1,1,1", "0.5,0,1,1,1", "0", '"', "\0", "0,0,1,1,1\n" * 9 + "0,0,1,1,\U0001f600"),
    ],
)
def test_scores_that_cannot_be_drawn_are_refused(planted, tmp_path, rows):
    found = of(planted, tmp_path, scores=HEAD + rows)
    with pytest.raises(CohortError):
        _ = found.rc


def test_more_tokens_than_a_slide_has_are_refused(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(explained, "MOST_TOKENS", 3)
    with pytest.raises(CohortError, match="1 to 3 tokens"):
        _ = of(planted, tmp_path).rc
