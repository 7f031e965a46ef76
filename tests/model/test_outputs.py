import pytest

from longvit.model.outputs import RiskScale


def test_a_risk_is_given_in_deviations_of_the_training_patients():
    assert RiskScale(mean=2.0, sd=0.5).standardised(3.0) == 2.0


@pytest.mark.parametrize("scale", [RiskScale(2.0, 0.0), RiskScale(1e6, 1e-9)])
def test_risks_that_are_all_the_same_have_no_deviation(scale):
    assert scale.standardised(scale.mean + 1) == 0.0
