"""What a token is: a patch of pixels or the embedding of a tile; both become one vector of the encoder's width."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from longvit.config import EmbeddingInput, PixelInput
from longvit.tokens.batch import TokenBatch

PIXEL_MEAN, PIXEL_STD = 0.5, 0.25
"""Mean and standard deviation that official LongViT takes for pixels from 0 to 1, the same for every channel."""


class PixelTokens(nn.Module):
    """Patches of uint8 pixels -> x_BLD, the patch embedding of a vision transformer.

    The official code convolves with a stride of one patch; on flattened patches that is a linear layer with the same
    weights, and with the same initialisation, which torch shares between the two.
    """

    def __init__(self, patch_px: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(3 * patch_px**2, width)

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Scale the pixels as official LongViT does and project them, the scale folded into the small weights."""
        weight, bias = self.proj.weight, self.proj.bias
        bias = bias - PIXEL_MEAN / PIXEL_STD * weight.sum(dim=1)
        return linear(batch.x.to(weight.dtype), weight / (255 * PIXEL_STD), bias)


class EmbeddingTokens(nn.Module):
    """Tile embeddings -> x_BLD by one linear layer, as in Prov-GigaPath."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, width)

    def forward(self, batch: TokenBatch) -> Float[Tensor, "B L D"]:
        """Project the embeddings, which stores may hold in half precision."""
        return self.proj(batch.x.to(self.proj.weight.dtype))


def build_input(source: PixelInput | EmbeddingInput, width: int) -> PixelTokens | EmbeddingTokens:
    """Build the module for a configured source of tokens."""
    if isinstance(source, PixelInput):
        return PixelTokens(source.patch_px, width)
    return EmbeddingTokens(source.dim, width)
