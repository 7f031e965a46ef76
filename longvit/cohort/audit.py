"""Verb `audit`: faults of a cohort and its splits, found before anything is trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from longvit.cohort.checks import Audit, audit_splits, untrainable
from longvit.cohort.findings import CATEGORIES, FATAL, NOTES
from longvit.cohort.follow_up import describe_follow_up
from longvit.cohort.patients import Cohort
from longvit.cohort.splits import Fold, count_parts, write_folds
from longvit.config import AuditConfig
from longvit.formats.audit_json import write_audit
from preprocessing.errors import printable

_STYLES = {"error": "bold red", "accepted": "yellow", "note": "dim"}


def run(config: AuditConfig) -> Audit:
    """Audit a cohort and print its findings; write `audit.json` and the corrected splits if `out` is given.

    Raises:
        CohortError: A table or a split cannot be read, or `out` already contains other splits.
        ConfigError: `accept` names a category that does not exist.
        StoreError: The folder of stores contains no store, or a store cannot be read.
    """
    sound = audit_splits(config)
    result = replace(sound, findings=(*sound.findings, *untrainable(sound)))
    if config.out is not None:
        if config.move_leaks_to:
            write_folds(config.out, result.folds, result.cohort)
        config.out.mkdir(parents=True, exist_ok=True)
        write_audit(config.out, result.file)
    print_findings(result, Console())
    return result


def print_findings(result: Audit, console: Console) -> None:
    """Print the counts of every part, the findings by category with their meaning and their fixes, and a verdict."""
    print_counts(result.cohort, result.folds, console)
    for category, meaning in (CATEGORIES | FATAL | NOTES).items():
        findings = [finding for finding in result.findings if finding.category == category]
        if findings:
            console.print(f"\n[bold]{category}[/]: {meaning}", highlight=False)
        for finding in findings:
            level = f"[{_STYLES[finding.level]}]{finding.level:8}[/]"
            where = Path(finding.where).name
            console.print(f"  {level} {escape(printable(f'{where}: {finding.what}'))}", highlight=False, soft_wrap=True)
        for fix in dict.fromkeys(finding.fix for finding in findings if finding.level != "accepted"):
            console.print(f"  fix: {escape(printable(fix))}", highlight=False, soft_wrap=True)
    console.print(f"\nverdict: {result.verdict}", highlight=False, soft_wrap=True)


def print_counts(cohort: Cohort, folds: Sequence[Fold], console: Console) -> None:
    """Print the patients, slides and classes or events of every part, and the follow-up."""
    rows = count_parts(cohort, folds)
    table = Table(*map(escape, rows[0]), box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)
    if cohort.task.unit:
        times, event = cohort.targets["time"], cohort.targets["event"]
        console.print(describe_follow_up(times, event, cohort.task.unit), highlight=False, soft_wrap=True)
