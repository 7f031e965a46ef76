import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from longvit.evaluation.partial_likelihood import fit_cox, two_sided

TIME = np.array([1.0, 2, 2, 3, 4, 4, 4, 6, 7, 9])
EVENT = np.array([1, 1, 1, 0, 1, 1, 0, 1, 0, 1], bool)
AGE = np.array([3.0, 1, 2, 5, 0, 2, 1, 4, 1, 2])


def log_likelihood(beta: float, time=TIME, event=EVENT, x=AGE) -> float:
    """Efron's partial likelihood, written out (Efron 1977)."""
    total = 0.0
    for t in np.unique(time[event]):
        died = event & (time == t)
        risk, tied = np.exp(beta * x[time >= t]).sum(), np.exp(beta * x[died]).sum()
        total += beta * x[died].sum() - sum(math.log(risk - k / died.sum() * tied) for k in range(died.sum()))
    return total


def test_it_is_the_maximum_of_the_likelihood_and_its_error_the_curvature():
    fit = fit_cox(TIME, EVENT, AGE[:, None])
    best = minimize_scalar(
        lambda beta: -log_likelihood(beta), bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}
    )
    assert fit.coefficient[0] == pytest.approx(best.x, abs=1e-6)
    h = 1e-3
    curvature = (log_likelihood(best.x + h) - 2 * log_likelihood(best.x) + log_likelihood(best.x - h)) / h**2
    assert fit.error[0] == pytest.approx(1 / math.sqrt(-curvature), rel=1e-4)
    assert fit.p[0] == pytest.approx(math.erfc(abs(best.x) / fit.error[0] / math.sqrt(2)), rel=1e-5)
    assert 0 < fit.ph_p[0] < 1


def test_two_events_have_the_solution_in_closed_form():
    """L(b) = e^b / (2 + 2 e^b) * 1 / (2 + e^b), whose derivative is 0 where e^2b = 2."""
    time, event = np.array([1.0, 2, 3, 4]), np.array([True, True, False, False])
    x = np.array([1.0, 0, 1, 0])
    assert fit_cox(time, event, x[:, None]).coefficient[0] == pytest.approx(math.log(2) / 2, abs=1e-9)


def test_units_scale_the_coefficient_and_nothing_else():
    plain, scaled = fit_cox(TIME, EVENT, AGE[:, None]), fit_cox(12 * TIME, EVENT, 100 * AGE[:, None] + 7)
    np.testing.assert_allclose(scaled.coefficient * 100, plain.coefficient, rtol=1e-9)
    np.testing.assert_allclose(scaled.error * 100, plain.error, rtol=1e-9)
    np.testing.assert_allclose([scaled.p, scaled.ph_p], [plain.p, plain.ph_p], rtol=1e-7)


def test_the_order_of_patients_does_not_matter():
    order = np.random.default_rng(0).permutation(len(TIME))
    design = np.stack([AGE, np.arange(10) % 2], axis=1)
    one, other = fit_cox(TIME, EVENT, design), fit_cox(TIME[order], EVENT[order], design[order])
    for name in ("coefficient", "error", "p", "ph_p"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)


def test_a_covariate_that_separates_or_repeats_another_has_no_maximum():
    time, event = np.arange(1.0, 7), np.ones(6, bool)
    assert fit_cox(time, event, np.arange(6.0)[:, None]) is None  # the later, the larger: beta goes to minus infinity
    assert fit_cox(TIME, EVENT, np.stack([AGE, 2 * AGE], axis=1)) is None


def test_an_effect_that_turns_with_time_is_not_proportional():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, 400).astype(float)
    early, late = rng.exponential(1, 400), 1 + rng.exponential(1, 400)
    turning = np.where(x == 1, np.minimum(early, 1) + (early > 1) * rng.exponential(4, 400), 1.5 * late - 1)
    steady = rng.exponential(1 / np.exp(0.7 * x))
    every = np.ones(400, bool)
    assert fit_cox(turning, every, x[:, None]).ph_p[0] < 1e-3
    assert fit_cox(steady, every, x[:, None]).ph_p[0] > 0.01


def test_p_values_are_those_of_the_normal_distribution():
    np.testing.assert_allclose(
        two_sided(np.array([0.0, 1.959963985, -1.959963985, 3.290526731])), [1, 0.05, 0.05, 1e-3]
    )
