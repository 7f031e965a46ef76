"""Encoding of a token's place: computed sines and cosines, official LongViT's learned table, or rotation.

Places in a slide are added to the tokens. The places of a language model's symbols rotate its queries and keys.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from longvit.config import LearnedPosition, SinCosPosition
from longvit.model.rank_group import RankGroup
from longvit.tokens.batch import TokenBatch


def sincos_position(rc_BL2: Int64[Tensor, "B L 2"], width: int) -> Float[Tensor, "B L {width}"]:
    """Return 2-D sine-cosine positions (MoCo v3, MAE), float32, computed so that a slide may have any size.

    The first half of the width encodes the row, the second half the column, each with its sines before its cosines.
    This is the order of Prov-GigaPath's table, whose index is column-major; MAE's own table has the halves swapped.
    """
    frequency = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))  # on the CPU: MPS lacks it
    angle = rc_BL2.float().unsqueeze(-1) * frequency.float().to(rc_BL2.device)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(2)


def rotated(x_BLHK: Float[Tensor, "B L H K"], first: int) -> Float[Tensor, "B L H K"]:
    """Return queries or keys whose first half of channels is rotated by their places (RoFormer, arXiv:2104.09864).

    So a logit depends on the distance between query and key only. The other half compares their contents at any
    distance (GPT-J, GPT-NeoX), which rotated channels do less the farther the tokens are. LongNet names XPOS
    (arXiv:2212.10554), which rotates all channels, and multiplies queries by z ** (place / 512) and divides keys by it.
    These factors leave float32 beyond about 70,000 places. Angles are computed in float64,
    because float32 has no more than 16 million places.

    Args:
        x_BLHK: Queries or keys of neighbouring places, of at least 4 channels K.
        first: Place of the first.

    Raises:
        ValueError: There are fewer than 4 channels.
    """
    quarter = x_BLHK.shape[-1] // 4
    if not quarter:
        raise ValueError(f"heads of {x_BLHK.shape[-1]} channels are too narrow to be rotated, they need 4")
    frequency = 10_000 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)  # on the CPU: MPS lacks float64
    angle_LK = torch.arange(first, first + x_BLHK.shape[1], dtype=torch.float64).unsqueeze(-1) * frequency
    cos_L1K, sin_L1K = (part.to(x_BLHK).unsqueeze(1) for part in (angle_LK.cos(), angle_LK.sin()))
    a, b, content = x_BLHK.tensor_split((quarter, 2 * quarter), dim=-1)
    return torch.cat([a * cos_L1K - b * sin_L1K, b * cos_L1K + a * sin_L1K, content], dim=-1)


class Extent(NamedTuple):
    """Box around the tokens of each slide, over which a table is stretched."""

    first_B2: Int64[Tensor, "B 2"]
    """First row and column."""
    side_B2: Int64[Tensor, "B 2"]
    """Number of rows and columns."""


def extent_of(rc_BL2: Int64[Tensor, "B L 2"], mask_BL: Bool[Tensor, "B L"], group: RankGroup | None = None) -> Extent:
    """Return the box around each slide's real tokens, on all ranks of a group.

    A piece of a slide is placed by the box of the whole slide.
    """
    padding_BL1 = ~mask_BL.unsqueeze(-1)
    limits = torch.iinfo(torch.int32)
    first_B2 = rc_BL2.masked_fill(padding_BL1, limits.max).amin(1)
    last_B2 = rc_BL2.masked_fill(padding_BL1, limits.min).amax(1)
    if group is not None:
        first_B2, last_B2 = -group.max(-first_B2), group.max(last_B2)
    return Extent(first_B2, last_B2 - first_B2 + 1)


class SinCosTable(nn.Module):
    """Fixed positions without a table, so that a slide may have any size; the width is a multiple of 4.

    Prov-GigaPath reads the same numbers from a table of 1000 x 1000 tiles, which takes 3 GB. A tile beyond the table
    fails there, or gets the place of another tile; here it has its own place.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(
        self, batch: TokenBatch, extent: Extent | None = None, group: RankGroup | None = None
    ) -> Float[Tensor, "B L D"]:
        """Return one vector for the place of each token; extent and group have no effect."""
        return sincos_position(batch.rc_BL2, self.width)


class LearnedTable(nn.Module):
    """Learned table of official LongViT, stretched over the rows and columns that the slide's tokens span.

    The table is stretched by bicubic interpolation. The official code has two different formulas for the scale. With
    both, a grid of the table's own size gets the table itself.

    - `forward`: the scale is (side + 0.1) / grid, as in the official forward pass for a slide of another size than the
      encoder's.
    - `load`: the scale is side / grid, as when the official code loads a checkpoint into an encoder for larger images.
      The official code then rounds the table to half precision; this class does not.

    Each token is interpolated by itself. So the cost of a sparse slide depends on its tokens alone, and a million
    tokens need no table of 400 million weights.
    """

    def __init__(self, position: LearnedPosition, width: int) -> None:
        super().__init__()
        self.grid = position.grid
        self.excess = 0.1 if position.stretch == "forward" else 0.0
        self.table = nn.Parameter(torch.empty(1, self.grid**2, width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(
        self, batch: TokenBatch, extent: Extent | None = None, group: RankGroup | None = None
    ) -> Float[Tensor, "B L D"]:
        """Return one vector for the place of each token, of the table's dtype.

        Args:
            batch: The tokens.
            extent: Box over which the table is stretched if the tokens are a piece of a slide; default: their own box.
            group: Ranks that hold the slides together; the default box is then around the tokens of all ranks.
        """
        if not batch.rc_BL2.shape[1]:
            return self.table.new_zeros(*batch.mask_BL.shape, self.table.shape[-1])
        first_B2, side_B2 = extent or extent_of(batch.rc_BL2, batch.mask_BL, group)
        is_table_B1 = (side_B2 == self.grid).all(1, keepdim=True)
        scale_B2 = torch.where(is_table_B1, 1.0, (side_B2 + self.excess) / self.grid)
        # From the centre of a token to table coordinates in [-1, 1]; (row, column) becomes grid_sample's (x, y).
        at_BL2 = (batch.rc_BL2 - first_B2.unsqueeze(1) + 0.5) / scale_B2.unsqueeze(1)
        at_B1L2 = (at_BL2 * 2 / self.grid - 1).flip(-1).unsqueeze(1)
        exact = torch.promote_types(self.table.dtype, torch.float32)
        table_1Dgg = self.table.to(exact).mT.unflatten(2, (self.grid, self.grid))
        table_BDgg = table_1Dgg.expand(len(at_B1L2), -1, -1, -1)
        pos_BD1L = grid_sample(
            table_BDgg, at_B1L2.to(exact), mode="bicubic", padding_mode="border", align_corners=False
        )
        return pos_BD1L.squeeze(2).mT.to(self.table.dtype)


def build_position(position: SinCosPosition | LearnedPosition, width: int) -> SinCosTable | LearnedTable:
    """Build the module for a configured kind of position."""
    if isinstance(position, SinCosPosition):
        return SinCosTable(width)
    return LearnedTable(position, width)
