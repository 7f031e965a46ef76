import pytest

from preprocessing.slides.names import ENDINGS, has_ending, other_kind, without_ending


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_cut_in_any_case_and_dots_stay(ending):
    assert without_ending(f"a.b{ending}") == without_ending(f"a.b{ending.upper()}") == "a.b"
    assert has_ending(f"x{ending}")


def test_names_without_an_ending_stay():
    assert without_ending("TCGA-05-4244-01Z-00-DX1.d4ff32cd") == "TCGA-05-4244-01Z-00-DX1.d4ff32cd"
    assert not has_ending("a.svs.partial")


def test_bytes_that_may_be_a_slide_have_no_other_kind(tmp_path):
    for head in (b"II*\0\x08", b"", b"\0" * 132 + b"DICM", bytes(range(256))):
        (tmp_path / "x").write_bytes(head)
        assert other_kind(tmp_path / "x") is None
