"""What a token is: a patch of pixels or the embedding of a tile; both become one vector of the encoder's width."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from longvit.config import EmbeddingInput, EncoderConfig, PixelInput
from longvit.encoder_config import STEM_STRIDE
from longvit.model.recompute import in_pieces
from longvit.tokens.batch import TokenBatch

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
"""Mean and standard deviation that official LongViT takes for pixels from 0 to 1, the same for every channel."""


NOISE_LEVELS = 4.0
"""Contrast below this, in grey levels, is a scanner's noise and is not blown up."""


class PixelTokens(nn.Module):
    """Patches of uint8 pixels -> x_BLD, the patch embedding of a vision transformer.

    The official code convolves with a stride of one patch; on flattened patches that is a linear layer with the same
    weights, and with the same initialisation, which torch shares between the two. Scaling is folded into the weights,
    which are small, and never done on the pixels, which are many.
    """

    def __init__(self, source: PixelInput, width: int) -> None:
        super().__init__()
        self.scale = source.scale
        self.proj = nn.Linear(3 * source.patch_px**2, width)

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Scale the pixels as configured and project them."""
        weight, bias = self.proj.weight, self.proj.bias
        x_BLP = batch.x.to(weight.dtype)
        if self.scale == "patch":
            centred = weight.unflatten(1, (3, -1))
            centred = (centred - centred.mean(dim=2, keepdim=True)).flatten(
                1
            )  # times x: the patch less its mean colour
            return linear(x_BLP, centred) / _contrast(x_BLP) + bias
        bias = bias - PIXEL_MEAN / PIXEL_STD * weight.sum(dim=1)
        return linear(x_BLP, weight / (255 * PIXEL_STD), bias)


def _contrast(x_BLP: Tensor) -> Tensor:
    """(B, L, 1) deviation of a patch's pixels from its mean colour, grey levels, with glass's noise as the least."""
    x_BLP = x_BLP.float()
    power = x_BLP.pow(2).mean(dim=-1, keepdim=True)
    colour = x_BLP.unflatten(-1, (3, -1)).mean(dim=-1).pow(2).mean(dim=-1, keepdim=True)
    return ((power - colour).clamp_min(0) + NOISE_LEVELS**2).sqrt()


class StemTokens(nn.Module):
    """Patches of uint8 pixels -> x_BLD: convolutions within each patch, the mean of what they find in it, a projection.

    Ours, not the paper's. A linear projection has a weight for every pixel of a patch, and to it the same nucleus one
    pixel further is another one: it takes more slides than a small cohort has to learn texture. Convolutions see it
    wherever it lies (early convolutions: Xiao et al. 2021, arXiv:2106.14881).
    """

    def __init__(self, source: PixelInput, config: EncoderConfig) -> None:
        super().__init__()
        self.source, self.config = source, config
        layers: list[nn.Module] = []
        for channels_in, channels in pairwise((3, *source.stem)):
            strided = {"kernel_size": 3, "stride": 2, "padding": 1}
            first = {"kernel_size": STEM_STRIDE, "stride": STEM_STRIDE}
            convolution = nn.Conv2d(channels_in, channels, **(strided if layers else first))
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
            layers += [convolution, nn.GELU()]
        self.stem = nn.Sequential(*layers)
        self.proj = nn.Linear(source.stem[-1], config.width)

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Scale the pixels as configured, and look at every patch by itself; in pieces, which bounds the memory."""
        recompute = self.config.recompute != "nothing"
        return in_pieces(self._embed, batch.x, self.config.tokens_at_once, recompute=recompute)

    def _embed(self, x_BLP: Tensor) -> Tensor:
        x_BLP = x_BLP.to(self.proj.weight.dtype)
        x_N3pp = x_BLP.reshape(-1, 3, self.source.patch_px, self.source.patch_px)
        if self.source.scale == "patch":
            x_N3pp = (x_N3pp - x_N3pp.mean(dim=(2, 3), keepdim=True)) / _contrast(x_BLP).reshape(-1, 1, 1, 1)
        else:
            x_N3pp = (x_N3pp / 255 - PIXEL_MEAN) / PIXEL_STD
        return self.proj(self.stem(x_N3pp).mean(dim=(2, 3))).unflatten(0, x_BLP.shape[:2])


class EmbeddingTokens(nn.Module):
    """Tile embeddings -> x_BLD by one linear layer, as in Prov-GigaPath."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, width)

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Project the embeddings, which stores may hold in half precision."""
        return self.proj(batch.x.to(self.proj.weight.dtype))


def build_input(config: EncoderConfig) -> PixelTokens | StemTokens | EmbeddingTokens:
    """Build the module for an encoder's source of tokens."""
    source = config.input
    if isinstance(source, EmbeddingInput):
        return EmbeddingTokens(source.dim, config.width)
    return StemTokens(source, config) if source.stem else PixelTokens(source, config.width)
