"""Masked modelling: restore hidden tokens from their places and from the visible tokens (MAE, SimMIM)."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from lightly.models.utils import mask_bool, normalize_mean_var
from torch import Tensor, nn
from torch.nn import functional as F

from longvit.config import EncoderConfig, MaskedConfig, PretrainConfig
from longvit.model import LongViT
from longvit.model.inputs import NOISE_LEVELS
from longvit.model.rank_group import SharedBatch
from longvit.pretraining.pretrain_module import PretrainModule, StepOutput
from longvit.pretraining.statistics import feature_statistics
from longvit.tokens.batch import TokenBatch
from longvit.training.mesh import current_mesh


class Restorer(nn.Module):
    """Encoder with a learned vector in place of each hidden token's content, and a head that restores the content."""

    def __init__(self, encoder: EncoderConfig, objective: MaskedConfig) -> None:
        super().__init__()
        self.encoder = LongViT(encoder)
        self.unknown_D = nn.Parameter(torch.empty(encoder.width))
        nn.init.normal_(self.unknown_D, std=0.02)
        self.head = nn.Sequential(
            nn.LayerNorm(encoder.width),
            nn.Linear(encoder.width, objective.decoder_width),
            nn.GELU(),
            nn.Linear(objective.decoder_width, encoder.input.width),
        )

    def forward(
        self, batch: TokenBatch, hidden_BL: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "N P"]]:
        """Return the slides' vectors, from visible tokens alone, and the restored content of the N hidden tokens.

        In a mesh, these are the slides of this rank, and the hidden tokens of its share of them.
        """
        content_BLD = mask_bool(self.encoder.content(batch), hidden_BL, self.unknown_D)
        tokens_BLD, slide_BD = self.encoder.encode(self.encoder.placed(content_BLD, batch), batch.mask_BL)
        return slide_BD, self.head(tokens_BLD[hidden_BL])


class MaskedModule(PretrainModule):
    """Training of an encoder and a head that restores hidden tokens; only the encoder is kept."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        assert isinstance(config.objective, MaskedConfig)
        self.hidden_share = config.objective.hidden_share
        self.restorer = Restorer(config.encoder, config.objective)
        self.restorer.encoder.execution, self.restorer.encoder.group = config.execution, current_mesh().sequence

    @property
    def kept(self) -> LongViT:
        """Encoder without the head."""
        return self.restorer.encoder

    def step(self, views: list[TokenBatch]) -> StepOutput:
        """Return loss and logged numbers of one batch of views, each of which is a separate sample."""
        batch = TokenBatch.collate(views)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.batch_number)
        data = current_mesh().data
        shared = SharedBatch(data, len(views), len(batch.mask_BL)) if data else None
        hidden_BL = draw_hidden(batch.mask_BL, self.hidden_share, generator, shared)
        return masked_step(self.restorer, batch, hidden_BL, shared)


def draw_hidden(
    mask_BL: Bool[Tensor, "B L"], share: float, generator: torch.Generator, shared: SharedBatch | None = None
) -> Bool[Tensor, "B L"]:
    """Draw the hidden tokens: the same share of each slide, rounded, at least one token, and never padding.

    Args:
        mask_BL: True for real tokens.
        share: Share of tokens to hide.
        generator: Generator on the CPU for every device, so that every machine hides the same tokens.
        shared: Batch of several ranks, of which these are some slides: all ranks draw for all slides of the batch.
    """
    if shared is None:
        noise_BL = torch.rand(mask_BL.shape, generator=generator)
    else:
        longest = int(shared.group.max(torch.tensor(mask_BL.shape[1], device=mask_BL.device)))
        noise_BL = torch.rand(shared.total, longest, generator=generator)[shared.rows, : mask_BL.shape[1]]
    noise_BL = noise_BL.to(mask_BL.device).masked_fill(~mask_BL, torch.inf)
    number_B = (mask_BL.sum(dim=1) * share).round().clamp_min(1)
    return noise_BL.argsort(dim=1).argsort(dim=1) < number_B.unsqueeze(1)


def masked_step(
    restorer: Restorer, batch: TokenBatch, hidden_BL: Bool[Tensor, "B L"], shared: SharedBatch | None = None
) -> StepOutput:
    """Return the mean squared error of the restored tokens: 1 for a guess of the mean, 0 for perfect restoration.

    Args:
        restorer: Encoder with its head.
        batch: Slides or crops.
        hidden_BL: True for hidden tokens of the batch.
        shared: Batch of several ranks, of which these are some slides; the mean is over the tokens of all ranks.

    Returns:
        The loss, with the statistics of the slides' features, which depend on visible tokens alone.
    """
    encoder = restorer.encoder
    encoder.batch = shared
    try:
        batch, hidden_BL = encoder.share_of(batch), encoder.share_of(replace(batch, mask_BL=hidden_BL)).mask_BL
        features_BD, restored_NP = restorer(batch, hidden_BL)
    finally:
        encoder.batch = None
    content_NP = hidden_content(batch, hidden_BL)
    groups = [group for group in (encoder.group, shared and shared.group) if group]
    if not groups:
        return StepOutput(F.mse_loss(restored_NP, content_NP), feature_statistics(features_BD.detach()))
    total, count = F.mse_loss(restored_NP, content_NP, reduction="sum"), hidden_BL.sum() * content_NP.shape[1]
    for group in groups:
        total, count = group.sum(total), group.sum(count)
    features_BD = shared.gathered(features_BD.detach()) if shared else features_BD.detach()
    return StepOutput(total / count, feature_statistics(features_BD))


def hidden_content(batch: TokenBatch, hidden_BL: Bool[Tensor, "B L"]) -> Float[Tensor, "N P"]:
    """Return the content to restore: each hidden token minus its own mean, divided by its own deviation, as in MAE.

    Pixels are grey levels, and a scanner's noise in an empty patch is not amplified. Embeddings have any scale, so only
    a tiny constant is added to their variance.
    """
    content_NP = batch.x[hidden_BL]
    noise = 1e-3 if content_NP.is_floating_point() else NOISE_LEVELS
    return normalize_mean_var(content_NP.float(), eps=noise**2)
