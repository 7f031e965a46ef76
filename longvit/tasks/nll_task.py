"""Survival by the hazard in each of a few time bins, and a discrete-time likelihood."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from longvit.tasks.task import Classes, Statistics, SurvivalTask, Table, Target, TargetProblem, Tensor
from preprocessing.config import Share


class NllTask(SurvivalTask):
    """Survival by the discrete-time likelihood (Zadeh and Schmid 2020), as in LongViT, MCAT and PORPOISE."""

    kind: Literal["nll"] = "nll"
    """Survival, by the hazard in each of a few time bins."""
    bins: int = Field(default=4, ge=2)
    """Number of time bins; each contains equally many of the training patients whose event was observed."""
    alpha: Share = 0.0
    """Emphasis of the loss on patients whose event was observed: 0 counts all patients alike, 1 counts only these."""

    def outputs(self, classes: Classes) -> int:
        """Return one output for each bin, the logit of its hazard."""
        return self.bins

    def loss(self, outputs_NO: Tensor, patients: Sequence[Target], statistics: Statistics) -> Tensor:
        """Return the negative log likelihood, for bins between `bin_edges` of the statistics."""
        from longvit.tasks.losses import nll_loss

        bins = [bisect_right(statistics["bin_edges"], patient.time) for patient in patients]
        event_N = outputs_NO.new_tensor([patient.event for patient in patients]).bool()
        return nll_loss(outputs_NO, outputs_NO.new_tensor(bins).long(), event_N, self.alpha)

    def predictions(self, output_O: Tensor, classes: Classes) -> dict[str, float]:
        """Return `risk`, higher for an earlier event."""
        return {"risk": self.score(output_O[None], 0).item()}

    def score(self, outputs_NO: Tensor, index: int) -> Tensor:
        """Return the risk, which depends on all bins; `index` has no effect."""
        from longvit.tasks.losses import nll_risk

        return nll_risk(outputs_NO)

    def fit(self, targets: Table, classes: Classes) -> Statistics:
        """Return `bin_edges`: the quantiles of the times of observed events; a time on an edge is in the later bin.

        The quantiles are of the training patients. In MCAT and LongViT they are of all patients, including held-out
        patients.
        """
        times = targets.loc[targets["event"] == 1, "time"].astype(float)
        return {"bin_edges": tuple(times.quantile([k / self.bins for k in range(1, self.bins)]).tolist())}

    def sizes(self, classes: Classes) -> dict[str, int]:
        """Return the number of edges between bins."""
        return {"bin_edges": self.bins - 1}

    def accepts(self, classes: Classes, statistics: Statistics) -> bool:
        """Return whether the statistics have the right sizes, and the edges are in order."""
        edges = list(statistics.get("bin_edges", ()))
        return super().accepts(classes, statistics) and edges == sorted(edges)

    def problem(self, targets: Table, part: str, classes: Classes) -> TargetProblem | None:
        """Return a problem if events or their different times are too few for the bins.

        Only training patients define the bins, so `part` must be `train` for a problem.
        """
        if part != "train":
            return None
        events = int((targets["event"] == 1).sum())
        if events < self.bins:
            return TargetProblem(
                f"has {events} observed events in train, fewer than {self.bins}, one for each bin of time",
                "use splits stratified by event, leave the fold out with folds, or lower task.bins",
            )
        if len(set(self.fit(targets, classes)["bin_edges"])) < self.bins - 1:
            return TargetProblem(
                f"has too few different times of events in train for {self.bins} bins", "lower task.bins"
            )
        return None
