"""LongViT, an encoder of tokens built on LongNet.

Shape letters, the same in the whole project, last in a tensor's name and in its annotation:

    B slides   L tokens   D width   H heads   K head width   P pixel values of a patch   E embedding width

    >>> from longvit.model import LongViT, PRESETS
    >>> encoder = LongViT(PRESETS["longvit_tiny"])
"""

from longvit.config import PRESETS as PRESETS
from longvit.model.attention.dilated import dilated_attention as dilated_attention
from longvit.model.checkpoint import load_encoder as load_encoder
from longvit.model.checkpoint import save_encoder as save_encoder
from longvit.model.decoder import LongNetDecoder as LongNetDecoder
from longvit.model.encoder import LongViT as LongViT
from longvit.model.official import load_official as load_official
from longvit.model.pooling import mean_pool as mean_pool
