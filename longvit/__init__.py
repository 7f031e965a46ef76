"""LongViT: gigapixel whole-slide images to slide representations, subtypes and survival.

    slide -> (preprocessing) store -> (tokens) TokenBatch -> (model) LongViT -> representation
    stores -> (pretraining) encoder;  encoder + labels -> (finetuning) predictions.csv -> (evaluation) report

Importing this package loads no heavy library: the command line must answer `--help` without torch. The stages are
imported when they are first used, and shown by the completion of names: `longvit.finetuning.run`.
"""

from preprocessing.jobs.lazy_names import lazy_names

__version__ = "0.2.0"

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        room: f"longvit.{room}"
        for room in (
            *("cohort", "config", "encoding", "evaluation", "explanation", "finetuning", "formats", "model"),
            *("prediction", "pretraining", "tasks", "tokens", "viewer"),
        )
    },
)
