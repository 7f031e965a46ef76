"""The training loop, and the files that a training writes."""
