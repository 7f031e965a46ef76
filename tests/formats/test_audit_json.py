import json

from longvit.formats.audit_json import AuditFile, Finding, read_audit, write_audit

LEAK = Finding(category="leak", level="accepted", what="1 patient: Ä", where="splits", fix="none", names=("Ä",))


def test_an_audit_comes_back(tmp_path):
    written = AuditFile(findings=(LEAK,), accepted=("leak",), counts=({"fold": 0, "part": "train", "LUAD": 3},))
    write_audit(tmp_path, written)
    assert read_audit(tmp_path) == written
    assert "Ä" in (tmp_path / "audit.json").read_text(encoding="utf-8")


def test_there_may_be_no_audit(tmp_path):
    assert read_audit(tmp_path) is None


def test_leaks_are_those_that_were_accepted():
    refused = LEAK.model_copy(update={"level": "error", "names": ("B",)})
    copies = LEAK.model_copy(update={"category": "duplicate", "names": ("C",)})
    assert AuditFile(findings=(LEAK, refused, copies)).leaks == {"Ä"}


def test_fields_that_an_audit_lacks_have_defaults(tmp_path):
    (tmp_path / "audit.json").write_text(json.dumps({"findings": [{"level": "note", "what": "x", "more": 1}]}))
    (finding,) = read_audit(tmp_path).findings
    assert (finding.category, finding.names) == ("", ())
