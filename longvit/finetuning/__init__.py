"""Finetuning: encoder + labels -> models that predict subtype or survival, one per fold, and their predictions."""
