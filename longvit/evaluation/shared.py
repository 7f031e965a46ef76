"""Audit and settings of a run in the form for a report: paths shortened, pseudonyms for patients, slides and sites."""

from typing import Any

import yaml

from longvit.formats.audit_json import AuditFile, Finding
from longvit.runs.privacy import Pseudonyms, shareable_values
from preprocessing.errors import few

NOT_IDS = ("one-sided", "rare", "alike-labels", "time-unit")
"""Categories of findings whose names are classes or columns."""


def shared_audit(audit: AuditFile, names: Pseudonyms) -> AuditFile:
    """Return an audit with pseudonyms for patients, slides and sites; without a key, the audit itself.

    A sentence of an audit lists its names after a colon. The text after the colon is replaced, so that an id that is
    not among the finding's names cannot remain.
    """
    if names.key is None:
        return audit
    findings = tuple(one if one.category in NOT_IDS else _under(one, names) for one in audit.findings)
    return audit.model_copy(update={"findings": findings, "accepted": tuple(_entry(e, names) for e in audit.accepted)})


def shared_settings(settings: Any, names: Pseudonyms) -> str:  # noqa: ANN401 - any YAML
    """Return settings as YAML, without folders of this machine and without ids among the accepted audit findings."""
    values = shareable_values(settings)
    if isinstance(values, dict) and isinstance(values.get("accept"), list):
        values["accept"] = [_entry(str(entry), names) for entry in values["accept"]]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _under(one: Finding, names: Pseudonyms) -> Finding:
    pseudonyms = tuple(map(names.of, one.names))
    about, colon, _ = one.what.partition(": ")
    what = f"{about}{colon}{few(pseudonyms)}" if pseudonyms else about
    return one.model_copy(update={"names": pseudonyms, "what": what})


def _entry(entry: str, names: Pseudonyms) -> str:
    """Replace the name in an entry of `accept`: `leak:TCGA-05-4384` -> `leak:P-...`."""
    category, colon, name = entry.partition(":")
    return f"{category}:{names.of(name)}" if colon else entry
