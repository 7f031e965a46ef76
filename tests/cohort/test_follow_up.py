import pandas as pd
import pytest

from longvit.cohort.follow_up import implausible


@pytest.mark.parametrize(
    ("longest", "unit", "likely"),
    [
        (240, "months", "fine"),
        (720, "months", "fine"),
        (4000, "months", "days"),
        (1e5, "months", None),
        (4000, "days", "fine"),
        (39, "days", "months"),
        (1e5, "days", None),
        (12, "years", "fine"),
        (200, "years", "months"),
        (4000, "years", "days"),
    ],
)
def test_times_that_no_follow_up_has_are_found_with_the_likely_unit(longest, unit, likely):
    found = implausible(pd.Series([1.0, 2.0, longest]), unit)
    if likely == "fine":
        assert found is None
    else:
        assert found[1] == likely
        assert f"a longest follow-up of {longest:g} {unit} and a median of 2" in found[0]
