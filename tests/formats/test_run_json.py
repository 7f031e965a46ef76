import pytest

from longvit.formats.run_json import Start, add_start, read_starts
from longvit.runs.folder import provenance
from preprocessing.errors import ConfigError


def test_every_start_is_added_and_what_others_wrote_stays(tmp_path):
    assert read_starts(tmp_path) == []
    (tmp_path / "run.json").write_text('[{"verb": "tile", "more": [1]}]')
    add_start(tmp_path, provenance("tile"))
    first, second = read_starts(tmp_path)
    assert first == {"verb": "tile", "more": [1]}
    assert set(second) == set(Start.__annotations__)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[1]", '[{"verbs": 1}]', "[" * 100_000, "\u0000"])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        read_starts(tmp_path)
    with pytest.raises(ConfigError, match="damaged"):
        add_start(tmp_path, provenance("tile"))
    assert (tmp_path / "run.json").read_text() == text
