"""Errors that a user can cause and fix. Each states what happened, where, and how to fix it."""

from collections.abc import Sequence
from functools import partial

MAX_NAME = 200
"""Maximum length of a name quoted in a message, characters."""


def short(text: str, longest: int = MAX_NAME) -> str:
    """Return a text, cut to `longest` characters and followed by three dots if it is longer."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def few(texts: Sequence[str], most: int = 5, separator: str = ", ", longest: int = MAX_NAME) -> str:
    """Join the first `most` texts, each cut by `short`, and append the number of texts left out.

    >>> few(["a", "b", "c", "d"], 2), few(["a is empty", "b is empty", "c is empty"], 2, "; ")
    ('a, b and 2 more', 'a is empty; b is empty; and 1 more')
    """
    more = f"{separator.strip(', ')} and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(short(text, longest) for text in texts[:most]) + more


def printable(text: str) -> str:
    """Return a text with its control characters escaped, except newlines.

    A library may quote the bytes of a damaged file, and a terminal must not execute them.
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class PipelineError(Exception):
    """Error that the user can fix. The command line prints it without a traceback and exits with code 2.

    Args:
        what: Description of the problem, one sentence.
        where: File, slide, key or line of the problem.
        fix: Action by which the user solves it.
    """

    said = False
    """True if the sentence has been printed, because a launcher may end this process before the command line does."""

    def __init__(self, what: str, *, where: object, fix: str) -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = printable(what), where, fix

    def __reduce__(self) -> tuple:
        """Return how to rebuild the error in another process, with its message and notes."""
        return partial(type(self), where=self.where, fix=self.fix), (self.what,), vars(self)

    def __str__(self) -> str:
        notes = "".join(f"\n  note:  {note}" for note in getattr(self, "__notes__", ()))
        return printable(f"{self.what}\n  where: {self.where}\n  fix:   {self.fix}{notes}")


class SlideError(PipelineError):
    """Slide that cannot be read or lacks required metadata, most often its resolution."""


class StoreError(PipelineError):
    """Patch store that is missing, unfinished, or violates the schema."""


class BusyError(StoreError):
    """Store or folder that another process is writing now."""


class VersionError(StoreError):
    """Patch store with a schema version that this program does not read."""


class CohortError(PipelineError):
    """Table of slides, clinical table or split that cannot be used in its present form."""


class ConfigError(PipelineError):
    """Setting that does not exist or whose value cannot be used."""


class TrainingError(PipelineError):
    """Training that cannot continue, because its loss, weights or representations are not finite."""


class OutputError(PipelineError):
    """Result that the system cannot write: full disk, missing permission, read-only file system, name too long."""


class CheckpointError(PipelineError):
    """File of weights that is missing, damaged, or does not fit the model."""


class RankError(PipelineError):
    """Process of a mesh that has stopped, so that the other processes cannot continue."""
