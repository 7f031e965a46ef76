"""LongViT (arXiv:2312.03558): tokens with their places -> LongNet blocks -> one vector per token."""

import math
from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from timm.layers.drop import drop_path
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.model.attention.layer import DilatedSelfAttention
from longvit.model.attention.plan import AttentionPlan
from longvit.model.attention.recompute import in_pieces, piece_tokens
from longvit.model.inputs import build_input
from longvit.model.pooling import ClassToken, Pooling
from longvit.model.position import Extent, build_position
from longvit.model.rank_group import RankGroup, SharedBatch
from longvit.tokens.batch import TokenBatch
from longvit.tokens.read import StoreScale


class FeedForward(nn.Module):
    """Feed-forward layer: two linear layers with a GELU and Magneto's sub-LayerNorm between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.ffn_layernorm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BLD: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Transform each token by itself."""
        return self.fc2(self.ffn_layernorm(gelu(self.fc1(x_BLD.to(self.fc1.weight.dtype)))))


class Block(nn.Module):
    """Pre-norm LongNet block: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Parameters have their official names; `final_layer_norm` is the norm before the feed-forward layer.
    """

    def __init__(self, config: EncoderConfig, drop_path: float) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.self_attn = DilatedSelfAttention(config)
        self.final_layer_norm = nn.LayerNorm(config.width)
        self.ffn = FeedForward(config.width, int(config.width * config.ffn_ratio))
        self.dropout, self.drop_path = nn.Dropout(config.dropout), drop_path

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], plan: AttentionPlan, *, overwrite: bool = False
    ) -> Float[Tensor, "B L D"]:
        """Mix tokens by attention, then channels by the feed-forward layer.

        With `overwrite`, in evaluation mode and without gradients, the result takes the memory of `x_BLD`.
        """
        mixed_BLD = self.self_attn(x_BLD, plan, norm=self.self_attn_layer_norm)
        mix_channels = lambda piece_BLD: self.ffn(self.final_layer_norm(piece_BLD))
        at_once = piece_tokens(plan.execution.tokens_at_once, x_BLD, self.ffn.fc1.weight)
        recompute = plan.execution.recompute != "nothing"
        if overwrite:
            for piece_BlD, mixed_BlD in zip(x_BLD.split(at_once, 1), mixed_BLD.split(at_once, 1), strict=True):
                piece_BlD += mixed_BlD  # torch widens a copy of the second summand
            del mixed_BLD, mixed_BlD  # before more memory is needed
            add_channels = lambda piece_BLD: piece_BLD + mix_channels(piece_BLD)
            return in_pieces(add_channels, x_BLD, at_once, recompute=False, overwrite=True)
        x_BLD = _add(x_BLD, self._dropped(mixed_BLD, plan))
        return _add(x_BLD, self._dropped(in_pieces(mix_channels, x_BLD, at_once, recompute=recompute), plan))

    def _dropped(self, x_BLD: Tensor, plan: AttentionPlan) -> Tensor:
        """Apply dropout to numbers, and stochastic depth (arXiv:1603.09382) to slides.

        Ranks draw the slides to drop together, for the whole batch, so that a mesh drops the same as one process.
        """
        if not self.training:
            return x_BLD
        group, batch = plan.group or (plan.batch and plan.batch.group), plan.batch
        with group.own_random_numbers(x_BLD.device) if group and self.dropout.p else nullcontext():
            x_BLD = self.dropout(x_BLD)
        if not self.drop_path:
            return x_BLD
        kept_B11 = drop_path(x_BLD.new_ones(batch.total if batch else len(x_BLD), 1, 1), self.drop_path, training=True)
        return x_BLD * (kept_B11[batch.rows] if batch else kept_B11)


def _add(x_BLD: Tensor, more_BLD: Tensor) -> Tensor:
    """Return the sum, in the memory of `more_BLD` unless its dtype is narrower."""
    return more_BLD.add_(x_BLD) if more_BLD.dtype == x_BLD.dtype else x_BLD + more_BLD


class Encoder(nn.Module):
    """LongNet blocks of the encoder, or with a causal plan of a language model's decoder.

    A final norm exists only if configured: in official LongViT the heads have their own norm.

    Linear weights are initialised as in Magneto (arXiv:2210.06423) and LongNet: Xavier-normal, with a gain of
    sqrt(ln(2 depth)) for value, output and feed-forward projections. Official LongViT instead uses a normal
    distribution of standard deviation 0.0108 (0.02 was intended), which is refused here. It trains at the official
    width of 384, but a narrow encoder is then almost linear, and finds no texture.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        last = max(config.depth - 1, 1)
        shares = (config.drop_path * i / last for i in range(config.depth))
        self.layers = nn.ModuleList(Block(config, share) for share in shares)
        self.layer_norm = nn.LayerNorm(config.width) if config.final_norm == "both" else nn.Identity()
        gain = math.sqrt(math.log(2 * config.depth))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                scaled = name.endswith(("v_proj", "out_proj", "fc1", "fc2"))
                nn.init.xavier_normal_(module.weight, gain if scaled else 1.0)
                nn.init.zeros_(module.bias)

    @property
    def blocks(self) -> list[Block]:
        """Return the blocks, from the first to the last."""
        return cast("list[Block]", list(self.layers))  # torch's ModuleList does not know what it holds

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], plan: AttentionPlan, *, overwrite: bool = False
    ) -> Float[Tensor, "B L D"]:
        """Apply all blocks in turn; the output at padding has no meaning.

        With `overwrite`, in evaluation mode and without gradients, every block's result takes the memory of `x_BLD`.
        Otherwise the caller would hold this memory to the end.
        """
        recompute = plan.execution.recompute == "blocks" and torch.is_grad_enabled()
        for layer in self.layers:
            if recompute:
                x_BLD = checkpoint(layer, x_BLD, plan, use_reentrant=False)
            else:
                x_BLD = layer(x_BLD, plan, overwrite=overwrite)
        return self.layer_norm(x_BLD)


class EncoderOutput(NamedTuple):
    """Output of an encoder for a batch of slides."""

    tokens_BLD: Float[Tensor, "B L D"]
    """Vector per token, in the context of its whole slide; 0 for padding."""
    slide_BD: Float[Tensor, "B D"]
    """Vector per slide, pooled as configured."""


class LongViT(nn.Module):
    """Encoder of slides: tokens -> one vector per token, in the context of its whole slide. It has no subclasses.

    >>> import torch
    >>> from longvit.config import PRESETS
    >>> encoder = LongViT(PRESETS["longvit_tiny"]).eval()
    >>> patches, rc = torch.zeros(1, 6, 3072, dtype=torch.uint8), torch.zeros(1, 6, 2, dtype=torch.int64)
    >>> encoder(TokenBatch(patches, rc, torch.ones(1, 6).bool())).shape
    torch.Size([1, 6, 64])
    """

    trained_on: StoreScale | None = None
    """Scale of the slides that the weights were trained on; None if the weights are untrained or the scale unknown."""
    execution = ExecutionConfig()
    """Amounts computed at once, and layers computed twice; set by the caller at any time, and not saved."""
    group: RankGroup | None = None
    """Ranks that hold each sequence together; set by the caller, like `execution`. None if this process holds it alone.

    With a group, every rank gives the tokens of its share, and gets their vectors, and the vector of the whole slide.
    """
    batch: SharedBatch | None = None
    """Batch of several ranks, of which this process has some slides; set by the caller for a forward pass."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input = build_input(config)
        self.position = build_position(config.position, config.width)
        self.class_token = ClassToken(config.width) if config.class_token else None
        self.encoder = Encoder(config)
        self.pooling = Pooling(config)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the token stream between the blocks."""
        return self.encoder.blocks[0].self_attn_layer_norm.weight.dtype

    def narrowed(self, dtype: torch.dtype) -> "LongViT":
        """Return the encoder itself, with its matrices and convolutions in a narrower type, for inference.

        The token stream, its norms, the positions and the pooling keep their type, because rounding errors there would
        not average out over the tokens.
        """
        self.input.to(dtype)
        for layer in self.encoder.blocks:
            layer.self_attn.to(dtype)
            layer.ffn.to(dtype)
        return self

    def share_of(self, batch: TokenBatch) -> TokenBatch:
        """Return this rank's share of the tokens of whole slides."""
        if self.group is None:
            return batch
        part = self.group.share(batch.mask_BL.shape[1])
        return batch.some(slice(part.start, part.stop))

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Encode every slide by itself; padding does not change a real token, and its output is 0."""
        return self.encode(self.embed(batch), batch.mask_BL).tokens_BLD

    def represent(self, batch: TokenBatch) -> Float[Tensor, "B D"]:
        """Return one vector per slide, pooled as configured."""
        return self.encode(self.embed(batch), batch.mask_BL).slide_BD

    def embed(self, batch: TokenBatch, extent: Extent | None = None) -> Float[Tensor, "B L D"]:
        """Return tokens with their places, each embedded by itself: the input of the blocks.

        Args:
            batch: The tokens.
            extent: Box around the whole slide, needed if the tokens are a piece of the slide.
        """
        return self.placed(self.content(batch), batch, extent)

    def content(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Return the content of each token, without its place."""
        return self.input(batch, self.execution)

    def placed(self, content_BLD: Tensor, batch: TokenBatch, extent: Extent | None = None) -> Float[Tensor, "B L D"]:
        """Add each token's place to its content, in the type of the stream."""
        return (content_BLD + self.position(batch, extent, self.group)).to(self.dtype)

    def plan(self, x_BMD: Float[Tensor, "B M D"], mask_BM: Bool[Tensor, "B M"] | None = None) -> AttentionPlan:
        """Return the plan of a forward pass for these tokens, including the class token."""
        return AttentionPlan.of_tokens(self.config, x_BMD, mask_BM, self.execution, self.group, batch=self.batch)

    def encode(
        self, x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None = None, *, overwrite: bool = False
    ) -> EncoderOutput:
        """Encode embedded tokens: return tokens in context, and slide vectors.

        Args:
            x_BLD: Output of `embed`.
            mask_BL: True for a real token; without a mask every token is real.
            overwrite: Whether the result may take the memory of `x_BLD` if no gradients are needed.
        """
        token, group = self.class_token, self.group
        x_BMD, mask_BM = (x_BLD, mask_BL) if token is None else token(x_BLD, mask_BL, group)
        x_BMD = self.encoder(x_BMD, self.plan(x_BMD, mask_BM), overwrite=overwrite)
        tokens_BLD = x_BMD[:, x_BMD.shape[1] - x_BLD.shape[1] :]
        if mask_BL is not None:
            tokens_BLD = tokens_BLD.masked_fill(~mask_BL.unsqueeze(-1), 0)
        return EncoderOutput(tokens_BLD, self.pooling(x_BMD, mask_BL, group))
