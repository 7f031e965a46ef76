import pytest

from longvit.config import CoxTask, NllTask, SubtypeTask
from longvit.tasks import TASKS


@pytest.mark.parametrize("unit", ["days", "months", "years"])
@pytest.mark.parametrize("kind", [CoxTask, NllTask])
def test_a_time_has_the_unit_of_the_settings_and_the_first_column(kind, unit):
    task = kind(time_unit=unit, time_column="t")
    assert task.unit == unit
    assert task.table_columns[0] == "t"


def test_a_class_has_no_unit():
    assert SubtypeTask().unit is None


@pytest.mark.parametrize("kind", [task for task in TASKS if "time" in task.targets])
def test_an_endpoint_and_its_columns_are_not_given_twice(kind):
    assert kind(endpoint="DSS", time_column="t").unit is None  # until the table is known
    with pytest.raises(ValueError, match="give endpoint, or the columns of time and status, not both"):
        kind(endpoint="DSS", time_column="t", event_column="e")
