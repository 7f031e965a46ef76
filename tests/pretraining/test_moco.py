import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from longvit.config import MocoConfig, PretrainConfig
from longvit.pretraining.moco import MocoModule, contrast, moco_step
from longvit.tokens import TokenBatch

SIDES, WIDTH = 2, 8


class Saying(nn.Module):
    """In place of a branch: says of a batch what it is given."""

    def __init__(self, said: torch.Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, _: TokenBatch, views: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.said, self.said


def crops(regions: int) -> list[TokenBatch]:
    x, rc = torch.zeros(regions, 1, 12, dtype=torch.uint8), torch.zeros(regions, 1, 2, dtype=torch.int64)
    return [TokenBatch(x, rc, torch.ones(regions, 1, dtype=torch.bool))] * SIDES


def contrasted(queries: torch.Tensor, keys: torch.Tensor, criterion: nn.Module):
    """A step in which the student predicts `queries` and the teacher sees `keys`, the first crops before the second."""
    return moco_step(Saying(queries), nn.Identity(), Saying(keys), criterion, crops(len(keys) // SIDES))


@given(regions=st.integers(2, 6), temperature=st.floats(0.1, 1), seed=st.integers(0, 99))
def test_without_a_queue_each_crop_is_told_from_all_crops_of_other_regions(regions, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    queries = F.normalize(torch.randn(SIDES * regions, WIDTH, generator=generator, dtype=torch.float64), dim=-1)
    keys = F.normalize(torch.randn(SIDES * regions, WIDTH, generator=generator, dtype=torch.float64), dim=-1)
    step = contrasted(queries, keys, contrast(MocoConfig(temperature=temperature, dim=WIDTH)))
    (q1, q2), (k1, k2) = queries.numpy().reshape(2, regions, -1), keys.numpy().reshape(2, regions, -1)
    terms = []
    for own, other in ((q1, k2), (k2, q1), (q2, k1), (k1, q2)):
        for i in range(regions):
            found = np.exp(own[i] @ other[i] / temperature)
            rest = [np.exp(own[i] @ x[j] / temperature) for x in (own, other) for j in range(regions) if j != i]
            terms.append(-np.log(found / (found + sum(rest))))
    assert float(step.loss) == pytest.approx(np.mean(terms), rel=1e-6)


def test_with_a_queue_each_crop_is_told_from_the_queue_before_the_batch_enters_it():
    torch.manual_seed(0)
    criterion = contrast(MocoConfig(dim=WIDTH, queue=12))
    queue = criterion.memory_bank.bank.clone()
    queries = F.normalize(torch.randn(8, WIDTH), dim=-1).requires_grad_()
    keys = F.normalize(torch.randn(8, WIDTH), dim=-1)
    loss = contrasted(queries, keys, criterion).loss
    sought = torch.cat([keys[4:], keys[:4]])  # each crop seeks the other crop of its region
    logits = torch.cat([(queries * sought).sum(-1, keepdim=True), queries @ queue.T], dim=1) / 0.2
    assert loss.item() == pytest.approx(-logits.log_softmax(-1)[:, 0].mean().item(), rel=1e-5)
    assert torch.allclose(criterion.memory_bank.bank[:8], sought)
    assert torch.equal(criterion.memory_bank.bank[8:], queue[8:])


def test_the_queue_and_the_place_in_it_are_part_of_the_state():
    criterion = contrast(MocoConfig(dim=WIDTH, queue=12))
    torch.manual_seed(0)
    contrasted(torch.randn(8, WIDTH, requires_grad=True), torch.randn(8, WIDTH), criterion)
    again = contrast(MocoConfig(dim=WIDTH, queue=12))
    again.load_state_dict(criterion.state_dict())
    assert torch.equal(again.memory_bank.bank, criterion.memory_bank.bank)
    assert int(again.memory_bank.bank_ptr) == 8
    assert contrast(MocoConfig(dim=WIDTH)).state_dict() == {}


def test_the_alignment_is_1_where_the_student_predicts_what_the_teacher_sees():
    keys = torch.randn(8, WIDTH)
    step = contrasted(torch.cat([keys[4:], keys[:4]]), keys, contrast(MocoConfig(dim=WIDTH)))
    assert step.logged["alignment"] == pytest.approx(1)


def test_a_student_that_finds_every_other_crop_has_less_loss_than_one_that_finds_none():
    keys, criterion = torch.eye(8), contrast(MocoConfig(dim=8))
    found = contrasted(torch.cat([keys[4:], keys[:4]]), keys, criterion).loss
    lost = contrasted(torch.cat([keys[4:], keys[:4]]).roll(1, 0), keys, criterion).loss
    assert found < 0.1 < 4 < lost


def test_the_encoder_of_the_student_is_kept(config, objectives, start):
    module = start(config.model_copy(update={"objective": objectives["moco"]}))
    assert isinstance(module, MocoModule)
    assert module.kept is module.student.encoder


def test_a_batch_of_one_region_and_no_queue_is_refused(config):
    values = config.model_dump() | {"batch_size": 1}
    with pytest.raises(ValueError, match="moco compares the regions of a batch"):
        PretrainConfig.model_validate(values | {"objective": {"kind": "moco"}})
    PretrainConfig.model_validate(values | {"objective": {"kind": "moco", "queue": 8}})
