import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from longvit.config import NllTask
from longvit.finetuning.windows import TrainingPatient
from longvit.tasks.losses import nll_loss, nll_risk


def survival(times: list[float], events: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"time": times, "event": events})


def bin_edges(targets: pd.DataFrame, bins: int) -> tuple[float, ...]:
    return NllTask(bins=bins).fit(targets, ())["bin_edges"]


def test_bins_are_the_quantiles_of_observed_events_and_a_time_on_an_edge_is_in_the_later_one():
    task, targets = NllTask(), survival([1, 2, 3, 4, 5, 100, 200], [1, 1, 1, 1, 1, 0, 0])
    assert bin_edges(targets, 4) == (2.0, 3.0, 4.0)
    window = [TrainingPatient([], time=time, event=True) for time in (0.0, 1.9, 2.0, 3.5, 4.0, 999.0)]
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = nll_loss(logits, torch.tensor([0, 0, 1, 2, 3, 3]), torch.ones(6).bool(), 0.0)
    assert task.loss(logits, window, task.fit(targets, ())) == expected


@given(times=st.lists(st.integers(1, 500), min_size=8, max_size=60, unique=True), bins=st.integers(2, 6))
def test_bins_are_those_that_mcat_cuts(times, bins):
    targets = survival([float(time) for time in times], [1] * len(times))
    _, edges = pd.qcut(targets["time"], q=bins, retbins=True, labels=False)
    assert bin_edges(targets, bins) == pytest.approx(edges[1:-1].tolist())


@given(times=st.lists(st.integers(1, 500), min_size=8, max_size=60, unique=True))
def test_every_bin_holds_its_share_of_events(times):
    edges = bin_edges(survival([float(time) for time in times], [1] * len(times)), 4)
    counts = np.bincount(np.searchsorted(edges, times, side="right"), minlength=4)
    assert max(counts) - min(counts) <= 1


def test_alpha_takes_weight_from_the_censored():
    window, edges = [TrainingPatient([], time=5.0, event=False)], {"bin_edges": (1.0, 2.0, 3.0)}
    losses = [NllTask(alpha=alpha).loss(torch.zeros(1, 4), window, edges) for alpha in (0, 1)]
    assert [loss.item() for loss in losses] == pytest.approx([4 * math.log(2), 0.0])


def test_its_score_is_the_risk_of_all_bins():
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.0]])
    assert NllTask().score(logits, 0).equal(nll_risk(logits))
    assert NllTask().predictions(logits[0], ()) == {"risk": nll_risk(logits).item()}


def test_edges_of_other_bins_or_out_of_order_are_not_accepted():
    task = NllTask(bins=3)
    assert task.accepts((), {"bin_edges": (1.0, 2.0)})
    assert not task.accepts((), {"bin_edges": (2.0, 1.0)})
    assert not task.accepts((), {"bin_edges": (1.0, 2.0, 3.0)})
    assert not task.accepts(("a", "b"), {"bin_edges": (1.0, 2.0)})
