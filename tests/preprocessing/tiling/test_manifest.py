from pathlib import Path

import pytest

from preprocessing.config import TileConfig
from preprocessing.errors import CohortError, SlideError
from preprocessing.slides.slide import read_slide
from preprocessing.tile import tile_or_skip
from preprocessing.tiling.manifest import SlideEntry, read_manifest

SLIDES = Path(__file__).parents[3] / ".." / "shared" / "data" / "slides"


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
        ("", "the manifest is empty"),
        ("slide_id,path\n", "no rows"),
        ("slide_id,path,mpp\nx,1.svs,half\n,2.svs,\ny,3.svs,\n", "line 2: .*half.*; line 3: slide_id or path is empty"),
        ("slide_id,path\n../x,1.svs\n", "'../x' is not a plain name"),
        ("slide_id,path\n.x,1.svs\n", "'.x' is not a plain name"),
        ("slide_id,path\nx,1.svs\nX,2.svs\n", "'x' is the id of 2 slides"),
        ("slide_id,path\nx,1.svs\nx,1.svs\n", "'x' is the id of 2 slides"),
        ("slide_id,path\n\u00fc,1.svs\nu\u0308,2.svs\n", "'\u00fc' is the id of 2 slides"),
        ("slide_id,path\nx,a,b.svs\n", "a row of the manifest has 3 cells, more than the 2"),
        ('slide_id,path\nx,"1.svs\ny,2.svs\n', "unexpected end of data"),
        ('slide_id,path,mpp\nx,1.svs,"0,25"\n', "line 2: .*0,25"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why(tmp_path, text, sentence):
    with pytest.raises(CohortError, match=sentence):
        read_manifest(write_csv(tmp_path, text))


@pytest.mark.parametrize(("delimiter", "mpp"), [(",", "0.25"), (";", "0,25"), ("\t", "0,25"), (";", "0.25")])
def test_spreadsheets_may_separate_cells_as_they_do(tmp_path, delimiter, mpp):
    rows = (("slide_id", "path", "mpp"), ("x", "1.svs", mpp))
    table = write_csv(tmp_path, "".join(delimiter.join(row) + "\r\n" for row in rows))
    assert read_manifest(table) == [SlideEntry("x", tmp_path / "1.svs", 0.25)]


@pytest.mark.parametrize(("encoding", "said"), [("utf-8", ""), ("utf-16", ""), ("cp1252", "Windows-1252")])
def test_a_csv_is_read_in_the_encodings_of_spreadsheets_and_a_guess_is_said(tmp_path, encoding, said, capsys):
    (tmp_path / "manifest.csv").write_bytes("slide_id,path\ngr\u00f6\u00dfe,1.svs\n".encode(encoding))
    assert read_manifest(tmp_path / "manifest.csv") == [SlideEntry("gr\u00f6\u00dfe", tmp_path / "1.svs")]
    assert said in capsys.readouterr().err


def test_links_are_followed_and_a_broken_one_is_listed_to_fail_by_name(tmp_path):
    touch(tmp_path, "far.data")
    (tmp_path / "a.svs").symlink_to(tmp_path / "far.data")
    (tmp_path / "b.svs").symlink_to(tmp_path / "gone.svs")
    assert [entry.slide_id for entry in read_manifest(tmp_path)] == ["a", "b"]


def test_two_slides_of_one_name_in_a_folder_are_refused(tmp_path):
    touch(tmp_path, "a.svs", "a.tiff")
    with pytest.raises(CohortError, match="'a' is the id of 2 slides"):
        read_manifest(tmp_path)


def test_an_empty_folder_and_a_missing_path_are_refused(tmp_path):
    with pytest.raises(CohortError, match="no file in this folder"):
        read_manifest(tmp_path)
    with pytest.raises(CohortError, match="the slide, folder or manifest does not exist"):
        read_manifest(tmp_path / "none")


def test_dicom_files_of_one_series_are_one_slide(tmp_path):
    uid = b"\x20\x00\x0e\x00UI\x06\x001.2.3\x00"
    for name in ("b.dcm", "c.dcm"):
        (tmp_path / name).write_bytes(b"header" + uid + b"rest")
    (tmp_path / "d.dcm").write_bytes(b"header" + uid.replace(b"1.2.3", b"1.2.4"))
    assert [entry.path.name for entry in read_manifest(tmp_path)] == ["b.dcm", "d.dcm"]


def test_a_folder_of_dicom_files_within_the_folder_is_one_slide(tmp_path):
    uid = b"\x20\x00\x0e\x00UI\x06\x001.2.3\x00"
    for folder, names in {"one": ("b.dcm", "c.DCM"), "two": ("a.dcm", "b.dcm")}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(
                uid if folder == "one" else uid.replace(b"1.2.3", b"1.2." + name.encode()[:1])
            )
    entries = read_manifest(tmp_path)
    assert entries == [SlideEntry("one", tmp_path / "one" / "b.dcm"), SlideEntry("two", tmp_path / "two")]
    table = write_csv(tmp_path, "slide_id,path\nx,one\n")
    assert read_manifest(table) == [SlideEntry("x", tmp_path / "one" / "b.dcm")]


@pytest.mark.skipif(not SLIDES.exists(), reason="no shared slides on this machine")
def test_the_series_of_real_dicom_files_is_found():
    names = {entry.path.name for entry in read_manifest(SLIDES)}
    assert "boxes_0.dcm" in names
    assert "boxes_1.dcm" not in names


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0.svs", "a/" * 3000 + "b.svs"])
def test_paths_that_no_system_takes_are_refused_and_in_a_row_fail_alone(tmp_path, name):
    with pytest.raises(CohortError):
        read_manifest(tmp_path / name)
    if "\0" in name:
        return
    (entry,) = read_manifest(write_csv(tmp_path, f"slide_id,path\na,{name}\n"))
    with pytest.raises(SlideError):
        read_slide(entry.path)
    row = tile_or_skip(entry, TileConfig(slides=tmp_path, out=tmp_path / "out"))
    assert (row.status, "fault of the program" in row.fix) == ("failed", False)


@pytest.mark.parametrize("value", ["0_5", "1e", "\u0660.\u0665", "0x1", "x" * 1000])
def test_a_resolution_that_is_not_a_plain_number_is_refused(tmp_path, value):
    with pytest.raises(CohortError, match="line 2") as error:
        read_manifest(write_csv(tmp_path, f"slide_id,path,mpp\na,a.svs,{value}\n"))
    assert len(str(error.value)) < 1000


def test_thirty_thousand_bad_rows_are_counted_not_listed(tmp_path):
    rows = "\n".join(",a.svs" for _ in range(30_000))
    with pytest.raises(CohortError, match="and 29990 more") as error:
        read_manifest(write_csv(tmp_path, f"slide_id,path\n{rows}\n"))
    assert len(str(error.value)) < 2000
    rows = "\n".join(f"a/{i},a.svs" for i in range(30_000))
    with pytest.raises(CohortError, match="and 29990 more"):
        read_manifest(write_csv(tmp_path, f"slide_id,path\n{rows}\n"))


def test_a_manifest_larger_than_any_table_of_slides_is_not_read(tmp_path):
    with (tmp_path / "manifest.csv").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(CohortError, match=r"larger than .* 128 MB"):
        read_manifest(tmp_path / "manifest.csv")
