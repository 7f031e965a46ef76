from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.errors import CohortError
from preprocessing.manifest import SlideEntry, is_plain_name, read_manifest

SLIDES = Path(__file__).parents[2] / ".." / "shared" / "data" / "slides"


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"")


def write_csv(folder, text):
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return folder / "manifest.csv"


def test_one_slide_is_a_cohort(tmp_path):
    touch(tmp_path, "a.svs")
    assert read_manifest(tmp_path / "a.svs") == [SlideEntry("a", tmp_path / "a.svs")]


def test_a_folder_gives_its_slides_in_order_and_nothing_else(tmp_path):
    touch(tmp_path, "b.SVS", "a.tiff", "notes.txt", "._b.svs", "größe 1.ndpi")
    (tmp_path / "below.svs").mkdir()
    assert [entry.slide_id for entry in read_manifest(tmp_path)] == ["a", "b", "größe 1"]


def test_a_csv_gives_paths_beside_it_and_resolutions(tmp_path):
    table = write_csv(tmp_path, "\ufeffslide_id,path,mpp,site\nx,slides/1.svs,0.25,A\ny,/data/2.svs,,B\n")
    assert read_manifest(table) == [
        SlideEntry("x", tmp_path / "slides/1.svs", 0.25),
        SlideEntry("y", Path("/data/2.svs"), None),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("slide,file\nx,1.svs\n", "no column slide_id and no column path, it has slide, file"),
        ("", "no column slide_id"),
        ("slide_id,path\n", "no rows"),
        ("slide_id,path,mpp\nx,1.svs,half\n,2.svs,\ny,3.svs,\n", "line 2: .*half.*; line 3: slide_id or path is empty"),
        ("slide_id,path\n../x,1.svs\n", "'../x' is not a plain name"),
        ("slide_id,path\n.x,1.svs\n", "'.x' is not a plain name"),
        ("slide_id,path\nx,1.svs\nX,2.svs\n", "'x' names 2 slides"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why(tmp_path, text, sentence):
    with pytest.raises(CohortError, match=sentence):
        read_manifest(write_csv(tmp_path, text))


def test_two_slides_of_one_name_in_a_folder_are_refused(tmp_path):
    touch(tmp_path, "a.svs", "a.tiff")
    with pytest.raises(CohortError, match="'a' names 2 slides"):
        read_manifest(tmp_path)


def test_an_empty_folder_and_a_missing_path_are_refused(tmp_path):
    with pytest.raises(CohortError, match="no file of this folder"):
        read_manifest(tmp_path)
    with pytest.raises(CohortError, match="no such slide"):
        read_manifest(tmp_path / "none")


@given(name=st.text(max_size=20))
def test_a_plain_name_is_one_part_of_a_path(name):
    if is_plain_name(name):
        assert Path("folder", name).parts == ("folder", name)
        assert name not in (".", "..")


def test_dicom_files_of_one_series_are_one_slide(tmp_path):
    uid = b"\x20\x00\x0e\x00UI\x06\x001.2.3\x00"
    for name in ("b.dcm", "c.dcm"):
        (tmp_path / name).write_bytes(b"header" + uid + b"rest")
    (tmp_path / "d.dcm").write_bytes(b"header" + uid.replace(b"1.2.3", b"1.2.4"))
    assert [entry.path.name for entry in read_manifest(tmp_path)] == ["b.dcm", "d.dcm"]


@pytest.mark.skipif(not SLIDES.exists(), reason="no shared slides on this machine")
def test_the_series_of_real_dicom_files_is_found():
    names = {entry.path.name for entry in read_manifest(SLIDES)}
    assert "boxes_0.dcm" in names
    assert "boxes_1.dcm" not in names
