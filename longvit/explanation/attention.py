"""Where a LongNet looks: attention that tokens receive, and attention rollout, for any number of tokens."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from longvit.model.encoder import Block, LongViT
from longvit.model.transpose import idle_share, received_by_keys


@torch.no_grad()
def received_attention(
    encoder: LongViT, x_LD: Float[Tensor, "L D"], *, head: int | None = None, branch: int | None = None
) -> Float[Tensor, "N L"]:
    """Attention that each token of a slide receives from all tokens, in each of the N layers.

    A layer's values have a mean of 1 (with a class token, which is left out, about 1): a token with 2 is looked at
    twice as much as if all were looked at alike. Branches add up to the whole; heads are averaged.

    Args:
        encoder: In evaluation mode.
        x_LD: One slide as `encoder.embed` gives it, without padding.
        head: One head instead of their mean.
        branch: One branch of the dilated attention instead of their sum.
    """
    heads = slice(None) if head is None else slice(head, head + 1)
    branches = slice(None) if branch is None else slice(branch, branch + 1)
    layers = []
    for block, x_1MD in _layers(encoder, x_LD):
        received_RMH = received_by_keys(block.self_attn, block.self_attn_layer_norm(x_1MD))[:, 0]
        layers.append(received_RMH[branches, -len(x_LD) :, heads].sum(0).mean(-1))
    return torch.stack(layers)


@torch.no_grad()
def attention_rollout(
    encoder: LongViT, x_LD: Float[Tensor, "L D"], pooled_L: Float[Tensor, " L"] | None = None
) -> Float[Tensor, " L"]:
    """How much of each input token is mixed into the slide's vector, if attention alone mixed (attention rollout).

    Abnar and Zuidema 2020, arXiv:2005.00928: a layer passes on (A + I) / 2, heads averaged, and the layers are
    multiplied; read from the pooled vector down, that is one vector per layer. Shares are not negative and add up to 1,
    of which a class token keeps what is its own. From a token that a head does not look anywhere, all stays in place.

    Args:
        encoder: In evaluation mode.
        x_LD: One slide as `encoder.embed` gives it, without padding.
        pooled_L: Weights of the tokens in the slide's vector; default those of the encoder's own pooling.
    """
    layers = list(_layers(encoder, x_LD))
    share_1M = _of_the_slide(encoder, x_LD, pooled_L)
    for block, x_1MD in reversed(layers):
        normed_1MD = block.self_attn_layer_norm(x_1MD)
        moved_1M = received_by_keys(block.self_attn, normed_1MD, given_BL=share_1M).sum(0).mean(-1)
        share_1M = (share_1M * (1 + idle_share(block.self_attn, x_1MD)) + moved_1M) / 2
    return share_1M[0, -len(x_LD) :]


def _layers(encoder: LongViT, x_LD: Tensor) -> Iterator[tuple[Block, Float[Tensor, "1 M D"]]]:
    """Every block with the tokens that enter it, the class token before them if there is one."""
    x_1MD = x_LD[None] if encoder.class_token is None else encoder.class_token(x_LD[None], None)[0]
    blocks = encoder.encoder.layers
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        yield block, x_1MD
        if following is not None:
            x_1MD = block(x_1MD)


def _of_the_slide(encoder: LongViT, x_LD: Tensor, pooled_L: Tensor | None) -> Float[Tensor, "1 M"]:
    """Weights of the last layer's tokens in the slide's vector."""
    length, first = len(x_LD), int(encoder.class_token is not None)
    share_1M = x_LD.new_zeros(1, first + length)
    if pooled_L is not None:
        share_1M[0, first:] = pooled_L
    elif encoder.pooling.by_class:
        share_1M[0, 0] = 1
    else:
        share_1M[0, first:] = 1 / length
    return share_1M
