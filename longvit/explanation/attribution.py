"""What each token gives to a prediction."""

import torch
from jaxtyping import Float
from torch import Tensor

from longvit.finetuning.model import SlideModel
from longvit.tokens.batch import TokenBatch


@torch.inference_mode()
def token_contributions(model: SlideModel, batch: TokenBatch, output: int) -> Float[Tensor, " L"]:
    """Each token's share of one output of a slide: gradient times token, at the encoder's output.

    The head is linear in the mean of the tokens, so the shares are exact: with the head's bias they add up to the
    output (completeness, Sundararajan et al. 2017), and the gradient is the weight itself.

    Args:
        model: The model.
        batch: One slide.
        output: Index of the class, or 0 for the log hazard.
    """
    tokens_LD = model.encoder(batch)[0][batch.mask_BL[0]]
    head = model.head
    return (tokens_LD - head.mean) / head.std @ head.linear.weight[output] / len(tokens_LD)
