"""Rows of predictions.csv, from a model and patients."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from longvit.config import Task
from longvit.finetuning.data import PatientDataset
from longvit.formats.predictions_csv import TIME_UNIT, sequence_columns
from longvit.model.outputs import require_finite
from longvit.model.predictor import SlideModel
from longvit.training.mesh import current_mesh


@torch.inference_mode()
def predict_sequences(
    model: SlideModel, patients: PatientDataset, device: torch.device, marks: Mapping[str, object]
) -> list[dict]:
    """Return a row for each sequence: one per slide with late fusion, one per patient with early fusion.

    Args:
        model: The model; it is moved to the device and into evaluation mode.
        patients: Patients to predict; their targets, if known, become columns next to the predictions.
        device: Device to compute on.
        marks: Further columns, the same in every row, such as fold and split.

    Returns:
        Rows with `patient_id`, `slide_id`, the marks, the targets (for survival with `time_unit`), and `p_<class>` for
        each class, or `risk`. The ids of a sequence's slides are joined by `;`.
    """
    model.eval().to(device)
    sequences = [(case, slides) for case in patients.patients for slides in patients.sequences(case)]
    data, own = current_mesh().data, range(len(sequences))[current_mesh().data_part]
    outputs_NO = torch.empty(len(own), model.head.linear.out_features, device=device)
    for row_O, i in zip(outputs_NO, own, strict=True):
        row_O[:] = model(patients.read(sequences[i][1]).to(device))[0].float()
        require_finite(row_O, sequence_columns(*sequences[i])["slide_id"])
    outputs_NO = outputs_NO if data is None else data.spread(outputs_NO, own, len(sequences))
    rows = []
    for (case, slides), output_O in zip(sequences, outputs_NO.cpu(), strict=True):
        keys = {**sequence_columns(case, slides), **marks}
        target = truth(patients.targets, case, model.task)
        rows.append(keys | target | model.task.predictions(output_O, model.classes))
    return rows


def truth(targets: pd.DataFrame, case: str, task: Task) -> dict[str, Any]:
    """Return the targets of a patient as columns of predictions.csv, with the unit of the time."""
    unit = {TIME_UNIT: task.unit} if "time" in targets else {}
    return targets.loc[case].to_dict() | unit
