import copy
import math

import pytest
import torch
from lightly.loss import DINOLoss
from torch import nn
from torch.testing import assert_close

from longvit.pretraining.dino import DinoModule, dino_head, dino_step, share_evenly
from longvit.pretraining.pretrain_module import ProjectedEncoder
from longvit.tokens import TokenBatch
from longvit.training.loop import begin


@pytest.fixture
def module(config, start) -> DinoModule:
    return start(config)


class Saying(nn.Module):
    """In place of a branch: says of every batch of B crops the next B of the given projections."""

    def __init__(self, said: torch.Tensor) -> None:
        super().__init__()
        self.said, self.place = said, 0

    def forward(self, batch: TokenBatch, views: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = len(batch.mask_BL)
        self.place += size
        said = self.said[self.place - size : self.place]
        return said, said


def test_the_loss_can_do_without_local_crops(module, batch):
    assert module.training_step(batch[:2], 0).isfinite()


def test_the_loss_is_the_cross_entropy_with_the_centred_and_sharpened_teacher_on_other_crops(batch):
    torch.manual_seed(0)
    student, teacher, centre = torch.randn(16, 6), torch.randn(8, 6), torch.randn(6)
    criterion = DINOLoss(6, warmup_teacher_temp=0.04, teacher_temp=0.04, warmup_teacher_temp_epochs=0)
    criterion.center.copy_(centre)
    loss = dino_step(Saying(student), Saying(teacher), criterion, batch).loss
    wanted = ((teacher - centre) / 0.04).softmax(-1)
    answer = (student / 0.1).log_softmax(-1)
    pairs = [(t, s) for t in range(2) for s in range(4) if t != s]
    terms = [-(wanted[4 * t : 4 * t + 4] * answer[4 * s : 4 * s + 4]).sum(-1).mean() for t, s in pairs]
    assert loss == pytest.approx(float(torch.stack(terms).mean()), rel=1e-5)
    assert_close(criterion.center.flatten(), 0.9 * centre + 0.1 * teacher.mean(0))


@pytest.mark.parametrize(("said", "share"), [(torch.zeros(8, 6), 1.0), (100 * torch.eye(6)[[0, 1] * 4], 0.0)])
def test_the_entropy_of_the_teacher_is_1_where_it_says_the_same_of_every_crop(batch, said, share):
    criterion = DINOLoss(6, warmup_teacher_temp_epochs=0)
    logged = dino_step(Saying(torch.zeros(16, 6)), Saying(said), criterion, batch).logged
    assert logged["teacher_entropy"].item() == pytest.approx(share, abs=1e-6)


def test_a_student_that_says_the_same_of_every_crop_loses_the_logarithm_of_the_prototypes(batch):
    criterion = DINOLoss(6, warmup_teacher_temp_epochs=0)
    loss = dino_step(Saying(torch.zeros(16, 6)), Saying(torch.randn(8, 6)), criterion, batch).loss
    assert loss == pytest.approx(math.log(6), rel=1e-5)


def test_the_temperature_of_the_teacher_is_warmed_up_over_the_epochs(config, objectives, start, batch, monkeypatch):
    warm = {"teacher_temperature_start": 0.02, "teacher_temperature": 0.06, "teacher_temperature_epochs": 3}
    module = start(config.model_copy(update={"objective": objectives["dino"].model_copy(update=warm)}))
    module.student.eval()
    losses = []
    for epoch in range(4):
        module.trainer.current_epoch = epoch
        module.criterion.center.zero_()
        losses.append(module.training_step(batch, 0).item())
        said = module.teacher(TokenBatch.collate(batch[:2]))[1].chunk(2)
        module.criterion.center.zero_()
        answers = [module.student(view)[1] for view in batch]
        expected = module.criterion(list(said), answers, teacher_temp=(0.02, 0.04, 0.06, 0.06)[epoch])
        assert losses[-1] == pytest.approx(expected.item(), rel=1e-5)
    assert len(set(losses)) == 3


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_a_batch_is_shared_evenly_among_the_prototypes(temperature):
    torch.manual_seed(0)
    said = torch.rand(64, 8) + torch.tensor([1.0, *[-1.0] * 7])
    assert said.argmax(-1).eq(0).all(), "all crops say the first prototype"
    logits = share_evenly(said, temperature)
    shared = (logits / temperature).softmax(-1)
    assert (shared.mean(0) - 1 / 8).abs().max() < 0.06
    moved = logits - said  # what each crop and what each prototype is moved by, and no more
    assert_close(moved, moved.mean(0) + moved.mean(1, keepdim=True) - moved.mean(), rtol=0, atol=1e-5)


def test_with_sinkhorn_the_student_learns_what_is_shared_evenly_and_the_centre_stays(config, objectives, start, batch):
    even = {"centring": "sinkhorn", "teacher_temperature": 0.05}
    module = start(config.model_copy(update={"objective": objectives["dino"].model_copy(update=even)}))
    module.student.eval()
    module.training_step(batch, 0)
    said = module.teacher(TokenBatch.collate(batch[:2]))[1].chunk(2)
    wanted = [(share_evenly(view, 0.05) / 0.05).softmax(-1) for view in said]
    answers = [(module.student(view)[1] / 0.1).log_softmax(-1) for view in batch]
    terms = [-(wanted[t] * answers[s]).sum(-1).mean() for t in range(2) for s in range(len(batch)) if t != s]
    assert_close(module.step(batch).loss, torch.stack(terms).mean(), rtol=1e-4, atol=1e-4)
    assert not module.criterion.center.any()


@pytest.mark.parametrize(("epoch", "frozen"), [(0, True), (1, False)])
def test_the_last_layer_of_the_head_is_frozen_in_the_first_epochs(module, batch, epoch, frozen):
    module.trainer.current_epoch = epoch
    before = copy.deepcopy(module.student.head.last_layer.state_dict())
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1)
    module.training_step(batch, 0).backward()
    module.on_before_optimizer_step(optimiser)
    optimiser.step()
    unchanged = [torch.equal(new, before[name]) for name, new in module.student.head.last_layer.state_dict().items()]
    assert all(unchanged) == frozen


def test_global_crops_come_first_and_the_student_sees_all_at_the_same_place(module, batch, monkeypatch):
    seen = {}

    def criterion(teacher, student, epoch):
        seen.update(teacher=teacher, student=student, epoch=epoch)
        return student[0].sum()

    monkeypatch.setattr(module.criterion, "forward", criterion)
    module.student.load_state_dict(module.teacher.state_dict())
    module.student.eval()
    module.training_step(batch, 0)
    assert [len(views) for views in (seen["teacher"], seen["student"])] == [2, 4]
    for teacher, student in zip(seen["teacher"], seen["student"], strict=False):
        assert_close(teacher, student)


def test_a_branch_gives_one_vector_and_one_projection_for_each_crop(config, objectives, batch):
    begin(config)
    features, projections = ProjectedEncoder(config.encoder, dino_head(16, objectives["dino"]))(batch[2])
    assert features.shape == (4, config.encoder.width)
    assert projections.shape == (4, objectives["dino"].prototypes)


def test_batch_norm_in_the_head_takes_out_what_all_crops_share(objectives):
    torch.manual_seed(0)
    shared, own = torch.full((64, 16), 5.0), torch.randn(64, 16)
    heads = [dino_head(16, objectives["dino"].model_copy(update={"batch_norm": norm})) for norm in (False, True)]
    spreads = [head(shared + 0.01 * own).std(dim=0).mean().item() for head in heads]
    assert spreads[1] > 10 * spreads[0]
