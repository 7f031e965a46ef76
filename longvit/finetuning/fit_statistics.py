"""Statistics of a model's training patients, and of no other patients, computed before the first step."""

import torch
from torch import Tensor

from longvit.finetuning.data import PatientDataset
from longvit.model.pooling import varies
from longvit.model.predictor import SlideModel
from longvit.training.mesh import current_mesh
from preprocessing.errors import StoreError

_SAME = (
    "the representations of all {} training sequences are the same, so that predictions are meaningless: check the "
    "slides (are they blank?), or use another encoder"
)


@torch.inference_mode()
def prepare(model: SlideModel, train: PatientDataset, device: torch.device) -> list[str]:
    """Compute class weights or bins from the targets, and mean and deviation from the slides, one slide at a time.

    Args:
        model: A new model; it is moved to the device.
        train: The training patients of a fold.
        device: Device to compute on.

    Returns:
        Sentences about problems that make the training meaningless; may be empty.

    Raises:
        StoreError: A slide's representation contains NaN or infinity.
    """
    model.statistics = model.task.fit(train.targets.loc[train.patients], model.classes)
    model.eval().to(device)
    sequences = [slides for case in train.patients for slides in train.sequences(case)]
    data, own = current_mesh().data, range(len(sequences))[current_mesh().data_part]
    vectors_BD = torch.empty(len(own), model.width, device=device)
    lengths_B, means_BD, variances_BD = vectors_BD.new_empty(len(own)), *(torch.empty_like(vectors_BD) for _ in "mv")
    for row, i in enumerate(own):
        encoded = model.encode(train.read(sequences[i]).to(device)).float()
        vectors_BD[row] = model.pool(encoded)[0]
        if not vectors_BD[row].isfinite().all():
            raise StoreError(
                "the encoder gives values that are not finite",
                where=", ".join(sequences[i]),
                fix="look for NaN in the store's embeddings, or in the checkpoint",
            )
        if model.attention is not None:
            lengths_B[row], means_BD[row], variances_BD[row] = _moments_of(encoded[0], model)
    if data is not None:
        tables = vectors_BD, lengths_B, means_BD, variances_BD
        vectors_BD, lengths_B, means_BD, variances_BD = (data.spread(x, own, len(sequences)) for x in tables)
    model.head.standardise_by(vectors_BD)
    if model.attention is not None:
        model.attention.standardise_by(*moments(lengths_B.cpu(), means_BD.cpu(), variances_BD.cpu()))
    same = not varies(vectors_BD.mean(dim=0), vectors_BD.std(dim=0, correction=0)).any()
    return [_SAME.format(len(vectors_BD))] if same else []


def _moments_of(tokens_LD: Tensor, model: SlideModel) -> tuple[Tensor, Tensor, Tensor]:
    """Return number, mean and variance of a sequence's tokens, of which the ranks of a group may have shares."""
    group = model.encoder.group if model.encoder else None
    if group is None:
        return torch.tensor(len(tokens_LD)), tokens_LD.mean(dim=0), tokens_LD.var(dim=0, correction=0)
    count = group.sum(tokens_LD.new_tensor(len(tokens_LD)))
    mean_D = group.sum(tokens_LD.sum(dim=0)) / count
    return count, mean_D, group.sum((tokens_LD - mean_D).square().sum(dim=0)) / count


def moments(lengths_N: Tensor, means_ND: Tensor, variances_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (D) of all tokens together, from each sequence's length, mean and variance."""
    share_N1 = (lengths_N.double() / lengths_N.sum())[:, None]
    mean_D = (share_N1 * means_ND).sum(dim=0)
    variance_D = (share_N1 * (variances_ND + (means_ND - mean_D) ** 2)).sum(dim=0)
    return mean_D.float(), variance_D.sqrt().float()
