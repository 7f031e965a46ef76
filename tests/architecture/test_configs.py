"""The YAML files that users start from."""

import pytest

from longvit.cli.app import app
from longvit.cli.parsing import Request
from longvit.config import VERBS
from longvit.config.yaml_files import load_yaml, reference_yaml, to_yaml
from longvit.demo import TASKS
from preprocessing.config import StageConfig

TINY = {"tile": "tile", "pretrain": "pretrain", "finetune_subtype": "finetune", "finetune_survival": "finetune"}


def test_every_verb_of_the_command_line_has_a_config_and_every_config_a_verb():
    assert [name for name in app if not name.startswith("-")] == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_is_what_the_code_generates(verb, root):
    written = (root / "configs" / "reference" / f"{verb}.yaml").read_text(encoding="utf-8")
    assert written == reference_yaml(VERBS[verb]), "run `make configs`"


@pytest.mark.parametrize("verb", VERBS)
def test_the_reference_can_be_read_by_its_verb(verb, root):
    path = root / "configs" / "reference" / f"{verb}.yaml"
    assert isinstance(load_yaml(path, VERBS[verb]), StageConfig)
    request = Request.read([verb, "--config", str(path)])
    assert set(request.values) == set(VERBS[verb].model_fields)


def test_the_demo_runs_every_tiny_config(root):
    used = {"tile", "pretrain", *(f"finetune_{task}" for task in TASKS)}
    assert {path.stem for path in (root / "configs" / "tiny").iterdir()} == used == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_config_survives_being_written_and_read(name, root, tmp_path):
    config = load_yaml(root / "configs" / "tiny" / f"{name}.yaml", VERBS[TINY[name]])
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(config), encoding="utf-8")
    assert load_yaml(copy, type(config)) == config


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_has_a_sentence(verb):
    def undocumented(kind: type, prefix: str) -> list[str]:
        missing = []
        for name, field in kind.model_fields.items():
            if not (field.description or "").strip().endswith("."):
                missing.append(f"{prefix}{name}")
            if isinstance(field.default, StageConfig):
                missing += undocumented(type(field.default), f"{prefix}{name}.")
        return missing

    assert undocumented(VERBS[verb], "") == []
