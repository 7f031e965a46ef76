"""Evaluation of predictions: predictions.csv -> metrics and a report. Free of torch and of models.

    predictions.csv -> (predictions) rows of patients -> (folds) metrics.json -> (figures, report) report.html

`metrics` and `survival` score arrays; `intervals` scores a thousand bootstrap resamples of the arrays at once.
"""

from longvit.evaluation.folds import evaluate_predictions as evaluate_predictions
from longvit.evaluation.metrics import classification_metrics as classification_metrics
from longvit.evaluation.survival import survival_metrics as survival_metrics
