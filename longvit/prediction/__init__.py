"""Predictions of a run's models on new slides."""
