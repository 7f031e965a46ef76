"""Findings of an audit: sentences with names, which stop a run unless the user accepts them."""

from collections.abc import Sequence

from longvit.formats.audit_json import Finding
from preprocessing.errors import CohortError, ConfigError, few, printable

CATEGORIES = {
    "leak": "patients in two parts of a fold",
    "missing-slides": "names in the splits that the table does not contain",
    "no-store": "slides of the cohort without a store",
    "duplicate": "slides whose files are identical",
    "alike": "patients in two parts whose names differ only in spelling",
    "alike-labels": "classes whose names differ only in case or white space",
    "time-unit": "times that are implausible in the stated unit",
    "censoring": "a status that is likely turned round",
}
"""Category of a finding that stops a run -> its meaning. Entries of `accept` start with a category."""

FATAL = {"untrainable": "folds from whose training part nothing can be learned"}
"""Category of a finding that cannot be accepted, and that `finetune` refuses by itself -> its meaning."""

NOTES = {
    "left-out": "patients without the label or the endpoint",
    "alike-names": "patients of one part whose names differ only in spelling",
    "rare": "classes of fewer than two patients",
    "moved": "patients moved to one part",
    "site-overlap": "held-out patients from hospitals seen in training",
    "held-out-again": "patients held out in several folds",
    "one-sided": "a part without one of the classes, or without events",
    "unlabelled-stores": "stores of slides that the table does not contain",
    "unassigned": "patients in no part of a fold",
}
"""Category of a finding that does not stop a run -> its meaning."""


class FindingCollector:
    """Collector of findings, with the entries that the user accepts.

    Args:
        accept: `category` or `category:name`, as the user gave them.

    Raises:
        ConfigError: An entry names a category that does not exist.
    """

    def __init__(self, accept: Sequence[str]) -> None:
        strangers = [entry[:60] for entry in accept if entry.split(":")[0] not in CATEGORIES]
        if strangers:
            what = f"accept has entries of no category of the audit: {', '.join(strangers)}"
            raise ConfigError(what, where="accept", fix=f"the categories are {', '.join(CATEGORIES)}")
        self.accept = tuple(accept)
        self.findings: list[Finding] = []

    def accepted(self, category: str, names: Sequence[str]) -> list[str]:
        """Return the names that the user accepted."""
        accept = set(self.accept)
        return [name for name in names if {category, f"{category}:{name}"} & accept]

    def find(self, category: str, names: Sequence[str], what: str, *, where: object, fix: str) -> None:
        """Add one finding for the accepted names and one for the other names, if there are any.

        Args:
            category: One of `CATEGORIES`.
            names: Patients, slides or classes that the finding is about.
            what: Sentence, with `{n}` for the number of names and `{names}` for the first of them; other braces are
                doubled.
            where: File or folder.
            fix: Action for the user, other than accepting.
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
        """Add a note, if there are names; arguments as in `find`."""
        if names:
            self._add(category, "note", names, what, where, fix)

    def _add(self, category: str, level: str, names: Sequence[str], what: str, where: object, fix: str) -> None:
        what, at = what.format(n=len(names), names=few(list(names))), printable(str(where))
        self.findings.append(Finding(category=category, level=level, what=what, where=at, fix=fix, names=tuple(names)))

    @property
    def used(self) -> tuple[str, ...]:
        """Return the entries of `accept` that accepted a finding."""
        met = {f"{f.category}:{name}" for f in self.findings if f.level == "accepted" for name in f.names}
        return tuple(entry for entry in self.accept if entry in met or entry in {one.split(":")[0] for one in met})


def refuse(findings: Sequence[Finding], where: object) -> None:
    """Stop the run if a finding is an error.

    Raises:
        CohortError: The only error, or all errors, each in a note.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if len(errors) == 1:
        raise CohortError(errors[0].what, where=errors[0].where, fix=errors[0].fix)
    if errors:
        fixes = "\n         ".join(dict.fromkeys(error.fix for error in errors))
        refusal = CohortError(f"the audit of this cohort found {len(errors)} errors", where=where, fix=fixes)
        for error in errors:
            refusal.add_note(f"{error.what} ({error.where})")
        raise refusal
