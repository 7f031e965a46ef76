import json

import numpy as np
import pytest

from longvit.explanation.viewer.explained import ShownExplanation, find_explanations
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
