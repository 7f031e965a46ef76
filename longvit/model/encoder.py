"""LongViT (arXiv:2312.03558): tokens and their places through LongNet blocks, one vector per token."""

import math

from jaxtyping import Bool, Float
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.functional import gelu

from longvit.config import EncoderConfig
from longvit.model.attention import DilatedSelfAttention
from longvit.model.inputs import build_input
from longvit.model.position import build_position
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
    """The LongNet blocks. No norm at the end, as in official LongViT: the heads own theirs.

    Linear weights start as Magneto (arXiv:2210.06423) and LongNet start them: Xavier-normal, with a gain of
    sqrt(ln(2 depth)) for value, output and feed-forward projections. Official LongViT ends with a normal distribution
    of standard deviation 0.0108 instead (0.02 was meant). At its width of 384 that trains; a narrow encoder is then
    almost linear, and finds no texture.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        last = max(config.depth - 1, 1)
        self.layers = nn.ModuleList(Block(config, config.drop_path * i / last) for i in range(config.depth))
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
        return x_BLD


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
        self.encoder = Encoder(config)

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Encode every slide by itself; padding never changes a real token, and comes out as 0."""
        position_BLD = self.position(batch).to(self.input.proj.weight.dtype)
        x_BLD = self.encoder(self.input(batch) + position_BLD, batch.mask_BL)
        return x_BLD.masked_fill(~batch.mask_BL.unsqueeze(-1), 0)
