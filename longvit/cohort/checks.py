"""Cohort + splits + stores -> findings, and the folds that may be trained on.

The published splits need the checks: all 30 of HIPT's subtyping folds have patients in two parts, and name slides that
their tables do not contain.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from longvit.cohort.findings import FindingCollector, refuse
from longvit.cohort.follow_up import implausible, turned_round
from longvit.cohort.near_names import near_pairs, nearest
from longvit.cohort.patients import Cohort, read_cohort
from longvit.cohort.split_files import Split
from longvit.cohort.splits import Fold, count_parts, join_numbers, read_splits, to_fold
from longvit.cohort.tables import barcodes
from longvit.config import PARTS, SplitsConfig
from longvit.formats.audit_json import AuditFile, Finding
from longvit.runs.privacy import shareable_values
from preprocessing.errors import few
from preprocessing.store.piece import with_pieces
from preprocessing.store.store import find_stores, open_store

_LEVELS = {"error": "error", "accepted": "accepted finding", "note": "note"}
"""Level of a finding -> its word in a verdict."""


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Args:
        cohort: The cohort, without the slides that have no store if this was accepted.
        folds: Folds after the requested moves. A patient accepted as a leak is in both parts, with all slides.
        findings: Findings in the order of the checks.
        accepted: Entries of `accept` that were needed.
        where: The folder of splits.
    """

    cohort: Cohort
    folds: list[Fold]
    findings: tuple[Finding, ...]
    accepted: tuple[str, ...]
    where: Path

    def refuse(self) -> None:
        """Stop unless every finding that stops a run was accepted.

        Raises:
            CohortError: The list of findings, and the fix of each.
        """
        refuse(self.findings, self.where)

    @property
    def counts(self) -> list[dict]:
        """Return a row for each part of each fold: patients, slides, and patients of each class or with an event."""
        return count_parts(self.cohort, self.folds)

    @property
    def verdict(self) -> str:
        """Return one sentence: the number of findings of each level, and whether the splits can be trained on."""
        levels = Counter(one.level for one in self.findings)
        said = [f"{levels[level] or 'no'} {word}{'s' * (levels[level] != 1)}" for level, word in _LEVELS.items()]
        end = "`longvit finetune` refuses these splits" if levels["error"] else "these splits can be trained on"
        return f"{', '.join(said)}: {end}"

    @property
    def flow(self) -> tuple[tuple[str, int], ...]:
        """Return the numbers of patients after each step, from the table to the splits."""
        used = {case for fold in self.folds for cases in fold.parts.values() for case in cases}
        return (*self.cohort.flow, ("with a store", len(self.cohort.slides)), ("in the splits", len(used)))

    @property
    def file(self) -> AuditFile:
        """Content of `audit.json`, without folders of this machine."""
        findings = [one.model_copy(update={"where": shareable_values(one.where)}) for one in self.findings]
        return AuditFile(
            findings=tuple(findings),
            accepted=self.accepted,
            verdict=self.verdict,
            flow=self.flow,
            counts=tuple(self.counts),
        )


def audit_splits(config: SplitsConfig) -> Audit:
    """Read the tables and splits of a config, and find everything that would make a result untrue.

    Args:
        config: Tables, splits, stores and accepted findings. Without stores, slides are not compared with stores.

    Raises:
        CohortError: A table or a split cannot be read. Findings raise only in `Audit.refuse`.
        ConfigError: `accept` names a category that does not exist.
        StoreError: There are no stores, or a store is unfinished or cannot be read.
    """
    collector = FindingCollector(config.accept)
    stored = find_stores(config.stores) if config.stores is not None else {}
    cohort = read_cohort(config.table, config.task, config.slide_table, config.site_column, stored)
    collector.note(
        "left-out",
        cohort.unknown,
        f"{{n}} patients without {' and '.join(cohort.task.source_columns)} are left out: {{names}}",
        where=config.table,
        fix="none needed, if they were left out on purpose",
    )
    _find_unit(config, cohort, collector)
    _find_labels(config, cohort, collector)
    splits = [join_numbers(split, cohort) for split in read_splits(config.splits, config.folds)]
    folds = [_sound_fold(split, cohort, config, collector) for split in splits]
    _find_alike(folds, cohort, config, collector)
    for split in splits:
        _find_strangers(split, cohort, collector)
    if config.stores is not None:
        stores = with_pieces(stored, cohort.patient_of)
        cohort = _with_stores(cohort, folds, stores, config.stores, collector)
        _find_duplicates(cohort, stores, config.stores, collector)
        _note_unlabelled(cohort, stores, config.stores, collector)
        folds = [_only(cohort, fold) for fold in folds]
    for split, fold in zip(splits, folds, strict=True):
        _note_fold(split, fold, cohort, collector)
    _note_held_out_again(folds, config.splits, collector)
    return Audit(cohort, folds, tuple(collector.findings), collector.used, config.splits)


def untrainable(audit: Audit) -> list[Finding]:
    """Return an error for each fold from whose training part nothing can be learned: a class or events are missing."""
    cohort = audit.cohort
    problems = {
        fold.index: cohort.task.problem(cohort.targets.loc[list(fold.train)], "train", cohort.classes)
        for fold in audit.folds
    }
    paths = {fold.index: fold.path or audit.where for fold in audit.folds}
    return [
        Finding(category="untrainable", level="error", what=f"fold {k} {one.what}", where=str(paths[k]), fix=one.fix)
        for k, one in problems.items()
        if one
    ]


def _find_unit(config: SplitsConfig, cohort: Cohort, collector: FindingCollector) -> None:
    """Find times that are implausible in the stated unit."""
    if cohort.task.unit:
        found = implausible(cohort.targets["time"], cohort.task.unit)
        if found:
            said, likely = found
            fix = f"set the unit of the column, as --task.time-unit {likely} does" if likely else "check the column"
            what = f"column {{names}} has {said}"
            collector.find("time-unit", cohort.task.table_columns[:1], what, where=config.table, fix=fix)
        if said := turned_round(cohort.targets["time"], cohort.targets["event"]):
            what = f"column {{names}} may be turned round: {said}"
            fix = "check which value means the event: task.event_column is 1 for it, task.censorship_column is 0"
            collector.find("censoring", cohort.task.table_columns[1:2], what, where=config.table, fix=fix)


def _find_labels(config: SplitsConfig, cohort: Cohort, collector: FindingCollector) -> None:
    """Find classes that may be one, and note classes of a single patient."""
    same: dict[str, list[str]] = {}
    for name in cohort.classes:
        same.setdefault("".join(name.casefold().split()), []).append(name)
    where = f"{config.table}, column {cohort.task.table_columns[0]}"
    collector.find(
        "alike-labels",
        [name for names in same.values() if len(names) > 1 for name in names],
        "{n} classes differ only in case or white space: {names}",
        where=where,
        fix="write them alike in the table, or merge them with task.label_map",
    )
    counts = cohort.strata.value_counts()
    collector.note(
        "rare",
        [name for name in cohort.classes if counts.get(name, 0) < 2],
        "{n} classes have fewer than two patients: {names}",
        where=where,
        fix="leave them out with task.ignore, or merge them with task.label_map",
    )


def _find_alike(folds: Sequence[Fold], cohort: Cohort, config: SplitsConfig, collector: FindingCollector) -> None:
    """Find patients that may be one, by their names or by the TCGA barcodes of their slides."""
    pairs = set(near_pairs(cohort.slides))
    owners: dict[str, set[str]] = {}
    for slide, barcode in barcodes(cohort.patient_of).items():
        owners.setdefault(barcode, set()).add(cohort.patient_of[slide])
    pairs |= {pair for cases in owners.values() if len(cases) > 1 for pair in combinations(sorted(cases)[:50], 2)}
    shown, fix = lambda pair: f"{pair[0]} = {pair[1]}", "write the patient's name alike in all rows of the table"
    torn: set[tuple[str, str]] = set()
    for fold in folds:
        part_of = {case: part for part, cases in fold.parts.items() for case in cases}
        found = {(a, b) for a, b in pairs if a in part_of and b in part_of and part_of[a] != part_of[b]}
        what = f"{{n}} pairs of patients of fold {fold.index} are in two parts and may be one patient: {{names}}"
        collector.find("alike", sorted(map(shown, found)), what, where=config.table, fix=fix)
        torn |= found
    what = "{n} pairs of patients may be one patient: {names}"
    collector.note("alike-names", sorted(map(shown, pairs - torn)), what, where=config.table, fix=fix)


def _sound_fold(split: Split, cohort: Cohort, config: SplitsConfig, collector: FindingCollector) -> Fold:
    """Return the fold of a split, with its leaks moved or found."""
    fold = to_fold(split, cohort)
    times = Counter(case for cases in fold.parts.values() for case in cases)
    leaks = sorted(case for case, parts in times.items() if parts > 1)
    leaking = set(leaks)
    home = config.move_leaks_to
    if leaks and home:
        what = f"{{n}} patients were in two parts and were moved to {home}: {{names}}"
        collector.note("moved", leaks, what, where=split.path, fix="none needed")
        parts = {
            part: tuple(c for c in cases if c not in leaking or part == home) for part, cases in fold.parts.items()
        }
        parts[home] += tuple(sorted(leaking - set(parts[home])))
        return replace(fold, **parts)
    for a, b in combinations(PARTS, 2):
        collector.find(
            "leak",
            sorted(set(fold.parts[a]) & set(fold.parts[b])),
            f"{{n}} patients are in both {a} and {b}: {{names}}",
            where=split.path,
            fix="put all slides of a patient into one part, as --move-leaks-to train does",
        )
    return fold


def _find_strangers(split: Split, cohort: Cohort, collector: FindingCollector) -> None:
    known = {*cohort.patient_of, *cohort.slides, *cohort.left_out}
    strangers = [name for names in split.parts.values() for name in names if name not in known]
    near = nearest(strangers, known)
    hint = f" ({near})".replace("{", "{{").replace("}", "}}") if near else ""
    collector.find(
        "missing-slides",
        strangers,
        "the split names {n} slides or cases that the table does not contain: {names}" + hint,
        where=split.path,
        fix="use the table these splits were made from, or remove the names",
    )


def _with_stores(
    cohort: Cohort, folds: Sequence[Fold], stores: Mapping[str, Path], folder: Path, collector: FindingCollector
) -> Cohort:
    """Return the cohort without the slides that have no store, as far as this was accepted."""
    cases = sorted({case for fold in folds for part in fold.parts.values() for case in part})
    slides = [slide for case in cases for slide in cohort.slides[case]]
    missing = sorted(set(slides) - set(stores))
    collector.find(
        "no-store",
        missing,
        f"{{n}} of {len(slides)} slides have no store: {{names}}",
        where=folder,
        fix="tile them with `longvit tile`, or remove their patients from the splits",
    )
    return cohort.without(collector.accepted("no-store", missing))


def _only(cohort: Cohort, fold: Fold) -> Fold:
    return replace(fold, **{part: tuple(c for c in cases if c in cohort.slides) for part, cases in fold.parts.items()})


def _find_duplicates(cohort: Cohort, stores: Mapping[str, Path], folder: Path, collector: FindingCollector) -> None:
    first: dict[str, str] = {}
    copies = {}
    for slide in sorted(set(cohort.patient_of) & set(stores)):
        sha256 = open_store(stores[slide]).source.sha256
        original = first.setdefault(sha256, slide) if sha256 else slide
        if original != slide:
            copies[slide] = original
    pairs = few([f"{copy} = {original}" for copy, original in copies.items()])
    collector.find(
        "duplicate",
        list(copies),
        "{n} slides have the file of another slide, by its sha256: " + pairs.replace("{", "{{").replace("}", "}}"),
        where=folder,
        fix="keep one of them in the table; two patients cannot share a slide",
    )


def _note_unlabelled(cohort: Cohort, stores: Mapping[str, Path], folder: Path, collector: FindingCollector) -> None:
    collector.note(
        "unlabelled-stores",
        sorted(set(stores) - set(cohort.patient_of) - cohort.left_out),
        "{n} stores belong to slides that the table does not contain, and are not used: {names}",
        where=folder,
        fix="add their rows to the table, if they belong to the cohort",
    )


def _note_fold(split: Split, fold: Fold, cohort: Cohort, collector: FindingCollector) -> None:
    """Note facts about a usable fold: shared sites, missing classes, patients in no part."""
    held_out = fold.parts[fold.held_out]
    seen = {cohort.sites[case] for case in fold.train if case in cohort.sites}
    shared = [case for case in held_out if cohort.sites.get(case) in seen]
    collector.note(
        "site-overlap",
        sorted({cohort.sites[case] for case in shared}),
        f"{len(shared)} of {len(held_out)} {fold.held_out} patients come from {{n}} sites seen in training: {{names}}",
        where=split.path,
        fix="`longvit split --keep-sites-together` makes splits in which recognising a hospital does not help",
    )
    for part in ("val", "test"):
        of_part = cohort.strata.loc[list(fold.parts[part])]
        wanted = cohort.classes if cohort.classes else (1,)
        absent = [str(name) if cohort.classes else "events" for name in wanted if not (of_part == name).any()]
        what = f"{part} has no patient of: {{names}}" if cohort.classes else f"{part} has no observed {{names}}"
        fix = "use stratified splits; metrics of this part are not defined"
        collector.note("one-sided", absent if len(of_part) else [], what, where=split.path, fix=fix)
    collector.note(
        "unassigned",
        sorted(set(cohort.slides) - {case for cases in fold.parts.values() for case in cases}),
        "{n} patients of the table are in no part: {names}",
        where=split.path,
        fix="none needed, if the patients were left out on purpose",
    )


def _note_held_out_again(folds: Sequence[Fold], where: Path, collector: FindingCollector) -> None:
    times = Counter(case for fold in folds for case in fold.parts[fold.held_out])
    collector.note(
        "held-out-again",
        sorted(case for case, folds_of in times.items() if folds_of > 1),
        f"{{n}} of {len(times)} held-out patients are held out in several folds: {{names}}",
        where=where,
        fix="none needed; but folds that share patients vary less than independent cohorts would",
    )
