import pytest
import torch
from torch.testing import assert_close

from longvit.explanation import token_contributions
from longvit.tokens import TokenBatch
from longvit.tokens.read import slide_tokens


@pytest.fixture
def batch(store, tiny_encoder) -> TokenBatch:
    return slide_tokens(store, tiny_encoder.input)


@pytest.mark.parametrize("output", [0, 1])
def test_contributions_and_bias_add_up_to_the_logit(subtype_model, batch, output):
    shares = token_contributions(subtype_model, batch, output)
    with torch.no_grad():
        logit = subtype_model(batch)[0, output]
    assert len(shares) == 4 * 16
    assert_close(shares.sum() + subtype_model.head.linear.bias[output], logit, atol=1e-5, rtol=0)


def test_contributions_add_up_to_the_log_hazard(survival_model, batch):
    shares = token_contributions(survival_model, batch, 0)
    with torch.no_grad():
        assert_close(shares.sum() + survival_model.head.linear.bias[0], survival_model(batch)[0, 0], atol=1e-5, rtol=0)


def test_a_contribution_is_gradient_times_token_against_the_mean_slide(subtype_model, batch):
    with torch.no_grad():
        tokens = subtype_model.encoder(batch)[0]
    tokens.requires_grad_()
    (gradient,) = torch.autograd.grad(subtype_model.head(tokens.mean(dim=0, keepdim=True))[0, 1], tokens)
    expected = (gradient * (tokens - subtype_model.head.mean)).sum(dim=1).detach()
    assert_close(token_contributions(subtype_model, batch, 1), expected)


def test_padding_has_no_share(subtype_model, batch):
    longer = TokenBatch(batch.x.repeat(1, 2, 1), batch.rc_BL2.repeat(1, 2, 1), batch.mask_BL.repeat(1, 2))
    padded = TokenBatch.collate([batch, longer])
    first = TokenBatch(padded.x[:1], padded.rc_BL2[:1], padded.mask_BL[:1])
    assert_close(token_contributions(subtype_model, first, 0), token_contributions(subtype_model, batch, 0))
