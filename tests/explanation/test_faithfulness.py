import numpy as np
import pytest
import torch

from longvit.explanation import token_contributions
from longvit.explanation.attribution import occlusion, squares
from longvit.explanation.faithfulness import Curves, auroc, curves
from longvit.explanation.model_output import ModelOutput
from longvit.tokens.read import slide_tokens


@pytest.fixture
def asked(subtype_model, store, tokens):
    rc = slide_tokens(store, subtype_model.encoder.config.input).rc_BL2[0]
    return ModelOutput(subtype_model, 0), tokens, squares(rc, 2)


@torch.no_grad()
def test_deletion_goes_from_the_slide_to_nothing_and_insertion_back(asked):
    explained, tokens, square = asked
    found = curves(explained, tokens, square, torch.rand(len(tokens)), steps=4)
    whole, nothing = float(explained(tokens)), float(explained.of_slide(explained.model.head.mean))
    np.testing.assert_allclose(found.share, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found.deletion[[0, -1]], [whole, nothing], rtol=1e-5)
    np.testing.assert_allclose(found.insertion[[0, -1]], [nothing, whole], rtol=1e-5)


@torch.no_grad()
def test_the_squares_of_the_highest_mean_score_go_first(asked):
    explained, tokens, square = asked
    scores = torch.where(square == 5, 1.0, torch.where(square == 2, 0.5, 0.0))
    found = curves(explained, tokens, square, scores, steps=16)
    gone = (square == 5) | (square == 2)
    assert found.deletion[2] == pytest.approx(float(explained(tokens[~gone])), rel=1e-5)
    assert found.insertion[1] == pytest.approx(float(explained(tokens[square == 5])), rel=1e-5)


def test_faithful_maps_have_smaller_areas_under_deletion_than_their_opposites(asked, store):
    explained, tokens, square = asked
    rc = slide_tokens(store, explained.model.encoder.config.input).rc_BL2[0]
    for scores in (token_contributions(explained, tokens), occlusion(explained, tokens, rc, side=2)):
        right, wrong = (curves(explained, tokens, square, sign * scores).areas for sign in (1, -1))
        assert right[0] < wrong[0]
        assert right[1] > wrong[1]


def test_areas_are_those_of_trapezia():
    found = Curves(np.array([0, 0.5, 1]), np.array([2.0, 1.0, 0.0]), np.array([0.0, 2.0, 2.0]))
    assert found.areas == (1.0, 1.5)


def test_a_map_of_the_truth_itself_has_an_auroc_of_1():
    truth = np.array([0.0, 0.2, 0.7, 1.0])
    assert auroc(truth, truth) == 1
    assert auroc(-truth, truth) == 0
    assert np.isnan(auroc(truth, np.ones(4)))
