import pytest

from longvit.evaluation.report.metric_labels import MISSING, bare_p, composition, decimal, heading, interval, p_value


@pytest.mark.parametrize(
    ("value", "sentence", "cell"),
    [
        (0.0123, "p = 0.012", "0.012"),
        (0.001, "p = 0.001", "0.001"),
        (0.00099, "p < 0.001", "< 0.001"),
        (1.0, "p = 1.000", "1.000"),
        (None, f"p {MISSING}", MISSING),
    ],
)
def test_a_p_value_is_never_written_as_zero(value, sentence, cell):
    assert (p_value(value), bare_p(value)) == (sentence, cell)


def test_a_number_that_is_missing_is_a_dash():
    assert [decimal(None), decimal(0.0), interval({"low": None, "high": None})] == [MISSING, "0.000", MISSING]
    assert interval({"low": 0.7124, "high": 0.9}) == "0.712 to 0.900"


def test_patients_are_counted_by_event_or_by_class():
    assert composition({"n_events": 0, "class_counts": {}}) == "0 events"
    assert composition({"class_counts": {"LUAD": 3, "LUSC": 0}}) == "3 LUAD, 0 LUSC"
    assert heading({"task": "survival"}) == "Survival"
    assert heading({"task": "subtyping", "classes": ["LUAD", "LUSC"]}) == "Subtyping: LUAD, LUSC"
