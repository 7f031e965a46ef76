"""Training loop, and the files that a training run writes."""
