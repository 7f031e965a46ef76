"""Pretraining of an encoder on stores without labels: views of slides, and an objective that compares the views."""
