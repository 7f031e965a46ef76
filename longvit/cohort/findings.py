"""What an audit finds: sentences with names, refused unless the user accepts them."""

from collections.abc import Sequence

from longvit.formats.audit_json import Finding
from preprocessing.errors import CohortError, ConfigError, few, printable

CATEGORIES = {
    "leak": "patients in two parts of a fold",
    "missing-slides": "names in the splits that the table does not have",
    "no-store": "slides of the cohort without a store",
    "duplicate": "slides whose files are equal to the byte",
    "time-unit": "times that no follow-up in the stated unit has",
}
"""Category of a finding that stops a run -> what it holds. The first word of `accept`."""

NOTES = {
    "moved": "patients put into one part",
    "site-overlap": "held-out patients from hospitals seen in training",
    "held-out-again": "patients held out in several folds",
    "one-sided": "a part without one of the classes, or without events",
    "unlabelled-stores": "stores of slides that the table does not have",
    "unassigned": "patients in no part of a fold",
}
"""Category of a finding that only wants to be read -> what it holds."""


class Judge:
    """Decides which findings stop the run, and remembers what was accepted on the way.

    Args:
        accept: `category` or `category:name`, as the user gave them.

    Raises:
        ConfigError: There is no such category.
    """

    def __init__(self, accept: Sequence[str]) -> None:
        strangers = [entry[:60] for entry in accept if entry.split(":")[0] not in CATEGORIES]
        if strangers:
            what = f"accept names {', '.join(strangers)}, which the audit does not know"
            raise ConfigError(what, where="accept", fix=f"the categories are {', '.join(CATEGORIES)}")
        self.accept = tuple(accept)
        self.findings: list[Finding] = []

    def accepted(self, category: str, names: Sequence[str]) -> list[str]:
        """Those of the names that the user accepted."""
        accept = set(self.accept)
        return [name for name in names if {category, f"{category}:{name}"} & accept]

    def find(self, category: str, names: Sequence[str], what: str, *, where: object, fix: str) -> None:
        """Add a finding for the names that were accepted and one for the others, where there are any.

        Args:
            category: One of `CATEGORIES`.
            names: What it is about.
            what: The sentence, with `{n}` for the number of names and `{names}` for the first of them; other braces are
                doubled.
            where: File or folder.
            fix: What the user does about it, other than accepting.
        """
        accepted = self.accepted(category, names)
        taken = set(accepted)
        refused = [name for name in names if name not in taken]
        fix = f"{fix}; or --accept {category}"
        if refused:
            self._add(category, "error", refused, what, where, fix)
        if accepted:
            self._add(category, "accepted", accepted, what, where, fix)

    def note(self, category: str, names: Sequence[str], what: str, *, where: object, fix: str) -> None:
        """Add something to read, if there are names; arguments as those of `find`."""
        if names:
            self._add(category, "note", names, what, where, fix)

    def _add(self, category: str, level: str, names: Sequence[str], what: str, where: object, fix: str) -> None:
        what, at = what.format(n=len(names), names=few(list(names))), printable(str(where))
        self.findings.append(Finding(category=category, level=level, what=what, where=at, fix=fix, names=tuple(names)))

    @property
    def used(self) -> tuple[str, ...]:
        """Entries of `accept` that something was accepted for."""
        met = {f"{f.category}:{name}" for f in self.findings if f.level == "accepted" for name in f.names}
        return tuple(entry for entry in self.accept if entry in met or entry in {one.split(":")[0] for one in met})


def refuse(findings: Sequence[Finding], where: object) -> None:
    """Stop the run if a finding is an error.

    Raises:
        CohortError: The one finding, or all of them, each in a note.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if len(errors) == 1:
        raise CohortError(errors[0].what, where=errors[0].where, fix=errors[0].fix)
    if errors:
        fixes = "\n         ".join(dict.fromkeys(error.fix for error in errors))
        refusal = CohortError(f"the audit of this cohort refuses {len(errors)} things", where=where, fix=fixes)
        for error in errors:
            refusal.add_note(f"{error.what} ({error.where})")
        raise refusal
