import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longvit.tasks.losses import cox_loss, nll_loss, nll_risk

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


logits = st.lists(st.lists(st.floats(-4, 4, width=32), min_size=4, max_size=4), min_size=1, max_size=6)


def published_nll(logits: torch.Tensor, bins: torch.Tensor, event: torch.Tensor, alpha: float) -> float:
    """The formula of MCAT (Chen et al. 2021) and of LongViT's repository, word for word, without its clamping."""
    hazards = logits.double().sigmoid()
    padded = torch.cat([torch.ones(len(logits), 1), (1 - hazards).cumprod(dim=1)], dim=1)
    y, c = bins[:, None], 1 - event[:, None].double()
    uncensored = -(1 - c) * (padded.gather(1, y).log() + hazards.gather(1, y).log())
    censored = -c * padded.gather(1, y + 1).log()
    return ((1 - alpha) * (censored + uncensored) + alpha * uncensored).mean().item()


@given(rows=logits, alpha=st.sampled_from([0.0, 0.4, 1.0]), seed=st.integers(0, 99))
def test_the_discrete_time_loss_is_the_published_one(rows, alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    bins = torch.randint(4, (len(rows),), generator=generator)
    event = torch.rand(len(rows), generator=generator) < 0.5
    found = nll_loss(torch.tensor(rows), bins, event, alpha).item()
    assert found == pytest.approx(published_nll(torch.tensor(rows), bins, event, alpha), abs=1e-4)


def test_the_discrete_time_loss_of_two_patients_is_the_one_on_paper():
    # Hazards of a half in two bins: an event in the second has 1/2 * 1/2; outliving the first has 1/2.
    found = nll_loss(torch.zeros(2, 2), torch.tensor([1, 0]), torch.tensor([True, False]), 0.0)
    assert found.item() == pytest.approx((math.log(4) + math.log(2)) / 2)


@given(rows=logits)
def test_chances_of_dying_in_each_bin_and_of_outliving_all_sum_to_1(rows):
    one = torch.tensor(rows[:1]).double().expand(4, -1)
    ways = [nll_loss(one[i : i + 1], torch.tensor([i]), torch.tensor([True]), 0.0) for i in range(4)]
    outlives_all = nll_loss(one[:1], torch.tensor([3]), torch.tensor([False]), 0.0)
    assert sum(math.exp(-loss) for loss in (*ways, outlives_all)) == pytest.approx(1)


def test_extreme_hazards_have_a_finite_loss_and_gradient():
    logits_NM = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    value = nll_loss(logits_NM, torch.tensor([1, 1]), torch.tensor([True, False]), 0.0)
    value.backward()
    assert value.isfinite()
    assert logits_NM.grad.isfinite().all()


def test_the_risk_is_minus_the_sum_of_the_chances_to_outlive_each_bin():
    assert nll_risk(torch.tensor([[0.0, 0.0], [100.0, 0.0]])).tolist() == pytest.approx([-0.75, 0.0])


@given(rows=logits, bin_index=st.integers(0, 3))
def test_a_higher_hazard_in_any_bin_is_a_higher_risk(rows, bin_index):
    before = torch.tensor(rows).double()
    after = before.clone()
    after[:, bin_index] += 1
    assert (nll_risk(after) > nll_risk(before)).all()
