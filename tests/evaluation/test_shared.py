"""What a report may hold of an audit and of settings."""

import yaml

from longvit.evaluation.shared import shared_audit, shared_settings
from longvit.formats.audit_json import AuditFile, Finding
from longvit.runs.privacy import Pseudonyms

KEY = Pseudonyms(b"k" * 32)
P, Q = KEY.of("TCGA-05-4384"), KEY.of("TCGA-44-6146")


def found(category, what, *names) -> Finding:
    return Finding(level="accepted", category=category, what=what, names=names)


def test_sentences_of_an_audit_name_pseudonyms_alone():
    audit = AuditFile(
        findings=(
            found(
                "leak",
                "2 patients are in both train and val: TCGA-05-4384, TCGA-44-6146",
                "TCGA-05-4384",
                "TCGA-44-6146",
            ),
            found(
                "duplicate", "1 slides have the file of another slide, by its sha256: TCGA-44-6146 = X", "TCGA-44-6146"
            ),
            found("", "made by another version: TCGA-05-4384"),
            found("site-overlap", "9 of 9 test patients come from 7 sites seen in training: 05, ...", *"1234567"),
            found("one-sided", "val has no patient of: LUAD", "LUAD"),
        ),
        accepted=("leak:TCGA-05-4384", "duplicate"),
    )
    shared = shared_audit(audit, KEY)
    sites = ", ".join(KEY.of(site) for site in "12345")
    assert [one.what for one in shared.findings] == [
        f"2 patients are in both train and val: {P}, {Q}",
        f"1 slides have the file of another slide, by its sha256: {Q}",
        "made by another version",
        f"9 of 9 test patients come from 7 sites seen in training: {sites} and 2 more",
        "val has no patient of: LUAD",
    ]
    assert shared.accepted == (f"leak:{P}", "duplicate")
    assert "TCGA" not in shared.model_dump_json()
    assert shared_audit(audit, Pseudonyms()) is audit


def test_settings_lose_folders_and_ids():
    settings = {"stores": "/data/alice/stores", "accept": ["leak:TCGA-05-4384"], "epochs": 3}
    assert yaml.safe_load(shared_settings(settings, KEY)) == {"stores": "stores", "accept": [f"leak:{P}"], "epochs": 3}
    assert yaml.safe_load(shared_settings(settings, Pseudonyms()))["accept"] == ["leak:TCGA-05-4384"]
    assert shared_settings("nothing", KEY) == "nothing\n...\n"
