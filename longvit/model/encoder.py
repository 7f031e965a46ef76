"""LongViT (arXiv:2312.03558): tokens and their places through LongNet blocks, one vector per token."""

import math
from typing import NamedTuple

from jaxtyping import Bool, Float
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.functional import gelu

from longvit.config import EncoderConfig
from longvit.model.attention import DilatedSelfAttention
from longvit.model.inputs import build_input
from longvit.model.pooling import ClassToken, Pooling
from longvit.model.position import Extent, build_position
from longvit.tokens.batch import TokenBatch


class FeedForward(nn.Module):
    """Two linear layers with a GELU and Magneto's sub-LayerNorm between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.ffn_layernorm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BLD: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Each token by itself."""
        return self.fc2(self.ffn_layernorm(gelu(self.fc1(x_BLD))))


class Block(nn.Module):
    """A pre-norm LongNet block: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Parameters have their official names; `final_layer_norm` is the norm before the feed-forward layer.
    """

    def __init__(self, config: EncoderConfig, drop_path: float) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.self_attn = DilatedSelfAttention(config)
        self.final_layer_norm = nn.LayerNorm(config.width)
        self.ffn = FeedForward(config.width, int(config.width * config.ffn_ratio))
        self.drop = nn.Sequential(nn.Dropout(config.dropout), DropPath(drop_path))

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """One round of mixing tokens, then one of mixing channels."""
        x_BLD = x_BLD + self.drop(self.self_attn(self.self_attn_layer_norm(x_BLD), mask_BL))
        return x_BLD + self.drop(self.ffn(self.final_layer_norm(x_BLD)))


class Encoder(nn.Module):
    """The LongNet blocks. A norm at the end only if configured: in official LongViT the heads own theirs.

    Linear weights start as Magneto (arXiv:2210.06423) and LongNet start them: Xavier-normal, with a gain of
    sqrt(ln(2 depth)) for value, output and feed-forward projections. Official LongViT ends with a normal distribution
    of standard deviation 0.0108 instead (0.02 was meant). At its width of 384 that trains; a narrow encoder is then
    almost linear, and finds no texture.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        last = max(config.depth - 1, 1)
        self.layers = nn.ModuleList(Block(config, config.drop_path * i / last) for i in range(config.depth))
        self.layer_norm = nn.LayerNorm(config.width) if config.final_norm else nn.Identity()
        gain = math.sqrt(math.log(2 * config.depth))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                scaled = name.endswith(("v_proj", "out_proj", "fc1", "fc2"))
                nn.init.xavier_normal_(module.weight, gain if scaled else 1.0)
                nn.init.zeros_(module.bias)

    def forward(
        self, x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """All blocks in turn; what comes out at padding means nothing."""
        for layer in self.layers:
            x_BLD = layer(x_BLD, mask_BL)
        return self.layer_norm(x_BLD)


class Encoded(NamedTuple):
    """What an encoder makes of slides."""

    tokens_BLD: Float[Tensor, "B L D"]
    """A vector per token, in the context of its whole slide; 0 for padding."""
    slide_BD: Float[Tensor, "B D"]
    """A vector per slide, pooled as configured."""


class LongViT(nn.Module):
    """Slides as tokens -> one vector per token, each in the context of its whole slide. Final: nobody subclasses it.

    >>> import torch
    >>> from longvit.model.presets import PRESETS
    >>> encoder = LongViT(PRESETS["longvit_tiny"]).eval()
    >>> patches, rc = torch.zeros(1, 6, 3072, dtype=torch.uint8), torch.zeros(1, 6, 2, dtype=torch.int64)
    >>> encoder(TokenBatch(patches, rc, torch.ones(1, 6).bool())).shape
    torch.Size([1, 6, 64])
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.input = build_input(config.input, config.width)
        self.position = build_position(config.position, config.width)
        self.class_token = ClassToken(config.width) if config.class_token else None
        self.encoder = Encoder(config)
        self.pooling = Pooling(config)

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Encode every slide by itself; padding never changes a real token, and comes out as 0."""
        return self.encode(self.embed(batch), batch.mask_BL).tokens_BLD

    def represent(self, batch: TokenBatch) -> Float[Tensor, "B D"]:
        """One vector per slide, pooled as configured."""
        return self.encode(self.embed(batch), batch.mask_BL).slide_BD

    def embed(self, batch: TokenBatch, extent: Extent | None = None) -> Float[Tensor, "B L D"]:
        """Tokens with their places, each by itself: what enters the blocks.

        Args:
            batch: The tokens.
            extent: The box around the whole slide, where the tokens are a piece of one.
        """
        return self.input(batch) + self.position(batch, extent).to(self.input.proj.weight.dtype)

    def encode(self, x_BLD: Float[Tensor, "B L D"], mask_BL: Bool[Tensor, "B L"] | None = None) -> Encoded:
        """Embedded tokens -> tokens in context, and slides; without a mask every token is real."""
        x_BMD, mask_BM = (x_BLD, mask_BL) if self.class_token is None else self.class_token(x_BLD, mask_BL)
        x_BMD = self.encoder(x_BMD, mask_BM)
        tokens_BLD = x_BMD[:, x_BMD.shape[1] - x_BLD.shape[1] :]
        if mask_BL is not None:
            tokens_BLD = tokens_BLD.masked_fill(~mask_BL.unsqueeze(-1), 0)
        return Encoded(tokens_BLD, self.pooling(x_BMD, mask_BL))
