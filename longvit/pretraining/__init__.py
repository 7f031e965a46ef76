"""Stores -> encoder, without labels: views of slides, and an objective that compares them."""
