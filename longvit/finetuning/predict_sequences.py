"""Rows of predictions.csv, from a model and patients."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from longvit.config import Task
from longvit.finetuning.data import PatientDataset
from longvit.formats.predictions_csv import TIME_UNIT, sequence_columns
from longvit.model.outputs import require_finite
from longvit.model.predictor import SlideModel
from longvit.training.mesh import current_mesh


class Predicted(NamedTuple):
    """Predictions of a model, and its representations of the same sequences."""

    rows: list[dict]
    """Rows of predictions.csv."""
    vectors_ND: Float[Tensor, "N D"]
    """Input of the head for each row, float32 on the CPU."""


def predict_sequences(
    model: SlideModel, patients: PatientDataset, device: torch.device, marks: Mapping[str, object]
) -> list[dict]:
    """Return the rows of `predict_and_represent`."""
    return predict_and_represent(model, patients, device, marks).rows


@torch.inference_mode()
def predict_and_represent(
    model: SlideModel, patients: PatientDataset, device: torch.device, marks: Mapping[str, object]
) -> Predicted:
    """Return a row and a vector for each sequence: one per slide with late fusion, one per patient with early fusion.

    Args:
        model: The model; it is moved to the device and into evaluation mode.
        patients: Patients to predict; their targets, if known, become columns next to the predictions.
        device: Device to compute on.
        marks: Further columns, the same in every row, such as fold and split.

    Returns:
        Rows with `patient_id`, `slide_id`, the marks, the targets (for survival with `time_unit`), and `p_<class>` for
        each class, or `risk`, with their vectors. The ids of a sequence's slides are joined by `;`.
    """
    model.eval().to(device)
    sequences = [(case, slides) for case in patients.patients for slides in patients.sequences(case)]
    data, own = current_mesh().data, range(len(sequences))[current_mesh().data_part]
    found_NX = torch.empty(len(own), model.head.linear.out_features + model.width, device=device)  # outputs, vector
    for row_X, i in zip(found_NX, own, strict=True):
        vector_BD = model.represent(patients.read(sequences[i][1]).to(device))
        output_O = model.head(vector_BD)[0].float()
        require_finite(output_O, sequence_columns(*sequences[i])["slide_id"])
        row_X[:] = torch.cat([output_O, vector_BD[0].float()])
    found_NX = (found_NX if data is None else data.spread(found_NX, own, len(sequences))).cpu()
    outputs_NO, vectors_ND = found_NX.tensor_split([model.head.linear.out_features], dim=1)
    rows = []
    for (case, slides), output_O in zip(sequences, outputs_NO, strict=True):
        keys = {**sequence_columns(case, slides), **marks}
        target = truth(patients.targets, case, model.task)
        rows.append(keys | target | model.task.predictions(output_O, model.classes))
    return Predicted(rows, vectors_ND)


def truth(targets: pd.DataFrame, case: str, task: Task) -> dict[str, Any]:
    """Return the targets of a patient as columns of predictions.csv, with the unit of the time."""
    unit = {TIME_UNIT: task.unit} if "time" in targets else {}
    return targets.loc[case].to_dict() | unit
