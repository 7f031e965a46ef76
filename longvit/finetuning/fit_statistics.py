"""Statistics of a model's training patients, and of no other patients, computed before the first step."""

import torch
from torch import Tensor

from longvit.finetuning.data import PatientDataset
from longvit.model.pooling import varies
from longvit.model.predictor import SlideModel
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
    vectors, lengths, means, variances = [], [], [], []
    for case in train.patients:
        for slides in train.sequences(case):
            encoded = model.encode(train.read(slides).to(device)).float()
            vectors.append(model.pool(encoded))
            if not vectors[-1].isfinite().all():
                raise StoreError(
                    "the encoder gives values that are not finite",
                    where=", ".join(slides),
                    fix="look for NaN in the store's embeddings, or in the checkpoint",
                )
            if model.attention is not None:
                lengths.append(encoded.shape[1])
                means.append(encoded[0].mean(dim=0).cpu())
                variances.append(encoded[0].var(dim=0, correction=0).cpu())
    vectors_BD = torch.cat(vectors)
    model.head.standardise_by(vectors_BD)
    if model.attention is not None:
        model.attention.standardise_by(*moments(torch.tensor(lengths), torch.stack(means), torch.stack(variances)))
    same = not varies(vectors_BD.mean(dim=0), vectors_BD.std(dim=0, correction=0)).any()
    return [_SAME.format(len(vectors))] if same else []


def moments(lengths_N: Tensor, means_ND: Tensor, variances_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation (D) of all tokens together, from each sequence's length, mean and variance."""
    share_N1 = (lengths_N.double() / lengths_N.sum())[:, None]
    mean_D = (share_N1 * means_ND).sum(dim=0)
    variance_D = (share_N1 * (variances_ND + (means_ND - mean_D) ** 2)).sum(dim=0)
    return mean_D.float(), variance_D.sqrt().float()
