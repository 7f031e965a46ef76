"""The errors that a user causes and can mend: what happened, where, and how to fix it."""

from collections.abc import Sequence
from functools import partial

MAX_NAME = 200
"""Characters of a name that a message cites."""


def short(text: str, longest: int = MAX_NAME) -> str:
    """Return the beginning of a text, with dots where it goes on."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def few(texts: Sequence[str], most: int = 5, separator: str = ", ", longest: int = MAX_NAME) -> str:
    """Name the first of some texts, each as `short` has it, and say how many more there are.

    >>> few(["a", "b", "c", "d"], 2), few(["a is empty", "b is empty", "c is empty"], 2, "; ")
    ('a, b and 2 more', 'a is empty; b is empty; and 1 more')
    """
    more = f"{separator.strip(', ')} and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(short(text, longest) for text in texts[:most]) + more


def printable(text: str) -> str:
    """Text with its control characters as escapes: a library may cite a damaged file, and no terminal may obey it."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class PipelineError(Exception):
    """Something the user can fix; the command line prints it without a traceback and exits with 2.

    Args:
        what: What happened, one sentence.
        where: File, slide, key or line.
        fix: What the user does about it.
    """

    def __init__(self, what: str, *, where: object, fix: str) -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = printable(what), where, fix

    def __reduce__(self) -> tuple:
        """How it comes out of another process: with its words and notes."""
        return partial(type(self), where=self.where, fix=self.fix), (self.what,), vars(self)

    def __str__(self) -> str:
        notes = "".join(f"\n  note:  {note}" for note in getattr(self, "__notes__", ()))
        return printable(f"{self.what}\n  where: {self.where}\n  fix:   {self.fix}{notes}")


class SlideError(PipelineError):
    """A slide that cannot be read, or does not say what is needed (its resolution, above all)."""


class StoreError(PipelineError):
    """A patch store that is missing, unfinished, or breaks the schema."""


class BusyError(StoreError):
    """A store or a folder that another process is writing at this moment."""


class VersionError(StoreError):
    """A patch store of a schema version that this program does not read."""


class CohortError(PipelineError):
    """A table of slides, a clinical table or a split that cannot be used as it is."""


class ConfigError(PipelineError):
    """A setting that does not exist or has a value that cannot be used."""


class TrainingError(PipelineError):
    """A training that cannot go on, because its loss, weights or representations are no longer finite."""


class OutputError(PipelineError):
    """A result that the system cannot write: no room, no permission, a read-only file system, a name too long."""


class CheckpointError(PipelineError):
    """A file of weights that is missing, damaged, or of another shape."""
