import pytest

from longvit.config import EncoderConfig, FinetuneOptimiserConfig, SubtypeTask
from longvit.finetuning.finetune_module import FinetuneModule
from longvit.finetuning.layer_decay import layer_of, train_last_blocks
from longvit.model import LongViT
from longvit.model.predictor import SlideModel
from longvit.training.loop import optimiser_groups


@pytest.fixture
def rich_model(tiny_encoder) -> SlideModel:
    """A model with every kind of parameter there is."""
    values = {"class_token": True, "final_norm": "both", "position": {"kind": "learned", "grid": 4}, "depth": 3}
    encoder = EncoderConfig.model_validate(tiny_encoder.model_dump() | values)
    return SlideModel(LongViT(encoder), SubtypeTask(), ("a", "b"), "attention")


def trained(model: SlideModel) -> set[int]:
    """Layers with a parameter that is trained; none has both."""
    layers = {True: set(), False: set()}
    for name, parameter in model.named_parameters():
        if name.startswith("encoder."):
            layers[parameter.requires_grad].add(layer_of(name, 3))
        else:
            assert parameter.requires_grad
    assert not layers[True] & layers[False]
    return layers[True]


@pytest.mark.parametrize(("blocks", "layers"), [(0, set()), (1, {3, 4}), (2, {2, 3, 4}), (3, {1, 2, 3, 4})])
def test_the_last_blocks_are_trained_and_the_norms_after_them(rich_model, blocks, layers):
    frozen = train_last_blocks(rich_model, blocks)
    assert trained(rich_model) == layers
    assert frozen == list(rich_model.encoder.encoder.layers)[: 3 - blocks]


def test_by_default_everything_is_trained(rich_model):
    assert train_last_blocks(rich_model, None) == []
    assert trained(rich_model) == {0, 1, 2, 3, 4}


def test_layers_are_numbered_from_the_patches_to_the_head(rich_model):
    assert layer_of("encoder.input.proj.weight", 3) == 0
    assert layer_of("encoder.position.table", 3) == 0
    assert layer_of("encoder.class_token.vector", 3) == 0
    assert layer_of("encoder.encoder.layers.0.ffn.fc1.weight", 3) == 1
    assert layer_of("encoder.encoder.layers.2.self_attn.q_proj.bias", 3) == 3
    assert {layer_of(name, 3) for name in ("encoder.encoder.layer_norm.weight", "encoder.pooling.norm.bias")} == {4}
    assert {layer_of(name, 3) for name in ("head.linear.weight", "attention.score.weight")} == {4}
    assert {layer_of(name, 3) for name, _ in rich_model.named_parameters()} == {0, 1, 2, 3, 4}


def test_the_learning_rate_falls_by_the_decay_from_layer_to_layer(rich_model, config):
    optimiser = FinetuneOptimiserConfig(learning_rate=1.0, layer_decay=0.5)
    module = FinetuneModule(rich_model, config.model_copy(update={"optimiser": optimiser}))
    rate_of = {
        id(parameter): group["lr"]
        for group in optimiser_groups(module, optimiser, module.rate_of)
        for parameter in group["params"]
    }
    expected = {0: 0.0625, 1: 0.125, 2: 0.25, 3: 0.5, 4: 1.0}
    for name, parameter in rich_model.named_parameters():
        assert rate_of[id(parameter)] == expected[layer_of(name, 3)], name
    assert len(rate_of) == len(list(rich_model.parameters()))


def test_without_decay_all_layers_learn_alike(rich_model, config):
    module = FinetuneModule(rich_model, config)
    assert {group["lr"] for group in optimiser_groups(module, config.optimiser, module.rate_of)} == {0.01}


def test_frozen_blocks_draw_no_dropout_and_trained_ones_do(rich_model, config):
    module = FinetuneModule(rich_model, config.model_copy(update={"trained_blocks": 1})).train()
    first, second, third = module.model.encoder.encoder.layers
    assert not any(part.training for block in (first, second) for part in block.modules())
    assert all(part.training for part in third.modules())
    assert module.model.head.training
    assert not any(part.training for part in module.eval().modules())
