"""Survival by comparing hazards between patients: one log hazard, and Cox's partial likelihood."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import PositiveInt

from longvit.tasks.task import Array, Classes, Statistics, SurvivalTask, Table, Target, TargetProblem, Tensor

_WITHOUT_VAL = "set select: last, which needs no loss on val"


class CoxTask(SurvivalTask):
    """Survival by the Cox partial likelihood (Cox 1972), with Efron's ties."""

    quantity: ClassVar[str] = "log hazard"

    kind: Literal["cox"] = "cox"
    """Survival, by comparing hazards between patients."""
    min_events: PositiveInt = 2
    """Smallest number of observed events in every window of patients."""

    def outputs(self, classes: Classes) -> int:
        """Return one output, the log hazard."""
        return 1

    def loss(self, outputs_NO: Tensor, patients: Sequence[Target], statistics: Statistics) -> Tensor:
        """Return the negative log partial likelihood, mean over events."""
        from longvit.tasks.losses import cox_loss

        time_N = outputs_NO.new_tensor([patient.time for patient in patients])
        return cox_loss(outputs_NO[:, 0], time_N, outputs_NO.new_tensor([patient.event for patient in patients]).bool())

    def predictions(self, output_O: Tensor, classes: Classes) -> dict[str, float]:
        """Return the log hazard as `risk`."""
        return {"risk": output_O.item()}

    def problem(self, targets: Table, part: str, classes: Classes) -> TargetProblem | None:
        """Return a problem if events are too few, or if all other patients are censored before the first event.

        In the second case no patient is still at risk at the first event, and the likelihood is constant.
        """
        event, needed = targets["event"] == 1, self.min_events if part == "train" else 1
        if event.sum() < needed:
            last = "lower task.min_events" if part == "train" else _WITHOUT_VAL
            return TargetProblem(
                f"has {event.sum()} observed events in {part}, fewer than {needed}",
                f"use splits stratified by event, leave the fold out with folds, or {last}",
            )
        first = targets.loc[event, "time"].min()
        if not ((targets["time"] > first) | ((targets["time"] == first) & ~event)).any():
            return TargetProblem(
                f"has no patient in {part} still at risk at the first event: all are censored before it",
                "check the time column, use splits stratified by event, or leave the fold out with folds"
                + ("" if part == "train" else f", or {_WITHOUT_VAL}"),
            )
        return None

    def most_windows(self, strata: Array) -> int:
        """Return the number of windows that contain `min_events` observed events each."""
        return int(strata.sum()) // self.min_events
