from pathlib import Path

import pytest

from preprocessing.errors import CohortError
from preprocessing.tiling import search
from preprocessing.tiling.search import files_below, is_pattern, slides_below


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_slides_are_found_below_and_unfinished_and_hidden_files_are_not(tmp_path):
    make(tmp_path, "u1/a.svs", "u1/logs/a.svs", "u1/annotations.txt", "u2/deep/er/b.NDPI", "u3/c.svs.partial")
    make(tmp_path, ".trash/d.svs", "._a.svs", "s.zarr/e.tif", "__MACOSX/f.svs")
    make(tmp_path, "m.mrxs", "m/Slidedat.ini", "m/inner.tif")
    assert [name for name, _ in slides_below(tmp_path)] == ["m.mrxs", "a.svs", "b.NDPI"]


def test_links_are_followed_once(tmp_path):
    make(tmp_path, "far/a.svs", "here/c.svs")
    (tmp_path / "here" / "one").symlink_to(tmp_path / "far")
    (tmp_path / "here" / "two").symlink_to(tmp_path / "far")
    (tmp_path / "here" / "loop").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "again").mkdir()
    (tmp_path / "here" / "again" / "c.svs").symlink_to(tmp_path / "here" / "c.svs")
    assert [path.relative_to(tmp_path / "here") for _, path in slides_below(tmp_path / "here")] == [
        Path("c.svs"),
        Path("one/a.svs"),
    ]


def test_a_folder_without_slides_is_refused_with_what_is_there(tmp_path):
    make(tmp_path, "a.h5", "b/c.h5", "d.pdf")
    with pytest.raises(CohortError, match=r"there are: 2 \.h5, 1 \.pdf"):
        slides_below(tmp_path)


def test_a_search_of_a_disk_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "MAX_FILES", 3)
    make(tmp_path, *"abcd")
    with pytest.raises(CohortError, match="more than 3 files"):
        files_below(tmp_path)


def test_an_existing_file_with_brackets_is_not_a_pattern(tmp_path):
    make(tmp_path, "a[1].svs")
    assert not is_pattern(tmp_path / "a[1].svs")
    assert is_pattern(tmp_path / "*.svs")
