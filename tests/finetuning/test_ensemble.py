import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvit.finetuning.ensemble import RiskScale, ensemble_row

RISKS = st.lists(st.floats(-5, 5), min_size=2, max_size=6)


def test_probabilities_are_averaged_and_their_spread_is_said():
    row = ensemble_row([{"p_a": 0.9, "p_b": 0.1}, {"p_a": 0.5, "p_b": 0.5}], [])
    assert row == pytest.approx({"p_a": 0.7, "p_b": 0.3, "sd_a": 0.2, "sd_b": 0.2})


def test_risks_are_averaged_in_deviations_from_each_models_training_patients():
    row = ensemble_row([{"risk": 3.0}, {"risk": -10.0}], [RiskScale(1.0, 2.0), RiskScale(-40.0, 10.0)])
    assert row == pytest.approx({"risk": 2.0, "sd_risk": 1.0})  # 1 and 3 deviations


@given(RISKS, st.floats(0.1, 10), st.floats(-100, 100))
def test_the_unit_and_the_zero_of_a_models_risk_do_not_matter(risks, unit, zero):
    scales = [RiskScale(0.0, 1.0)] * len(risks)
    plain = ensemble_row([{"risk": risk} for risk in risks], scales)
    first = {"risk": risks[0] * unit + zero}
    moved = ensemble_row([first, *({"risk": r} for r in risks[1:])], [RiskScale(zero, unit), *scales[1:]])
    assert moved == pytest.approx(plain, abs=1e-9)


@given(RISKS)
def test_a_model_that_tells_everybody_the_same_counts_as_nothing_said(risks):
    scales = [RiskScale(np.mean(risks), 0.0)] * len(risks)
    assert ensemble_row([{"risk": risk} for risk in risks], scales) == {"risk": 0.0, "sd_risk": 0.0}
