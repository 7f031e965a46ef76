import json
import os
from pathlib import Path

import numpy as np
import pytest

from longvit.formats import explanation_json
from longvit.formats.explanation_json import (
    ExplanationFile,
    ExplanationFolder,
    MapLayer,
    find_explanations,
    write_explanation,
)
from preprocessing.errors import CohortError

RC = np.array([[0, 0], [0, 3], [2, 1]])
SCORES = {
    "received": np.array([1.0, 0, 0]),
    "received_layer_01": np.array([0.0, 1, 1]),
    "contribution": np.array([1 / 3, -1e-9, -2]),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The folder of an explanation, as `longvit explain` writes it."""
    folder = tmp_path_factory.mktemp("explanations") / "P00-0"
    folder.mkdir()
    same = {"label": "Layer 1", "meaning": "Attention received.", "colours": ("#000000", "#ffffff")}
    layers = [
        MapLayer(key=key, method="received", layer=1 if "layer" in key else None, signed=False, vmin=-1, vmax=1, **same)
        for key in SCORES
    ]
    explanation = ExplanationFile(
        slide_id="P00-0",
        store="../../stores/P00-0.zarr",
        model="fold_0/model.safetensors",
        target="log hazard",
        prediction={"risk": 0.4},
        size_l0=(512, 640),
        side_l0=(32, 32),
        mpp=0.5,
        layers=layers,
    )
    places = {"x_l0": RC[:, 1] * 32.0, "y_l0": RC[:, 0] * 32.0, "row": RC[:, 0], "column": RC[:, 1]}
    write_explanation(folder, explanation, places, SCORES)
    return folder


def test_what_was_written_is_read_as_it_was(written):
    found = find_explanations(written.parent)["P00-0"]
    assert [layer.key for layer in found.layers] == ["received", "received_layer_01", "contribution"]
    assert [layer.layer for layer in found.layers] == [None, 1, None]
    assert (found.side_l0, found.size_l0, found.prediction) == ((32, 32), (512, 640), {"risk": 0.4})
    assert found.rc.tolist() == RC.tolist()
    for key, scores in SCORES.items():
        np.testing.assert_allclose(found.scores(key), scores, rtol=1e-6)
    assert found.scores("received").dtype == np.float32


def test_the_document_has_every_field_of_the_schema(written):
    document = json.loads((written / "explanation.json").read_text())
    assert set(document) == set(ExplanationFile.model_fields)
    assert [set(layer) for layer in document["layers"]] == [set(MapLayer.model_fields)] * 3


def test_a_folder_that_is_an_explanation_itself_is_one(written):
    assert set(find_explanations(written)) == {"P00-0"}


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


def test_scores_that_lack_a_column_are_refused(written, tmp_path):
    document = json.loads((written / "explanation.json").read_text())
    (tmp_path / "explanation.json").write_text(json.dumps(document))
    (tmp_path / "scores.csv").write_text("row,column,received\n0,0,1\n")
    with pytest.raises(CohortError, match="received_layer_01"):
        ExplanationFolder.read(tmp_path).scores("received")


def of(written, place, /, scores=None, **changes) -> ExplanationFolder:
    """The written explanation with changes, read from another folder."""
    document = json.loads((written / "explanation.json").read_text())
    (place / "explanation.json").write_text(json.dumps(document | changes))
    (place / "scores.csv").write_text(scores if scores is not None else (written / "scores.csv").read_text())
    return ExplanationFolder.read(place)


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
        ({"size_l0": [10**400, 1]}, "size_l0.0"),
        ({"size_l0": [512, -1]}, "size_l0.1"),
        ({"size_l0": [512]}, "size_l0.1"),
        ({"mpp": 0}, "mpp"),
        ({"mpp": "half"}, "mpp"),
        ({"prediction": {"x" * 3_000_000: "a"}}, "prediction.xxx"),
    ],
)
def test_values_that_cannot_be_shown_are_refused(written, tmp_path, changes, said):
    with pytest.raises(CohortError, match=said) as error:
        of(written, tmp_path, **changes)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("colours", ["red", "#000000"], "colours"),
        ("colours", ["#000000"], "colours"),
        ("vmin", 1e9, "vmin is not below"),
    ],
)
def test_layers_that_cannot_be_drawn_are_refused(written, tmp_path, name, value, said):
    layers = json.loads((written / "explanation.json").read_text())["layers"]
    with pytest.raises(CohortError, match=said):
        of(written, tmp_path, layers=[layers[0] | {name: value}])


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, '"\\ud800"', "\0", "NaN", '{"a": 1e999}']
)
def test_hostile_json_is_refused(tmp_path, text):
    (tmp_path / "explanation.json").write_text(text)
    with pytest.raises(CohortError):
        find_explanations(tmp_path)


def test_names_and_layers_that_appear_twice_are_refused(written, tmp_path):
    text = (written / "explanation.json").read_text().rstrip()
    (tmp_path / "explanation.json").write_text(text[:-1] + ', "target": "another"}')
    with pytest.raises(CohortError, match="a name appears twice"):
        ExplanationFolder.read(tmp_path)
    layers = json.loads(text)["layers"]
    with pytest.raises(CohortError, match="two layers have the same key"):
        of(written, tmp_path, layers=[layers[0], layers[0]])


def test_a_million_wrong_layers_are_refused_at_the_first(written, tmp_path):
    with pytest.raises(CohortError, match=r"layers\.0") as error:
        of(written, tmp_path, layers=[1] * 1_000_000)
    assert "layers.1" not in error.value.what


@pytest.mark.parametrize("size", [13_000_000, 900_000_000])
@pytest.mark.parametrize("end", ["", ",", '"', "1,2,3\n"])
def test_a_line_that_is_too_long_is_refused_before_it_is_parsed(written, tmp_path, size, end):
    found = of(written, tmp_path, scores=(written / "scores.csv").read_text() + end)
    os.truncate(tmp_path / "scores.csv", size)  # zeros, which take no room
    with pytest.raises(CohortError, match="a line has more than 4,194,304 bytes"):
        _ = found.rc


def test_a_file_too_large_to_be_ours_is_not_read(written, tmp_path):
    found = of(written, tmp_path)
    for name in ("explanation.json", "scores.csv"):
        os.truncate(tmp_path / name, 2_000_000_000)  # a hole, which takes no room
    with pytest.raises(CohortError, match="not a file of at most 4,000,000 bytes"):
        ExplanationFolder.read(tmp_path)
    with pytest.raises(CohortError, match="not a file of at most 1,000,000,000 bytes"):
        _ = found.rc


def test_what_is_no_file_is_not_waited_for(written, tmp_path):
    found = of(written, tmp_path)
    for name in ("explanation.json", "scores.csv"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    with pytest.raises(CohortError):
        ExplanationFolder.read(tmp_path)
    with pytest.raises(CohortError, match="not a file"):
        _ = found.rc


def test_a_document_cannot_lead_to_another_folder(written, tmp_path):
    assert of(written, tmp_path, folder="/etc").folder == tmp_path


HEAD = "row,column,received,received_layer_01,contribution\n"


@pytest.mark.parametrize(
    "rows",
    [
        *("", "0,0,nan,0,0", "0,0,inf,0,0", "0,0,1e300,0,0", "0,0,x,0,0", "0,0,,0,0", "nan,0,1,1,1", "0,1e12,1,1,1"),
        *("0,0,1,1,1,1", "0,0,1,1,1\n0,0,1,1,1,1", "9,0,0,1,1,1\n" * 3, "0,0,1,1,0x1", '0,0,1,1,"1"'),
        *("-1,0,1,1,1", "0.5,0,1,1,1", "0", '"', "\0", "0,0,1,1,1\n" * 9 + "0,0,1,1,\U0001f600"),
    ],
)
def test_scores_that_cannot_be_drawn_are_refused(written, tmp_path, rows):
    found = of(written, tmp_path, scores=HEAD + rows)
    with pytest.raises(CohortError):
        _ = found.rc


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("row,column,received,received_layer_01,contribution,received", "a column appears twice"),
        (
            "row,column,received,received_layer_01,contribution" + ",a" * 3000,
            "a column appears twice, or there are more",
        ),
        ("row,column,received,contribution", "it lacks the columns received_layer_01"),
        ('"row",column,received,received_layer_01,contribution', "it lacks the columns row"),
        ("", "it lacks the columns"),
    ],
)
def test_a_header_that_is_not_ours_is_refused(written, tmp_path, head, said):
    row = ",".join("0" * (head.count(",") + 1))
    with pytest.raises(CohortError, match=said) as error:
        _ = of(written, tmp_path, scores=f"{head}\n{row}\n").rc
    assert len(str(error.value)) < 1000


def test_other_columns_and_another_order_do_not_matter(written, tmp_path):
    text = "extra,received_layer_01,column,received,contribution,row\r\n9,1,2,3,4,5\r\n"
    found = of(written, tmp_path, scores="\ufeff" + text)
    assert (found.rc.tolist(), found.scores("received").tolist()) == ([[5, 2]], [3.0])


def test_more_tokens_than_a_slide_has_are_refused(written, tmp_path, monkeypatch):
    monkeypatch.setattr(explanation_json, "MAX_TOKENS", 2)
    with pytest.raises(CohortError, match="1 to 2 tokens"):
        _ = of(written, tmp_path).rc
