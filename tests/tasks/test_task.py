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
    assert [task.__name__ for task in TASKS if (task().unit is None) == ("time" in task.targets)] == []
