import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longvit.finetuning.losses import cox_loss

row = st.tuples(st.floats(-3, 3, width=32), st.sampled_from([1.0, 2.0, 2.5, 7.0]), st.booleans())
windows = st.lists(row, min_size=1, max_size=9).filter(lambda rows: any(event for *_, event in rows))


def loss(risks: list[float], times: list[float], events: list[bool]) -> float:
    return cox_loss(torch.tensor(risks), torch.tensor(times), torch.tensor(events)).item()


def efron(rows: list[tuple[float, float, bool]]) -> float:
    """Efron (1977) as a sum: of d who die at a time, the k-th dies among those at risk less k/d of the d."""
    total, deaths = 0.0, 0
    for time in {t for _, t, event in rows if event}:
        dying = [math.exp(risk) for risk, t, event in rows if t == time and event]
        at_risk = sum(math.exp(risk) for risk, t, _ in rows if t >= time)
        total += sum(math.log(at_risk - k / len(dying) * sum(dying)) - math.log(dying[k]) for k in range(len(dying)))
        deaths += len(dying)
    return total / deaths


def test_the_loss_of_three_patients_is_the_one_on_paper():
    # Deaths at 1 and 2 with log hazards 1 and 0; the third, 0, is censored at 3.
    expected = ((math.log(math.e + 2) - 1) + math.log(2)) / 2
    assert loss([1.0, 0.0, 0.0], [1.0, 2.0, 3.0], [True, True, False]) == pytest.approx(expected, abs=1e-6)


def test_two_who_die_together_leave_the_risk_set_half_and_half():
    # Both die at 1 among three: log 3 for the one, log(3 - 1/2 * 2) for the other.
    expected = (math.log(3) + math.log(2)) / 2
    assert loss([0.0, 0.0, 0.0], [1.0, 1.0, 2.0], [True, True, False]) == pytest.approx(expected, abs=1e-6)


@given(rows=windows)
def test_the_loss_is_that_of_efrons_sum(rows):
    assert loss(*map(list, zip(*rows, strict=True))) == pytest.approx(efron(rows), abs=1e-5)


@given(rows=windows, seed=st.integers(0, 99))
def test_the_order_of_patients_and_a_common_factor_of_the_hazards_do_not_matter(rows, seed):
    risk, time, event = (torch.tensor(column) for column in zip(*rows, strict=True))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    assert cox_loss(risk[order] + 5, time[order], event[order]).item() == pytest.approx(
        cox_loss(risk, time, event).item(), abs=1e-5
    )


def test_who_is_censored_when_another_dies_was_still_at_risk():
    for events in ([True, False], [False, True]):
        assert loss([0.0, 0.0], [1.0, 1.0], events) == pytest.approx(math.log(2))


def test_the_right_order_costs_less_than_the_wrong_one():
    times, events = [1.0, 2.0, 3.0], [True, True, True]
    assert loss([2.0, 1.0, 0.0], times, events) < loss([0.0, 1.0, 2.0], times, events)


def test_a_death_raises_the_hazard_of_who_died_and_lowers_that_of_who_lived():
    risk = torch.zeros(3, requires_grad=True)
    cox_loss(risk, torch.tensor([1.0, 1.0, 2.0]), torch.tensor([True, False, False])).backward()
    assert risk.grad.tolist() == pytest.approx([-2 / 3, 1 / 3, 1 / 3])


def test_large_log_hazards_stay_finite_with_their_gradient():
    risk = torch.tensor([500.0, -500.0, 0.0, -500.0], requires_grad=True)
    out = cox_loss(risk, torch.tensor([3.0, 1.0, 2.0, 1.0]), torch.tensor([True, True, True, True]))
    out.backward()
    assert out.isfinite()
    assert risk.grad.isfinite().all()


def test_patients_without_an_event_have_a_loss_of_0_that_can_be_differentiated():
    risk = torch.ones(2, requires_grad=True)
    out = cox_loss(risk, torch.tensor([1.0, 2.0]), torch.tensor([False, False]))
    out.backward()
    assert (out.item(), risk.grad.tolist()) == (0, [0, 0])


def test_one_patient_alone_has_a_loss_of_0():
    assert loss([3.0], [1.0], [True]) == 0


def test_hazards_far_apart_give_a_finite_loss_and_gradient():
    risk = torch.tensor([90.0, 20.0, 20.0], requires_grad=True)
    value = cox_loss(risk, torch.tensor([1.0, 2.0, 2.0]), torch.tensor([True, True, True]))
    value.backward()
    assert value.item() == pytest.approx(math.log(2) / 3, abs=1e-5)
    assert torch.isfinite(risk.grad).all()
