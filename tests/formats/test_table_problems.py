import numpy as np
import pandas as pd
import pytest

from longvit.formats.table_problems import Problems
from preprocessing.errors import CohortError


def test_one_problem_is_the_error_and_several_are_listed(tmp_path):
    problems = Problems(pd.DataFrame({"a": ["1", "x", "y"], "b": ["2", "3", "z"]}, index=[2, 4, 5]))
    problems.refuse(tmp_path)
    assert np.array_equal(problems.numbers("a"), [1, np.nan, np.nan], equal_nan=True)
    with pytest.raises(CohortError, match=r"^`a` is not a number: 'x'") as one:
        problems.refuse(tmp_path)
    assert one.value.where == f"{tmp_path}, column a, lines 4, 5"
    problems.numbers("b")
    with pytest.raises(CohortError, match="2 problems") as both:
        problems.refuse(tmp_path)
    assert "column b, line 5" in str(both.value)
