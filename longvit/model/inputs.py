"""Modules that embed tokens: patches of pixels, or embeddings of tiles, as vectors of the encoder's width."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from longvit.config import STEM_STRIDE, EncoderConfig, ExecutionConfig, PixelInput
from longvit.model.attention.recompute import in_pieces
from longvit.tokens.batch import TokenBatch

MEAN_LEVEL, STD_LEVELS = 0.5 * 255, 0.25 * 255
"""Mean and deviation of official LongViT for all channels, grey levels; half precision is exact for every difference
from this mean."""
NOISE_LEVELS = 4.0
"""Contrast of a scanner's noise, grey levels; lower contrast is not amplified."""


class PixelTokens(nn.Module):
    """Embedding of uint8 pixel patches -> x_BLD: the patch embedding of a vision transformer.

    The official code convolves with a stride of one patch. On flattened patches this equals a linear layer with the
    same weights and the same initialisation, which torch shares between the two layers. Scaling is folded into the
    weights, which are small. Centring is not, because half precision would round the difference of two large sums.
    """

    def __init__(self, source: PixelInput, width: int) -> None:
        super().__init__()
        self.scale = source.scale
        self.proj = nn.Linear(source.width, width)

    def forward(self, batch: TokenBatch, execution: ExecutionConfig | None = None) -> Float[Tensor, "B L D"]:
        """Scale the pixels as configured and project them."""
        weight, bias = self.proj.weight, self.proj.bias
        if self.scale == "patch":
            return linear(_of_unit_contrast(batch.x, weight.dtype), weight, bias)
        return linear(_centred(batch.x, weight.dtype), weight / STD_LEVELS, bias)


def _centred(x_BLP: Tensor, dtype: torch.dtype) -> Tensor:
    """Return pixels minus the fixed mean, grey levels."""
    return x_BLP.to(dtype, copy=True).sub_(MEAN_LEVEL)


def _of_unit_contrast(x_BLP: Tensor, dtype: torch.dtype) -> Tensor:
    """Return each patch minus its mean colour, divided by its deviation or the noise of glass, whichever is larger."""
    x_BL3p = _centred(x_BLP, torch.promote_types(dtype, torch.float32)).unflatten(-1, (3, -1))
    x_BL3p -= x_BL3p.mean(dim=-1, keepdim=True)
    power_BL11 = x_BL3p.pow(2).mean(dim=(-2, -1), keepdim=True)
    return x_BL3p.div_((power_BL11 + NOISE_LEVELS**2).sqrt()).flatten(-2).to(dtype)


class StemTokens(nn.Module):
    """Embedding of uint8 pixel patches -> x_BLD: convolutions within each patch, their mean over it, a projection.

    This is not in the paper. A linear projection has a weight for every pixel of a patch, so the same nucleus one pixel
    further is a new pattern. To learn texture, it needs more slides than a small cohort has. Convolutions find a
    pattern wherever it is (early convolutions: Xiao et al. 2021, arXiv:2106.14881).
    """

    def __init__(self, source: PixelInput, width: int) -> None:
        super().__init__()
        self.source = source
        layers: list[nn.Module] = []
        for channels_in, channels in pairwise((3, *source.stem)):
            kernel, stride, padding = (3, 2, 1) if layers else (STEM_STRIDE, STEM_STRIDE, 0)
            convolution = nn.Conv2d(channels_in, channels, kernel, stride, padding)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.GELU()]
        self.stem = nn.Sequential(*layers)
        self.proj = nn.Linear(source.stem[-1], width)

    def forward(self, batch: TokenBatch, execution: ExecutionConfig | None = None) -> Float[Tensor, "B L D"]:
        """Scale the pixels as configured and embed every patch by itself, in pieces that bound the memory."""
        execution = execution or ExecutionConfig()
        recompute = execution.recompute != "nothing"
        return in_pieces(self._embed, batch.x, execution.tokens_at_once, recompute=recompute)

    def _embed(self, x_BLP: Tensor) -> Tensor:
        dtype, side = self.proj.weight.dtype, self.source.patch_px
        if self.source.scale == "patch":
            scaled_BLP = _of_unit_contrast(x_BLP, dtype)
        else:
            scaled_BLP = _centred(x_BLP, dtype).div_(STD_LEVELS)
        found_NCpp = self.stem(scaled_BLP.reshape(-1, 3, side, side))
        return self.proj(found_NCpp.mean(dim=(2, 3))).unflatten(0, x_BLP.shape[:2])


class EmbeddingTokens(nn.Module):
    """Embedding of tile embeddings -> x_BLD by one linear layer, as in Prov-GigaPath."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, width)

    def forward(self, batch: TokenBatch, execution: ExecutionConfig | None = None) -> Float[Tensor, "B L D"]:
        """Project the embeddings, which stores may contain in half precision."""
        return self.proj(batch.x.to(self.proj.weight.dtype))


def build_input(config: EncoderConfig) -> PixelTokens | StemTokens | EmbeddingTokens:
    """Build the module for an encoder's kind of input token."""
    return _BUILD[config.input.kind](config.input, config)


_BUILD = {
    "pixels": lambda source, config: (StemTokens if source.stem else PixelTokens)(source, config.width),
    "embeddings": lambda source, config: EmbeddingTokens(source.dim, config.width),
}
"""Builder of the module for each kind of input."""
