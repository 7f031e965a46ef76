"""A third task, in one file: one logit for two classes. Run as a script, it adds itself to the registry.

The arguments are commands of `longvit`, one text each.
"""

import shlex
import sys
from collections.abc import Sequence
from typing import Literal

from longvit.tasks.task import Classes, LabelTask, Statistics, Table, Target, Tensor


class BinaryTask(LabelTask):
    """Is this slide of the second class?"""

    kind: Literal["binary"] = "binary"
    """One logit for two classes."""
    sharpness: float = 1.0
    """A setting of its own: factor of the logit."""

    def outputs(self, classes: Classes) -> int:
        """Return one output."""
        return 1

    def loss(self, outputs_NO: Tensor, patients: Sequence[Target], statistics: Statistics) -> Tensor:
        """Return the binary cross-entropy; positives are weighted by `odds` of the statistics."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        positive_N = outputs_NO.new_tensor([patient.label for patient in patients])
        odds = outputs_NO.new_tensor(statistics["odds"])
        return binary_cross_entropy_with_logits(self.sharpness * outputs_NO[:, 0], positive_N, pos_weight=odds)

    def predictions(self, output_O: Tensor, classes: Classes) -> dict[str, float]:
        """Return the probability of each class."""
        positive = (self.sharpness * output_O[0].double()).sigmoid().item()
        return {f"p_{classes[0]}": 1 - positive, f"p_{classes[1]}": positive}

    def score(self, outputs_NO: Tensor, index: int) -> Tensor:
        """Return the logit of a class."""
        return outputs_NO[:, 0] * (1 if index else -1)

    def fit(self, targets: Table, classes: Classes) -> Statistics:
        """Return the odds of the first class."""
        positives = int((targets["label"] == classes[1]).sum())
        return {"odds": ((len(targets) - positives) / positives,)}

    def sizes(self, classes: Classes) -> dict[str, int]:
        """Return one number."""
        return {"odds": 1}


if __name__ == "__main__":
    import longvit.tasks

    longvit.tasks.TASKS += (BinaryTask,)  # the line that a third task adds to the registry

    from longvit.cli.app import run_command

    sys.exit(max(run_command(shlex.split(command)) for command in sys.argv[1:]))
