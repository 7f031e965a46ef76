"""Synthetic cohorts of slides with known labels, for the demo and the tests."""
