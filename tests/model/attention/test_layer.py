"""Every case here was computed by the official code: see tests/golden/PROVENANCE.md."""

import pytest
import torch
from torch.testing import assert_close

from longvit.config import EncoderConfig
from longvit.model.attention.layer import DilatedSelfAttention
from longvit.model.attention.plan import AttentionPlan

DIVIDES = ["dil_clean", "dil_hd24", "dil_ratio1", "dil_longvit1024", "dil_heads_not_div", "dil_heads_lt_ratio"]
RAGGED = ["dil_N_not_multiple", "dil_N_short", "dil_ratio1_ragged"]
AGREES = [*DIVIDES, *RAGGED, "dil_no_ratio1"]
WITH_GRADIENTS = ["dil_clean", "dil_heads_not_div", "dil_N_not_multiple", "dil_N_short"]
DISAGREES = {
    "dil_seg_not_div_ratio": "official: a segment filled up to a multiple of its ratio is not cropped",
    "dil_lse_zero_hack": "official: a branch whose logsumexp is exactly 0 is dropped",
}


def ours(case, padding: str = "zero_keys") -> tuple[DilatedSelfAttention, AttentionPlan]:
    config = EncoderConfig(
        width=case.config["heads"] * case.config["head_dim"],
        heads=case.config["heads"],
        segment_lengths=case.config["segment_length"],
        dilation_ratios=case.config["dilated_ratio"],
        padding=padding,
    )
    attention = DilatedSelfAttention(config)
    attention.load_state_dict(case.weights)
    return attention, AttentionPlan.of(config, (case["x"].shape[1],) * len(case["x"]))


@pytest.mark.parametrize("name", AGREES)
def test_matches_official_longnet(golden, name):
    case, heads_out = golden(name), []
    attention, plan = ours(case)
    attention.inner_attn_ln.register_forward_pre_hook(lambda _, inputs: heads_out.extend(inputs))
    assert_close(attention(case["x"], plan), case["out"], rtol=1e-5, atol=1e-5)
    assert_close(heads_out[0], case["attn_pre_ln"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DIVIDES)
def test_masked_padding_matches_too_where_everything_divides(golden, name):
    case = golden(name)
    attention, plan = ours(case, "masked")
    assert_close(attention(case["x"], plan), case["out"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RAGGED)
def test_masked_padding_differs_where_official_phantom_keys_take_softmax_mass(golden, name):
    case = golden(name)
    attention, plan = ours(case, "masked")
    assert not torch.allclose(attention(case["x"], plan), case["out"], atol=1e-2)


@pytest.mark.parametrize("name", DISAGREES, ids=lambda name: f"{name} ({DISAGREES[name]})")
def test_differs_from_official_longnet_where_that_is_a_bug(golden, name):
    case = golden(name)
    attention, plan = ours(case)
    assert not torch.allclose(attention(case["x"], plan), case["out"], atol=1e-2)


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_gradients_are_the_true_ones_and_not_the_official_ones(golden, name):
    case = golden(name)
    (attention, plan), x = ours(case), case["x"].clone().requires_grad_()
    attention(x, plan).backward(case["grad_out"])
    assert_close(x.grad, case["grad_x.true"], rtol=1e-4, atol=1e-4)
    for weight, parameter in attention.named_parameters():
        assert_close(parameter.grad, case[f"grad_w.true.{weight}"], rtol=1e-4, atol=1e-4)
    assert (x.grad - case["grad_x.official"]).norm() > 0.1 * x.grad.norm()


def test_the_golden_corpus_is_complete(golden_names):
    models = {"longvit_tiny", "longvit_tiny_default_segments", "longvit_classifier_tiny"}
    models |= {"gigapath_tiny", "gigapath_tiny_optimal_segments"}
    models |= {"gigapath_tiny", "gigapath_tiny_optimal_segments"}
    assert golden_names == {*AGREES, *DISAGREES, *models}
