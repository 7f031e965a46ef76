import copy
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from longvit.pretraining.dino import Branch, DinoModule, spread
from longvit.pretraining.views import RegionDataset, collate_views
from longvit.tokens import TokenBatch
from longvit.tokens.dataset import find_stores
from longvit.training import begin


@pytest.fixture
def batch(cohort, views) -> list[TokenBatch]:
    dataset = RegionDataset(list(find_stores(cohort.stores).values()), views, 16, 1, 0)
    return collate_views([dataset[i] for i in range(4)])


@pytest.fixture
def module(config, monkeypatch) -> DinoModule:
    """As at the first of ten steps; what it logs is dropped."""
    begin(config)
    module = DinoModule(config)
    module.trainer = SimpleNamespace(estimated_stepping_batches=10, global_step=0, current_epoch=0)
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    return module


def weights(branch: Branch) -> dict[str, torch.Tensor]:
    return copy.deepcopy(branch.state_dict())


def test_the_teacher_starts_as_the_student(module):
    assert_close(weights(module.teacher), weights(module.student), rtol=0, atol=0)


def test_the_loss_is_finite_and_only_the_student_gets_a_gradient(module, batch):
    loss = module.training_step(batch, 0)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None and not p.requires_grad for p in module.teacher.parameters())
    trained = [p for p in module.student.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert any(p.grad.abs().max() > 0 for p in module.student.encoder.parameters())


def test_the_loss_can_do_without_local_crops(module, batch):
    assert module.training_step(batch[:2], 0).isfinite()


def test_one_step_of_the_optimiser_changes_the_student_and_not_the_teacher(module, batch):
    student, teacher = weights(module.student.encoder), weights(module.teacher)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    module.training_step(batch, 0).backward()
    optimiser.step()
    matrices = {name: new for name, new in module.student.encoder.state_dict().items() if new.ndim > 1}
    assert not any(torch.equal(new, student[name]) for name, new in matrices.items())
    assert_close(weights(module.teacher), teacher, rtol=0, atol=0)


def test_the_teacher_moves_by_momentum(module, config):
    with torch.no_grad():
        for parameter in module.student.parameters():
            parameter.add_(torch.randn_like(parameter))
    student, teacher, momentum = weights(module.student), weights(module.teacher), config.objective.momentum
    module.on_train_batch_end(None, [], 0)
    expected = {name: momentum * teacher[name] + (1 - momentum) * student[name] for name in teacher}
    assert_close(weights(module.teacher), expected)
    assert_close(weights(module.student), student, rtol=0, atol=0)


def test_the_momentum_grows_to_1(module):
    with torch.no_grad():
        for parameter in module.student.parameters():
            parameter.add_(1.0)
    module.trainer.global_step = 10
    teacher = weights(module.teacher)
    module.on_train_batch_end(None, [], 9)
    assert_close(weights(module.teacher), teacher, rtol=0, atol=0)


@pytest.mark.parametrize(("epoch", "frozen"), [(0, True), (1, False)])
def test_the_last_layer_of_the_head_is_frozen_in_the_first_epochs(module, batch, epoch, frozen):
    module.trainer.current_epoch = epoch
    before = weights(module.student.head.last_layer)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.1)
    module.training_step(batch, 0).backward()
    module.on_before_optimizer_step(optimiser)
    optimiser.step()
    unchanged = [torch.equal(new, before[name]) for name, new in module.student.head.last_layer.state_dict().items()]
    assert all(unchanged) == frozen


def test_the_teacher_sees_without_the_random_layers_of_the_student(module, batch):
    globals_ = TokenBatch.collate(batch[:2])
    with torch.no_grad():
        assert torch.equal(module.teacher(globals_)[1], module.teacher(globals_)[1])
        assert not torch.equal(module.student(globals_)[1], module.student(globals_)[1])


def test_the_loss_compares_only_different_views(module, batch, monkeypatch):
    seen = {}

    def criterion(teacher, student, epoch):
        seen.update(teacher=teacher, student=student, epoch=epoch)
        return student[0].sum()

    monkeypatch.setattr(module, "criterion", torch.nn.Identity())
    monkeypatch.setattr(module.criterion, "forward", criterion)
    module.student.load_state_dict(module.teacher.state_dict())
    module.student.eval()
    module.training_step(batch, 0)
    assert [len(views) for views in (seen["teacher"], seen["student"])] == [2, 4]
    for teacher, student in zip(seen["teacher"], seen["student"], strict=False):  # the same view at the same place
        assert_close(teacher, student)


def test_a_branch_gives_one_vector_and_one_projection_for_each_crop(config, batch):
    begin(config)
    features, projections = Branch(config.encoder, config.objective)(batch[2])
    assert features.shape == (4, config.encoder.width)
    assert projections.shape == (4, config.objective.prototypes)


def test_the_spread_is_0_at_collapse_and_about_1_for_scattered_features():
    torch.manual_seed(0)
    assert spread(torch.ones(8, 5)) == pytest.approx(0, abs=1e-6)
    assert spread(torch.randn(4000, 64)) == pytest.approx(1, abs=0.02)
