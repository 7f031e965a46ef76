"""Subtyping: a logit for each class, and cross-entropy."""

from collections.abc import Sequence
from typing import Literal

from longvit.tasks.task import Classes, LabelTask, Statistics, Table, Target, Tensor
from preprocessing.config import Share


class SubtypeTask(LabelTask):
    """Subtyping: predicts the class of a slide, with cross-entropy as loss."""

    kind: Literal["subtype"] = "subtype"
    """Subtyping."""
    label_smoothing: Share = 0.0
    """Label smoothing of the cross-entropy."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weights each training patient by the inverse of the class's share, so that rare classes count as much
    as common classes."""

    def outputs(self, classes: Classes) -> int:
        """Return one output for each class, its logit."""
        return len(classes)

    def loss(self, outputs_NO: Tensor, patients: Sequence[Target], statistics: Statistics) -> Tensor:
        """Return the cross-entropy, with classes weighted by `class_weights` of the statistics."""
        from longvit.tasks.losses import cross_entropy

        labels_N = outputs_NO.new_tensor([patient.label for patient in patients]).long()
        weights = outputs_NO.new_tensor(statistics["class_weights"]) if "class_weights" in statistics else None
        return cross_entropy(outputs_NO, labels_N, weights, label_smoothing=self.label_smoothing)

    def predictions(self, output_O: Tensor, classes: Classes) -> dict[str, float]:
        """Return the probability of each class."""
        return {f"p_{name}": p.item() for name, p in zip(classes, output_O.double().softmax(0), strict=True)}

    def fit(self, targets: Table, classes: Classes) -> Statistics:
        """Return `class_weights`: the inverse share of each class over the number of classes, 1 on average."""
        if self.class_weights == "none":
            return {}
        counts = targets["label"].value_counts()
        return {"class_weights": tuple(float(len(targets) / (len(classes) * counts[name])) for name in classes)}

    def sizes(self, classes: Classes) -> dict[str, int]:
        """Return one weight for each class."""
        return {"class_weights": len(classes)}
