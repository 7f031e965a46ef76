import pytest

from longvit.formats.bounded import read_bytes, read_text
from preprocessing.errors import CohortError


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    assert read_text(tmp_path / "a", 5) == "12345"
    for read in (read_bytes, read_text):
        with pytest.raises(CohortError, match="more than 4 bytes"):
            read(tmp_path / "a", 4)


def test_an_absent_file_has_no_text_and_no_bytes(tmp_path):
    assert read_text(tmp_path / "a", 5) is None
    with pytest.raises(CohortError, match="cannot be read"):
        read_bytes(tmp_path / "a", 5)


def test_text_is_utf_8(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(CohortError, match="it is not UTF-8"):
        read_text(tmp_path / "a", 5)
