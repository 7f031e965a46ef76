"""Language-model half of LongNet (arXiv:2307.02486): a decoder with causal dilated attention."""

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import linear

from longvit.config import EncoderConfig, ExecutionConfig
from longvit.model.attention.plan import AttentionPlan
from longvit.model.encoder import Encoder
from longvit.model.rank_group import RankGroup


class LongNetDecoder(nn.Module):
    """Language model: symbols -> logits of the next symbol, each from the symbols up to its own place.

    The blocks are the encoder's, and rotate queries and keys by the symbols' places. The embedding of the symbols also
    gives the logits.
    """

    execution = ExecutionConfig()
    """Execution settings, as in `LongViT`."""
    group: RankGroup | None = None
    """Ranks that hold each sequence together, as in `LongViT`."""

    def __init__(self, config: EncoderConfig, vocabulary: int) -> None:
        """Build the decoder; `input` and `position` of the config are not used.

        Args:
            config: Width, depth, heads, segments and so on.
            vocabulary: Number of symbols V.
        """
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocabulary, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.blocks = Encoder(config)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, symbols_BL: Int64[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Return the logits of the symbol after each symbol."""
        plan = AttentionPlan.of_tokens(self.config, symbols_BL, None, self.execution, self.group, causal=True)
        return linear(self.norm(self.blocks(self.embedding(symbols_BL), plan)), self.embedding.weight)
