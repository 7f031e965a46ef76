"""Cohort + splits + stores -> what is wrong with them, and the folds that may be trained on.

The published splits need it: all 30 of HIPT's subtyping folds have patients in two parts, and name slides that the
tables beside them do not have.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from longvit.cohort.findings import Finding, Judge, refuse
from longvit.cohort.follow_up import implausible
from longvit.cohort.patients import Cohort, read_cohort
from longvit.cohort.splits import Fold, Split, read_splits, to_fold
from longvit.config import PARTS, SplitsConfig, SurvivalTask
from preprocessing.errors import few
from preprocessing.store.store import find_stores, open_store


@dataclass(frozen=True)
class Audit:
    """What an audit leaves.

    Args:
        cohort: Without the slides that have no store, where that was accepted.
        folds: After the moves asked for. A patient accepted as a leak stands in both parts, with all slides.
        findings: In the order of the checks.
        accepted: Entries of `accept` that were needed.
        where: The folder of splits.
    """

    cohort: Cohort
    folds: list[Fold]
    findings: tuple[Finding, ...]
    accepted: tuple[str, ...]
    where: Path

    def refuse(self) -> None:
        """Stop here unless every finding that stops a run was accepted.

        Raises:
            CohortError: With the list of findings and what to do about each.
        """
        refuse(self.findings, self.where)

    @property
    def counts(self) -> list[dict]:
        """A row for each part of each fold: patients, slides, and patients of each class or with an event."""
        return [_count(self.cohort, fold, part) for fold in self.folds for part in PARTS if fold.parts[part]]

    def as_json(self) -> str:
        """The text of `audit.json`: findings, what was accepted, counts."""
        findings = [finding.as_json() for finding in self.findings]
        document = {"findings": findings, "accepted": self.accepted, "counts": self.counts}
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def audit(config: SplitsConfig) -> Audit:
    """Read the tables and splits that a config names, and look for everything that would make a result untrue.

    Args:
        config: Tables, splits, stores (without them slides are not compared with any), and what is accepted.

    Raises:
        CohortError: A table or a split cannot be read; what it says is for `Audit.refuse`.
        ConfigError: `accept` names a category that is none.
        StoreError: There are no stores, or one is unfinished or cannot be read.
    """
    judge = Judge(config.accept)
    cohort = read_cohort(config.table, config.task, config.slide_table, config.site_column)
    _find_unit(config, cohort, judge)
    splits = read_splits(config.splits, config.folds)
    folds = [_sound_fold(split, cohort, config, judge) for split in splits]
    for split in splits:
        _find_strangers(split, cohort, judge)
    if config.stores is not None:
        stores = find_stores(config.stores)
        cohort = _with_stores(cohort, folds, stores, config.stores, judge)
        _find_duplicates(cohort, stores, config.stores, judge)
        _note_unlabelled(cohort, stores, config.stores, judge)
        folds = [_only(cohort, fold) for fold in folds]
    for split, fold in zip(splits, folds, strict=True):
        _note_fold(split, fold, cohort, judge)
    _note_held_out_again(folds, config.splits, judge)
    return Audit(cohort, folds, tuple(judge.findings), judge.used, config.splits)


def _find_unit(config: SplitsConfig, cohort: Cohort, judge: Judge) -> None:
    """Find times that no follow-up in the stated unit has."""
    if isinstance(config.task, SurvivalTask):
        found = implausible(cohort.targets["time"], config.task.time_unit)
        if found:
            said, likely = found
            fix = f"set the unit of the column, as --task.time-unit {likely} does" if likely else "check the column"
            what = f"column {{names}} has {said}"
            judge.find("time-unit", [config.task.time_column], what, where=config.table, fix=fix)


def _sound_fold(split: Split, cohort: Cohort, config: SplitsConfig, judge: Judge) -> Fold:
    """The fold, with leaks moved or found."""
    fold = to_fold(split, cohort)
    times = Counter(case for cases in fold.parts.values() for case in cases)
    leaks = sorted(case for case, parts in times.items() if parts > 1)
    leaking = set(leaks)
    home = config.move_leaks_to
    if leaks and home:
        what = f"{{n}} patients stood in two parts and were put into {home}: {{names}}"
        judge.note("moved", leaks, what, where=split.path, fix="none needed")
        parts = {
            part: tuple(c for c in cases if c not in leaking or part == home) for part, cases in fold.parts.items()
        }
        parts[home] += tuple(sorted(leaking - set(parts[home])))
        return replace(fold, **parts)
    for a, b in combinations(PARTS, 2):
        judge.find(
            "leak",
            sorted(set(fold.parts[a]) & set(fold.parts[b])),
            f"{{n}} patients are in both {a} and {b}: {{names}}",
            where=split.path,
            fix="leave all slides of a patient in one part, as --move-leaks-to train does",
        )
    return fold


def _find_strangers(split: Split, cohort: Cohort, judge: Judge) -> None:
    known = {*cohort.patient_of, *cohort.slides, *cohort.left_out}
    judge.find(
        "missing-slides",
        [name for names in split.parts.values() for name in names if name not in known],
        "the split names {n} slides or cases that the table does not have: {names}",
        where=split.path,
        fix="use the table these splits were made from, or remove the names",
    )


def _with_stores(
    cohort: Cohort, folds: Sequence[Fold], stores: Mapping[str, Path], folder: Path, judge: Judge
) -> Cohort:
    """The cohort without the slides that have no store, as far as that is accepted."""
    cases = sorted({case for fold in folds for part in fold.parts.values() for case in part})
    slides = [slide for case in cases for slide in cohort.slides[case]]
    missing = sorted(set(slides) - set(stores))
    judge.find(
        "no-store",
        missing,
        f"{{n}} of {len(slides)} slides have no store: {{names}}",
        where=folder,
        fix="tile them with `longvit tile`, or remove their patients from the splits",
    )
    return cohort.without(judge.accepted("no-store", missing))


def _only(cohort: Cohort, fold: Fold) -> Fold:
    return replace(fold, **{part: tuple(c for c in cases if c in cohort.slides) for part, cases in fold.parts.items()})


def _find_duplicates(cohort: Cohort, stores: Mapping[str, Path], folder: Path, judge: Judge) -> None:
    first: dict[str, str] = {}
    copies = {}
    for slide in sorted(set(cohort.patient_of) & set(stores)):
        sha256 = open_store(stores[slide]).source.sha256
        original = first.setdefault(sha256, slide) if sha256 else slide
        if original != slide:
            copies[slide] = original
    pairs = few([f"{copy} = {original}" for copy, original in copies.items()])
    judge.find(
        "duplicate",
        list(copies),
        "{n} slides have the file of another slide, by its sha256: " + pairs.replace("{", "{{").replace("}", "}}"),
        where=folder,
        fix="keep one of them in the table; two patients cannot share a slide",
    )


def _note_unlabelled(cohort: Cohort, stores: Mapping[str, Path], folder: Path, judge: Judge) -> None:
    judge.note(
        "unlabelled-stores",
        sorted(set(stores) - set(cohort.patient_of) - cohort.left_out),
        "{n} stores are of slides that the table does not have, and are not used: {names}",
        where=folder,
        fix="add their rows to the table, if they belong to the cohort",
    )


def _note_fold(split: Split, fold: Fold, cohort: Cohort, judge: Judge) -> None:
    """What is worth knowing of a fold that can be trained on: sites, classes, who is in no part."""
    held_out = fold.parts[fold.held_out]
    seen = {cohort.sites[case] for case in fold.train if case in cohort.sites}
    shared = [case for case in held_out if cohort.sites.get(case) in seen]
    judge.note(
        "site-overlap",
        sorted({cohort.sites[case] for case in shared}),
        f"{len(shared)} of {len(held_out)} {fold.held_out} patients come from {{n}} sites seen in training: {{names}}",
        where=split.path,
        fix="`longvit split --keep-sites-together` makes splits that ask for more than recognising a hospital",
    )
    for part in ("val", "test"):
        of_part = cohort.strata.loc[list(fold.parts[part])]
        wanted = cohort.classes if cohort.classes else (1,)
        absent = [str(name) if cohort.classes else "events" for name in wanted if not (of_part == name).any()]
        what = f"{part} has no patient of: {{names}}" if cohort.classes else f"{part} has no observed {{names}}"
        fix = "use stratified splits; metrics of this part are not defined"
        judge.note("one-sided", absent if len(of_part) else [], what, where=split.path, fix=fix)
    judge.note(
        "unassigned",
        sorted(set(cohort.slides) - {case for cases in fold.parts.values() for case in cases}),
        "{n} patients of the table are in no part: {names}",
        where=split.path,
        fix="none needed, if they were left out on purpose",
    )


def _note_held_out_again(folds: Sequence[Fold], where: Path, judge: Judge) -> None:
    times = Counter(case for fold in folds for case in fold.parts[fold.held_out])
    judge.note(
        "held-out-again",
        sorted(case for case, folds_of in times.items() if folds_of > 1),
        f"{{n}} of {len(times)} held-out patients are held out in several folds: {{names}}",
        where=where,
        fix="none needed; but folds that share patients vary less than as many cohorts would",
    )


def _count(cohort: Cohort, fold: Fold, part: str) -> dict:
    cases = list(fold.parts[part])  # type: ignore[index]
    row = {"fold": fold.index, "part": part, "patients": len(cases)}
    row["slides"] = sum(len(cohort.slides[case]) for case in cases)
    strata = cohort.strata.loc[cases]
    return (
        row
        | {name: int((strata == name).sum()) for name in cohort.classes}
        | ({} if cohort.classes else {"events": int(strata.sum())})
    )
