"""Predictions of a run's models for new slides."""
