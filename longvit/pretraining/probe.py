"""Value of representations during training: k-NN and a linear probe on labelled slides."""

import math
from collections import Counter

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, Dataset

from longvit.cohort.slide_labels import LabelledSlides
from longvit.config import PretrainConfig, TokenInput
from longvit.pretraining.pretrain_module import PretrainModule
from longvit.pretraining.statistics import feature_statistics
from longvit.tokens.batch import TokenBatch
from longvit.tokens.order import raster_order
from longvit.tokens.source import token_source
from longvit.training.callbacks import Meter
from longvit.training.loop import loader_processes
from preprocessing.store.store import PatchStore, open_store


class Probe(Meter):
    """Probe of the encoder to keep: before the first step, every `probe.every` epochs, and after the last epoch.

    Writes `probe_knn` and `probe_linear` (AUROC on held-out patients, 0.5 is chance), and `probe_feature_std` and
    `probe_effective_rank` of the slides' vectors.

    Args:
        config: Settings of the probe, the input tokens, the seed of the folds, and the loader's workers.
        labelled: The labelled slides.
    """

    def __init__(self, config: PretrainConfig, labelled: LabelledSlides) -> None:
        self.config, self.labelled, self.measured = config, labelled, {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: PretrainModule) -> None:
        """Probe the untrained encoder, the baseline that a run must beat."""
        self.measured = self.measure(pl_module) if trainer.global_step == 0 else {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: PretrainModule) -> None:
        """Probe if a probe is due in this epoch."""
        done = trainer.current_epoch + 1
        due = done % self.config.probe.every == 0 or done == trainer.max_epochs
        self.measured = self.measure(pl_module) if due else {}

    def measure(self, module: PretrainModule) -> dict[str, float]:
        """Encode the labelled slides and measure both classifiers on their vectors."""
        probe = self.config.probe
        dataset = ProbeSlides(self.labelled, self.config.encoder.input, probe.tokens)
        slides = DataLoader(dataset, batch_size=None, **loader_processes(self.config.loader_workers))
        vectors_BD = torch.cat([module.represent(slide.to(module.device)).float().cpu() for slide in slides])
        neighbours = KNeighborsClassifier(min(probe.neighbours, len(vectors_BD) // 2), metric="cosine")
        judges = {"probe_knn": neighbours, "probe_linear": LogisticRegression(max_iter=5000)}
        measured = {
            name: held_out_auroc(vectors_BD.double().numpy(), self.labelled, judge, probe.folds, self.config.seed)
            for name, judge in judges.items()
        }
        return measured | {f"probe_{name}": value.item() for name, value in feature_statistics(vectors_BD).items()}


def held_out_auroc(
    vectors_BD: Float[np.ndarray, "B D"], labelled: LabelledSlides, judge: ClassifierMixin, folds: int, seed: int
) -> float:
    """Return the AUROC of a classifier on standardised vectors, for patients outside the classifier's training folds.

    A patient's probabilities are the mean over the patient's slides. With more than two classes, the AUROC is of each
    class against the rest, mean over the classes.
    """
    labels, patients = np.array(labelled.labels), np.array(labelled.patients)
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), judge)
    said = np.asarray(cross_val_predict(model, vectors_BD, labels, groups=patients, cv=split, method="predict_proba"))
    _, first, of_slide = np.unique(patients, return_index=True, return_inverse=True)
    mean = np.stack([np.bincount(of_slide, column) for column in said.T], axis=1) / np.bincount(of_slide)[:, None]
    if mean.shape[1] == 2:
        return float(roc_auc_score(labels[first], mean[:, 1]))
    return float(roc_auc_score(labels[first], mean, multi_class="ovr"))


def chance_error(labelled: LabelledSlides) -> float:
    """Return the standard error of a random classifier's AUROC, for the rarest class (Mann & Whitney 1947).

    It depends only on the numbers m and n of patients in and outside the class: sqrt((m + n + 1) / 12 m n).
    """
    label_of = dict(zip(labelled.patients, labelled.labels, strict=True))
    total, least = len(label_of), min(Counter(label_of.values()).values())
    return math.sqrt((total + 1) / (12 * least * (total - least)))


class ProbeSlides(Dataset[TokenBatch]):
    """Dataset that maps a labelled slide's index to at most `tokens` of its tokens, as a batch of one."""

    def __init__(self, labelled: LabelledSlides, source: TokenInput, tokens: int) -> None:
        self.stores, self.source, self.tokens = labelled.stores, source, tokens

    def __len__(self) -> int:
        return len(self.stores)

    def __getitem__(self, index: int) -> TokenBatch:
        return spread_tokens(open_store(self.stores[index]), self.source, self.tokens)


def spread_tokens(store: PatchStore, source: TokenInput, most: int) -> TokenBatch:
    """Return the tokens of tiles spread evenly over a slide, in raster order: at most `most`, but at least one tile.

    Raises:
        StoreError: The store cannot provide such tokens.
    """
    tokens = token_source(store, source)
    tiles = evenly(len(store), max(1, most // tokens.per_tile))
    x, rc = tokens.read(tiles), tokens.rc[tokens.of_tiles(tiles)]
    order = raster_order(rc)
    return TokenBatch.of_one(torch.from_numpy(x[order]), torch.from_numpy(rc[order].astype(np.int64)))


def evenly(n: int, most: int) -> np.ndarray:
    """Return at most `most` of the numbers 0 to n - 1, evenly spread."""
    return np.arange(n) if n <= most else np.arange(most) * n // most
