"""Attention maps of a LongNet for any number of tokens: attention that tokens receive, and attention rollout."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.received import idle_share, received_by_keys
from longvit.model.encoder import Block, LongViT


@torch.no_grad()
def received_attention(
    encoder: LongViT, x_LD: Float[Tensor, "L D"], *, head: int | None = None, branch: int | None = None
) -> Float[Tensor, "N L"]:
    """Return the attention that each token of a slide receives from all tokens, in each of the N layers.

    A layer's values have a mean of 1, or about 1 with a class token, which is left out. A token with value 2 receives
    twice as much attention as with even attention. Branches add up to the whole; heads are averaged. Memory: as for a
    forward pass.

    Args:
        encoder: Encoder in evaluation mode.
        x_LD: One slide, embedded by `encoder.embed`, without padding; with a group, the share of this rank.
        head: A single head instead of the mean of all heads.
        branch: A single branch of the dilated attention instead of the sum of all branches.
    """
    heads = slice(None) if head is None else slice(head, head + 1)
    branches = slice(None) if branch is None else slice(branch, branch + 1)
    layers, x_1MD, blocks = [], _entering(encoder, x_LD), encoder.encoder.blocks
    plan = encoder.plan(x_1MD)
    for block in blocks:
        received_RMH = received_by_keys(block.self_attn, x_1MD, plan, norm=block.self_attn_layer_norm)[:, 0]
        layers.append(received_RMH[branches, -len(x_LD) :, heads].sum(0).mean(-1))
        del received_RMH  # before the next layer's tokens are made
        if block is not blocks[-1]:
            x_1MD = block(x_1MD, plan)
    return torch.stack(layers)


@torch.no_grad()
def attention_rollout(
    encoder: LongViT, x_LD: Float[Tensor, "L D"], pooled_L: Float[Tensor, " L"] | None = None
) -> Float[Tensor, " L"]:
    """Return each input token's share of the slide's vector if only attention mixed tokens (attention rollout).

    In Abnar and Zuidema 2020, arXiv:2005.00928, a layer passes on (A + I) / 2, with heads averaged, and the layers are
    multiplied. Read from the pooled vector down, the product is one vector per layer. Shares are not negative and add
    up to 1, including the share of a class token, which is not returned. If a token attends to no key in a head, its
    share stays in place.

    Memory: the input tokens of ceil(log2 N) + 1 of the N layers, and a forward pass of one layer. For 12 layers of
    width 384 and a million tokens in float32, this is 5 times 1.6 GB instead of 12 times. In return, a layer is
    computed log2(N) / 2 times on average.

    Args:
        encoder: Encoder in evaluation mode.
        x_LD: One slide, embedded by `encoder.embed`, without padding; with a group, the share of this rank.
        pooled_L: Weights of the tokens in the slide's vector; default: weights of the encoder's own pooling.
    """
    x_1MD = _entering(encoder, x_LD)
    plan = encoder.plan(x_1MD)
    share_1M = _of_the_slide(encoder, x_LD, plan, pooled_L)
    return _read_down(encoder.encoder.blocks, x_1MD, plan, share_1M)[0, -len(x_LD) :]


def _entering(encoder: LongViT, x_LD: Tensor) -> Float[Tensor, "1 M D"]:
    """Return the input tokens of the first block, after the class token if the encoder has one."""
    return x_LD[None] if encoder.class_token is None else encoder.class_token(x_LD[None], None, encoder.group)[0]


def _read_down(
    blocks: Sequence[Block], x_1MD: Float[Tensor, "1 M D"], plan: AttentionPlan, share_1M: Tensor
) -> Float[Tensor, "1 M"]:
    """Return the share of each input token of `blocks` in a mixture of their output tokens with shares `share_1M`.

    Blocks are read from last to first, and reading a block needs its input tokens. The input of the middle block is
    kept while the last half is read. The first half is then computed again from the first input. So one sequence is
    kept for each time that the blocks can be halved.
    """
    if len(blocks) == 1:
        return _read_block(blocks[0], x_1MD, plan, share_1M)
    middle = len(blocks) // 2
    share_1M = _read_down(blocks[middle:], _through(blocks[:middle], x_1MD, plan), plan, share_1M)
    return _read_down(blocks[:middle], x_1MD, plan, share_1M)


def _through(blocks: Sequence[Block], x_1MD: Tensor, plan: AttentionPlan) -> Float[Tensor, "1 M D"]:
    for block in blocks:
        x_1MD = block(x_1MD, plan)
    return x_1MD


def _read_block(block: Block, x_1MD: Tensor, plan: AttentionPlan, share_1M: Tensor) -> Float[Tensor, "1 M"]:
    """Return shares before a block: half of a share stays in place, half goes to the attended tokens.

    All of a share stays in place in heads in which the token attends to no key.
    """
    attention, norm = block.self_attn, block.self_attn_layer_norm
    moved_1M = received_by_keys(attention, x_1MD, plan, given_BL=share_1M, norm=norm).sum(0).mean(-1)
    return (share_1M * (1 + idle_share(x_1MD, plan)) + moved_1M) / 2


def _of_the_slide(encoder: LongViT, x_LD: Tensor, plan: AttentionPlan, pooled_L: Tensor | None) -> Float[Tensor, "1 M"]:
    """Return the weights of the last layer's tokens in the slide's vector."""
    of_class = encoder.class_token is not None
    first = int(of_class and plan.first_token == 0)
    share_1M = x_LD.new_zeros(1, first + len(x_LD))
    if pooled_L is not None:
        share_1M[0, first:] = pooled_L
    elif encoder.pooling.by_class:
        share_1M[0, :first] = 1
    else:
        share_1M[0, first:] = 1 / (plan.lengths[0] - of_class)
    return share_1M
