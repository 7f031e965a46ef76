import json
import time
import tracemalloc
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
        ("slide_id;path;mpp\nx;1.svs;1.000,25\n", "line 2: .*'1.000,25'"),
        ("id\tfilename\tmd5\n../u\ta.svs\t0\n", "line 2: id or filename is not a plain name: '../u'"),
        ("id\tfilename\tmd5\nu\t../a.svs\t0\n", "line 2: id or filename is not a plain name"),
        ("id\tfilename\tmd5\nu\ta.maf.gz\t0\n", "the manifest has no slides"),
        ("wsi,mpp\n,0.5\n", "line 2: wsi is empty"),
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


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_the_decimal_sign_may_be_a_comma_if_the_comma_does_not_separate_cells(tmp_path, delimiter):
    table = write_csv(tmp_path, "slide_id;path;mpp\nx;1.svs;0,25\ny;2.svs;0,5\n".replace(";", delimiter))
    assert [entry.mpp for entry in read_manifest(table)] == [0.25, 0.5]


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
    assert read_manifest(tmp_path) == [
        SlideEntry("one", tmp_path / "one" / "b.dcm"),
        SlideEntry("a", tmp_path / "two" / "a.dcm"),
        SlideEntry("b", tmp_path / "two" / "b.dcm"),
    ]
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


def test_a_list_names_its_slides_in_lines(tmp_path):
    touch(tmp_path, "a.b.svs")
    (tmp_path / "my.txt").write_text("# scanned in May\n\na.b.svs\n  /data/c.ome.tiff \n")
    assert read_manifest(tmp_path / "my.txt") == [
        SlideEntry("a.b", tmp_path / "a.b.svs"),
        SlideEntry("c", Path("/data/c.ome.tiff")),
    ]
    (tmp_path / "my.txt").write_text("Dear colleague,\n")
    with pytest.raises(CohortError, match="line 1: 'Dear colleague,' does not have a slide's ending"):
        read_manifest(tmp_path / "my.txt")


@pytest.mark.parametrize("name", ["gdc_manifest.txt", "gdc_manifest.tsv"])
def test_a_manifest_of_gdc_client_finds_its_files_as_it_downloaded_them_or_by_name(tmp_path, name):
    for folder, file in (("u1", "A.1.svs"), ("moved/below", "B.svs"), ("u1/logs", "A.1.svs.parcel")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        touch(tmp_path / folder, file)
    rows = ("u1\tA.1.svs\tAB\t0", "u2\tB.svs\tcd\t0", "u3\tC.svs\tef\t0", "u4\tx.maf.gz\t12\t0")
    manifest = tmp_path / name
    manifest.write_text("id\tfilename\tmd5\tsize\n" + "\n".join(rows) + "\n")
    notes = []
    entries = read_manifest(manifest, note=notes.append)
    assert [(e.slide_id, e.path.relative_to(tmp_path).as_posix(), e.md5) for e in entries] == [
        ("A.1", "u1/A.1.svs", "ab"),
        ("B", "moved/below/B.svs", "cd"),
        ("C", "u3/C.svs", "ef"),  # fails by name later
    ]
    assert notes == [f"{name}: 1 of 4 files are left out, which are not slides"]
    (tmp_path / "elsewhere").mkdir()
    moved = manifest.rename(tmp_path / "elsewhere" / name)
    assert [e.path for e in read_manifest(moved, folder=tmp_path)] == [e.path for e in entries]
    (tmp_path / "moved" / "again").mkdir()
    touch(tmp_path / "moved" / "again", "B.svs")
    with pytest.raises(CohortError, match="line 3: several files have the name: "):
        read_manifest(moved, folder=tmp_path)


def test_the_list_of_trident_gives_slides_and_their_resolution(tmp_path):
    (tmp_path / "wsis").mkdir()
    touch(tmp_path / "wsis", "a.svs", "b.svs")
    list_ = write_csv(tmp_path, "wsi,mpp\na.svs,0.25\nb.svs,\n")
    expected = [SlideEntry("a", tmp_path / "wsis/a.svs", 0.25), SlideEntry("b", tmp_path / "wsis/b.svs")]
    assert read_manifest(list_) == read_manifest(list_, folder=tmp_path / "wsis") == expected


def test_the_images_of_a_qupath_project_are_slides(tmp_path):
    (tmp_path / "my project").mkdir()
    touch(tmp_path, "a b.svs", "c.ndpi")
    uri = {"builderType": "uri", "uri": (tmp_path / "a b.svs").as_uri(), "args": []}
    turned = {"builderType": "rotated", "builder": {"builderType": "uri", "uri": "file:/C:/old/c.ndpi"}}
    images = [{"serverBuilder": builder, "entryID": n} for n, builder in enumerate((uri, turned, uri))]
    project = tmp_path / "my project" / "project.qpproj"
    project.write_text(json.dumps({"version": "0.5.1", "images": images}))
    assert read_manifest(project) == [SlideEntry("a b", tmp_path / "a b.svs"), SlideEntry("c", tmp_path / "c.ndpi")]
    for text, sentence in (
        ('{"images": [{"serverBuilder": {"uri": "https://omero/1"}}]}', "image 1 is not a file: 'https://omero/1'"),
        ('{"images": [{}]}', "not a QuPath project: KeyError"),
        ("[" * 100_000, "not a QuPath project: RecursionError"),
    ):
        project.write_text(text)
        with pytest.raises(CohortError, match=sentence):
            read_manifest(project)


def test_several_places_and_patterns_list_each_slide_once(tmp_path):
    for folder in ("u1", "u2"):
        (tmp_path / folder).mkdir()
        touch(tmp_path / folder, f"{folder}.svs", "annotations.txt")
    both = [SlideEntry("u1", tmp_path / "u1/u1.svs"), SlideEntry("u2", tmp_path / "u2/u2.svs")]
    assert read_manifest(tmp_path / "*" / "*.svs") == both
    assert read_manifest([tmp_path / "u*", tmp_path / "u2" / "u2.svs"]) == both
    with pytest.raises(CohortError, match="nothing matches this pattern"):
        read_manifest(tmp_path / "*.ndpi")
    with pytest.raises(CohortError, match="2 files match, none with a slide's ending"):
        read_manifest(tmp_path / "*" / "*.txt")


def test_slides_with_one_name_are_refused_by_both_paths_or_named_by_their_folder(tmp_path):
    for folder in ("u1", "u2"):
        (tmp_path / folder).mkdir()
        touch(tmp_path / folder, "x.ome.tif")
    with pytest.raises(CohortError, match=r"'x' is the id of 2 slides: .*u1.x\.ome\.tif, .*u2.x\.ome\.tif") as error:
        read_manifest(tmp_path)
    assert "--id-from folder" in error.value.fix
    assert [entry.slide_id for entry in read_manifest(tmp_path, id_from="folder")] == ["u1_x", "u2_x"]


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"%PDF-1.7", "a PDF document"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"PK\x03\x04", "a zip archive or an Excel table"),
        (b"hello", "a text file"),
        (b"<!DOCTYPE html>", "a web page"),
    ],
)
def test_a_file_that_is_not_a_slide_is_named_as_what_it_is(tmp_path, head, kind):
    (tmp_path / "file").write_bytes(head)
    with pytest.raises(CohortError, match=f"this is {kind}"):
        read_manifest(tmp_path / "file")


def test_thirty_thousand_slides_are_listed_in_seconds_and_little_memory(tmp_path):
    for i in range(300):
        (tmp_path / f"f{i}").mkdir()
        for j in range(100):
            open(f"{tmp_path}/f{i}/{i}-{j}.svs", "w").close()  # pathlib takes seconds
    rows = "\n".join(f"moved{i}\t{i}-{j}.svs\t0" for i in range(300) for j in range(100))
    (tmp_path / "gdc.txt").write_text(f"id\tfilename\tmd5\n{rows}\n")
    start = time.process_time()
    assert len(read_manifest(tmp_path)) == len(read_manifest(tmp_path / "gdc.txt")) == 30_000
    assert time.process_time() - start < 30
    tracemalloc.start()  # slow, so a tenth
    try:
        assert len(read_manifest([tmp_path / f"f{i}" for i in range(30)])) == 3000
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
