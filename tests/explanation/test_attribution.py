import pytest
import torch
from torch.testing import assert_close

from longvit.config import ExecutionConfig
from longvit.explanation import token_contributions
from longvit.explanation.attribution import gradient_times_input, integrated_gradients, occlusion, squares
from longvit.explanation.model_output import ModelOutput
from longvit.tokens.read import slide_tokens

EVERY = ["subtype", "survival", "nll", "attention", "normed", "class"]
SHARED = [name for name in EVERY if name != "class"]


@pytest.mark.parametrize("name", EVERY)
def test_what_is_explained_is_what_the_model_predicts(models, store, tokens, name):
    model = models[name]
    with torch.no_grad():
        outputs = model(slide_tokens(store, model.encoder.config.input))[0]
        values = [ModelOutput(model, output)(tokens) for output in range(len(model.classes) or 1)]
    if name == "nll":  # minus the sum of the survival after each bin
        outputs = -(1 - outputs.sigmoid()).cumprod(0).sum()[None]
    assert_close(torch.stack(values), outputs)


@pytest.mark.parametrize("name", SHARED)
def test_contributions_add_up_to_the_output_over_that_of_the_mean_slide(models, tokens, name):
    model = models[name]
    for output in range(len(model.classes) or 1):
        explained = ModelOutput(model, output)
        shares = token_contributions(explained, tokens)
        assert shares.shape == (4 * 16,)
        with torch.no_grad():
            expected = explained(tokens) - explained.of_slide(model.head.mean)
        assert_close(shares.sum(), expected, atol=1e-4, rtol=1e-5)


def test_a_contribution_is_gradient_times_token_against_the_mean_slide(subtype_model, tokens):
    head = subtype_model.head
    encoded = subtype_model.encoder.encode(tokens[None]).tokens_BLD[0].detach().requires_grad_()
    (gradient,) = torch.autograd.grad(head(encoded.mean(dim=0, keepdim=True))[0, 1], encoded)
    expected = (gradient * (encoded - head.mean)).sum(dim=1).detach()
    assert_close(token_contributions(ModelOutput(subtype_model, 1), tokens), expected)


@pytest.mark.parametrize("name", EVERY)
def test_integrated_gradients_add_up_to_the_output_over_that_of_average_tokens(models, tokens, name):
    explained = ModelOutput(models[name].requires_grad_(False), 0)
    scores = integrated_gradients(explained, tokens, steps=32)
    with torch.no_grad():
        expected = explained(tokens) - explained(tokens.mean(0).expand_as(tokens))
    assert_close(scores.sum(), expected, atol=2e-3 * float(expected.abs()) + 1e-4, rtol=0)


def test_gradient_times_input_is_the_slope_towards_the_average_token(subtype_model, tokens):
    model = subtype_model.double()
    explained, tokens = ModelOutput(model, 1), tokens.double()
    scores, step = gradient_times_input(explained, tokens), 1e-6
    for token in (0, 17, 63):
        moved = tokens.clone()
        moved[token] += step * (tokens.mean(0) - tokens[token])
        with torch.no_grad():
            assert_close((explained(tokens) - explained(moved)) / step, scores[token], atol=1e-6, rtol=1e-4)


def test_what_recomputes_in_the_backward_pass_gives_the_same_gradient(subtype_model, tokens):
    plain = gradient_times_input(ModelOutput(subtype_model, 0), tokens)
    subtype_model.requires_grad_(False).encoder.execution = ExecutionConfig(recompute="blocks")
    assert_close(gradient_times_input(ModelOutput(subtype_model, 0), tokens), plain)


@pytest.mark.parametrize("name", ["subtype", "attention", "class"])
def test_occlusion_is_what_the_output_loses_without_a_square(models, store, tokens, name):
    model = models[name]
    rc = slide_tokens(store, model.encoder.config.input).rc_BL2[0]
    explained = ModelOutput(model, 0)
    scores = occlusion(explained, tokens, rc, side=2)
    square = (rc // 2 == rc[20] // 2).all(1)
    assert square.sum() == 4
    with torch.no_grad():
        lost = explained(tokens) - explained(tokens[~square])
    assert_close(scores[square], lost.expand(4))
    assert len(scores.unique()) == 16


def test_squares_are_those_of_the_slides_grid():
    rc = torch.tensor([[0, 0], [1, 3], [4, 0], [5, 2], [3, 3], [0, 4]])
    assert squares(rc, 4).tolist() == [0, 0, 2, 2, 0, 1]
