import sys
from types import ModuleType

import pytest

import longvit
from preprocessing.jobs.lazy_names import lazy_names


@pytest.fixture
def package(monkeypatch) -> ModuleType:
    made = ModuleType("made")
    monkeypatch.setitem(sys.modules, "made", made)
    made.__getattr__, made.__dir__ = lazy_names("made", {"text": "string", "letters": "string:ascii_letters"})
    return made


def test_a_name_is_imported_when_it_is_used_and_then_kept(package):
    assert dir(package) == ["letters", "text"]
    assert "letters" not in vars(package)
    assert package.letters.startswith("abc")
    assert vars(package)["letters"] is package.letters
    assert package.text is sys.modules["string"]


def test_there_are_no_other_names(package):
    with pytest.raises(AttributeError, match="module 'made' has no attribute 'words'"):
        package.words  # noqa: B018


def test_the_stages_have_their_verb_and_its_settings():
    stages = {"pretraining", "finetuning", "encoding", "prediction", "explanation"}
    assert stages < set(dir(longvit))
    for name in stages:
        stage = getattr(longvit, name)
        assert "run" in dir(stage)
        (config,) = (one for one in dir(stage) if one.endswith("Config"))
        assert stage.run.__annotations__["config"] is getattr(stage, config)
