"""A group of ranks: its sums and their gradients, and a predictor whose slides are cut over the ranks."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from longvit.config import CoxTask, EncoderConfig, NllTask, SubtypeTask
from longvit.model import LongViT
from longvit.model.predictor import SlideModel
from longvit.model.rank_group import RankGroup
from longvit.tokens.batch import TokenBatch

COUNTS = (1, 2, 3, 8)


def summed(group: RankGroup) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = torch.tensor([1.0, 2.0]) * (group.rank + 1)
    total = group.sum(x.requires_grad_())
    (total * torch.tensor([1.0, 10.0]) * (group.rank + 1)).sum().backward()
    return total.detach(), x.grad, group.max(-x), group.gathered(x.detach())


@pytest.mark.parametrize("count", COUNTS)
def test_sums_go_over_all_ranks_in_both_directions(ranks, count):
    n = count * (count + 1) / 2
    for total, grad, largest, gathered in ranks(count, summed):
        assert_close(total, torch.tensor([n, 2 * n]))
        assert_close(grad, torch.tensor([n, 10 * n]))
        assert_close(largest, torch.tensor([-1.0, -2.0]))
        assert_close(gathered, torch.tensor([[i + 1.0, 2.0 * (i + 1)] for i in range(count)]))


def drawn(group: RankGroup, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    before = torch.rand(2)
    with group.own_random_numbers(torch.device("cpu")):
        own = torch.rand(tokens * (group.rank + 1))[:2]
    return before, own, torch.rand(2)


def test_ranks_draw_other_numbers_for_tokens_and_the_same_numbers_afterwards(ranks):
    found = ranks(3, drawn, 5)
    assert len({tuple(before.tolist()) for before, _, _ in found}) == 1
    assert len({tuple(own.tolist()) for _, own, _ in found}) == 3
    assert len({tuple(after.tolist()) for _, _, after in found}) == 1


class Patient:
    """Target of a patient, for any task."""

    def __init__(self, label: int, time: float, event: bool) -> None:
        self.label, self.time, self.event = label, time, event


PATIENTS = [Patient(0, 3.0, True), Patient(1, 5.0, False), Patient(1, 2.0, True), Patient(0, 2.0, True)]
TASKS = {
    "subtype": (SubtypeTask(classes=("a", "b")), ("a", "b"), {"class_weights": (0.5, 2.0)}),
    "cox": (CoxTask(), (), {}),
    "nll": (NllTask(bins=3), (), {"bin_edges": (2.5, 4.0)}),
}
POSITIONS = {"sincos": {"kind": "sincos"}, "learned": {"kind": "learned", "grid": 4}}


def slide(index: int) -> TokenBatch:
    rng = torch.Generator().manual_seed(index)
    length = 9 + 7 * index
    rc_L2 = torch.stack([torch.arange(length) // 5 + index, torch.arange(length) % 5], -1)
    return TokenBatch.of_one(torch.randn(length, 6, generator=rng).double(), rc_L2)


def losses(group: RankGroup | None, task: str, pooling: str, position: str) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return outputs, loss and gradients of a window of patients, whose slides are cut at uneven places."""
    torch.manual_seed(0)
    settings, classes, statistics = TASKS[task]
    config = EncoderConfig(
        width=16, depth=1, heads=4, drop_path=0, segment_lengths=(4, 16), dilation_ratios=(1, 2),
        input={"kind": "embeddings", "encoder": "e", "dim": 6}, position=POSITIONS[position],
    )  # fmt: skip
    model = SlideModel(LongViT(config), settings, classes, pooling).double()
    torch.nn.init.normal_(model.head.linear.weight)
    if model.attention is not None:
        torch.nn.init.normal_(model.attention.score.weight)
    model.required_encoder.group = group
    outputs = []
    for index in range(len(PATIENTS)):
        batch = slide(index)
        if group is not None:
            cuts = [len(batch.rc_BL2[0]) * i**2 // group.size**2 for i in range(group.size)] + [len(batch.rc_BL2[0])]
            part = slice(cuts[group.rank], cuts[group.rank + 1])
            batch = TokenBatch(batch.x[:, part], batch.rc_BL2[:, part], batch.mask_BL[:, part])
        outputs.append(model(batch))
    loss = settings.loss(torch.cat(outputs), PATIENTS, statistics)
    loss.backward()
    return torch.cat(outputs).detach(), loss.detach(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("pooling", "position"), [("encoder", "sincos"), ("attention", "learned")])
def test_a_window_of_patients_has_the_loss_and_the_gradients_of_one_process(ranks, count, task, pooling, position):
    outputs, loss, grads = losses(None, task, pooling, position)
    found = ranks(count, losses, task, pooling, position)
    for rank in found:
        assert_close(rank[0], outputs, atol=1e-12, rtol=1e-12)
        assert_close(rank[1], loss, atol=1e-12, rtol=1e-12)
    for i, grad in enumerate(grads):
        shared = [rank[2][i] for rank in found]
        if grad is not None:
            assert_close(sum(shared) / count, grad, atol=1e-12, rtol=1e-12)
