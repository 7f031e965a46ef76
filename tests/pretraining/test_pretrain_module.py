"""What holds for every objective."""

import copy

import pytest
import torch
from torch.testing import assert_close

from longvit.config import ExecutionConfig
from longvit.tokens import TokenBatch


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(module.state_dict())


def trained_step(module, batch) -> None:
    """What Lightning does with one batch."""
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-2)
    module.optimizer_step(0, 0, optimiser, lambda: module.training_step(batch, 0).backward())


def test_the_loss_is_finite_and_reaches_every_weight_that_is_trained(any_config, start, batch):
    module = start(any_config)
    loss = module.training_step(batch[:2], 0)
    loss.backward()
    assert loss.isfinite()
    trained = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.isfinite().all() for grad in trained.values())
    assert any(grad.abs().max() > 0 for name, grad in trained.items() if ".encoder.encoder." in name)


def test_every_objective_is_computed_as_the_execution_says(any_config, start, batch, executions):
    execution = ExecutionConfig(recompute="all_but_attention", heads_at_once=1)
    start(any_config.model_copy(update={"execution": execution})).training_step(batch[:2], 0).backward()
    assert len(executions) == (1 if any_config.objective.kind == "masked" else 2)
    assert set(executions) == {execution}


def test_every_objective_logs_its_loss_and_the_statistics_of_its_features(any_config, start, batch):
    module = start(any_config)
    loss = module.training_step(batch[:2], 0)
    assert {"loss", "feature_std", "effective_rank"} <= set(module.logged)
    assert module.logged["loss"] is loss
    assert not any(value.requires_grad for name, value in module.logged.items() if name != "loss")


def test_a_step_trains_the_encoder_that_is_kept(any_config, start, batch):
    module = start(any_config)
    before = weights(module.kept)
    trained_step(module, batch[:2])
    matrices = {name: new for name, new in module.kept.state_dict().items() if new.ndim > 1}
    assert not any(torch.equal(new, before[name]) for name, new in matrices.items())


def test_the_kept_encoder_represents_as_its_checkpoint_will_and_leaves_training_as_it_was(any_config, start, batch):
    module = start(any_config).train()
    one, again = module.represent(batch[0]), module.represent(batch[0])
    assert one.shape == (4, any_config.encoder.width)
    assert not one.requires_grad
    assert torch.equal(one, again)
    assert_close(one, module.kept.eval().represent(batch[0]).detach())
    module.kept.train()
    module.represent(batch[0])
    assert module.kept.training


def test_a_resumed_run_does_the_same_steps(any_config, start, batch):
    """Steps after loading what a checkpoint holds: the queue, the centre, the moving average and the hidden tokens."""

    def steps(module, numbers) -> list[float]:
        losses = []
        for number in numbers:
            module.trainer.global_step = module.trainer.fit_loop.total_batch_idx = number
            module.on_train_batch_start(batch, number)
            losses.append(module.training_step(batch, number).item())
        return losses

    undisturbed = start(any_config).train()
    steps(undisturbed, [0, 1])
    resumed = start(any_config.model_copy(update={"seed": any_config.seed})).train()
    resumed.load_state_dict(weights(undisturbed))
    assert steps(resumed, [2, 3, 4]) == steps(undisturbed, [2, 3, 4])


@pytest.mark.parametrize("kind", ["dino", "moco"])
def test_the_teacher_starts_as_the_student(config, objectives, start, kind):
    module = start(config.model_copy(update={"objective": objectives[kind]}))
    assert_close(weights(module.teacher), weights(module.student), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["dino", "moco"])
@pytest.mark.parametrize(("step", "grown"), [(0, False), (9, True)])
def test_the_teacher_moves_by_a_momentum_that_grows_to_1(config, objectives, start, batch, kind, step, grown):
    module = start(config.model_copy(update={"objective": objectives[kind].model_copy(update={"momentum": 0.5})}))
    module.trainer.global_step = module.trainer.fit_loop.total_batch_idx = step
    teacher = {name: parameter.clone() for name, parameter in module.teacher.named_parameters()}
    momentum = module.momentum_now
    assert (momentum == 1) == grown
    assert grown or 0.5 < momentum < 0.6
    trained_step(module, batch)
    for name, new in module.student.named_parameters():
        expected = momentum * teacher[name] + (1 - momentum) * new
        assert_close(module.teacher.get_parameter(name), expected.detach())


@pytest.mark.parametrize("kind", ["dino", "moco"])
def test_the_teacher_sees_without_the_random_layers_of_the_student(config, objectives, start, batch, kind):
    module = start(config.model_copy(update={"objective": objectives[kind]})).train()
    globals_ = TokenBatch.collate(batch[:2])
    with torch.no_grad():
        assert torch.equal(module.teacher(globals_)[1], module.teacher(globals_)[1])
        assert not torch.equal(module.student(globals_)[1], module.student(globals_)[1])


@pytest.mark.parametrize("kind", ["dino", "moco"])
def test_the_teacher_gets_no_gradient(config, objectives, start, batch, kind):
    module = start(config.model_copy(update={"objective": objectives[kind]}))
    module.training_step(batch, 0).backward()
    assert all(p.grad is None and not p.requires_grad for p in module.teacher.parameters())


def test_masked_modelling_has_no_momentum(config, objectives, start):
    assert start(config.model_copy(update={"objective": objectives["masked"]})).momentum_now is None
