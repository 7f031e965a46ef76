from longvit.evaluation.report.metric_labels import MISSING
from longvit.evaluation.report.text_tables import detail_tables, site_table

SITE = {"n_classes": 4, "balanced_accuracy": 0.75, "chance_error": 0.0612}
LABEL = {"n_classes": 2, "balanced_accuracy": 0.5, "chance_error": 0.1}
FOLDS = [
    {"fold": 0, "n_patients": 40, "site": SITE, "label": LABEL, "reason": None},
    {"fold": 1, "n_patients": 30, "site": SITE | {"balanced_accuracy": 0.25}, "label": None, "reason": None},
    {"fold": 2, "n_patients": 3, "site": None, "label": None, "reason": "1 of 1 hospitals"},
]


def test_hospitals_are_next_to_the_label_with_chance_and_their_mean_last():
    table = site_table({"task": "subtyping", "site_probe": FOLDS})
    assert table.rows == (
        ("0", "40", "4", "0.750", "0.250 ± 0.061", "2", "0.500", "0.500 ± 0.100"),
        ("1", "30", "4", "0.250", "0.250 ± 0.061", MISSING, MISSING, MISSING),
        ("Mean", "", "", "0.500", "0.250", "", "0.500", "0.500"),
    )
    assert len(table.head) == 8
    assert table.head[5] == "Label, classes"
    assert table.best == {2}
    assert table.notes[1] == "Fold 2: 1 of 1 hospitals."
    assert site_table({"task": "survival", "site_probe": FOLDS}).head[5] == "Event, classes"


def test_without_any_probe_the_reasons_remain():
    others = [FOLDS[2] | {"fold": 3, "reason": "no hospital"}, FOLDS[2] | {"fold": 4}]
    table = site_table({"task": "subtyping", "site_probe": [FOLDS[2], *others]})
    assert (table.rows, table.notes) == ((), ("Fold 2, 4: 1 of 1 hospitals.", "Fold 3: no hospital."))


def test_a_run_without_probes_has_no_table():
    assert site_table({"task": "subtyping"}) is None


def test_the_table_is_in_the_report_before_the_audit():
    metrics = {"task": "subtyping", "models": [], "site_probe": FOLDS}
    titles = [table.title for table in detail_tables(metrics, None)]
    assert titles == ["Hospitals in the representations", "Audit of the splits"]
