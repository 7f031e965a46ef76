"""LongViT: gigapixel whole-slide images to slide representations, subtypes and survival.

    slide -> (preprocessing) store -> (tokens) TokenBatch -> (model) LongViT -> representation
    stores -> (pretraining) encoder;  encoder + labels -> (finetuning) predictions.csv -> (evaluation) report

Importing this package loads no heavy library: the command line must answer `--help` without torch.
"""

__version__ = "0.2.0"
