import hashlib
import os
import shutil

import pytest

from preprocessing.slides.dicom import series_uid
from preprocessing.slides.source import describe, has_changed, identity, slide_files
from preprocessing.store.schema import Source

UID = b"\x20\x00\x0e\x00UI\x06\x001.2.3"


@pytest.fixture
def folder(tmp_path):
    """Slides of several files, and files that are none of theirs."""
    files = {
        "a.svs": b"aperio",
        "one.dcm": b"head" + UID + b"4 pixels",
        "two.dcm": b"head" + UID + b"4 more",
        "other.dcm": b"head" + UID + b"5",
        "nothing.dcm": b"no series",
        "m.mrxs": b"",
        "m/Slidedat.ini": b"[GENERAL]",
        "m/Data0001.dat": b"tiles",
        "n/Data0001.dat": b"tiles",
        "v.vms": b"[Virtual]\r\nImageFile=v.jpg\r\nImageFile(1,0)= v_x1.jpg\nMacroImage=../a.svs\nMapFile=gone.opt\n",
        "alone.mrxs": b"",
        "noise.vms": b"=" + b"a" * 5000 + b"\n=\0\n=..\n=\xff\xfe\n",
        "v.jpg": b"left",
        "v_x1.jpg": b"right",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("opened", "more"),
    [
        ("a.svs", []),
        ("one.dcm", ["two.dcm"]),
        ("two.dcm", ["one.dcm"]),
        ("nothing.dcm", []),
        ("m.mrxs", ["m/Data0001.dat", "m/Slidedat.ini"]),
        ("v.vms", ["v.jpg", "v_x1.jpg"]),
        ("alone.mrxs", []),
        ("noise.vms", []),
        ("missing.dcm", []),
        ("m", []),
    ],
)
def test_the_files_of_a_slide(folder, opened, more):
    assert slide_files(folder / opened) == [folder / name for name in (opened, *more)]


def test_an_unreadable_file_beside_it_is_not_of_the_series(folder, monkeypatch):
    def refuse(file, read=series_uid):
        if file.name == "two.dcm":
            raise PermissionError(file)
        return read(file)

    monkeypatch.setattr("preprocessing.slides.dicom.series_uid", refuse)
    assert slide_files(folder / "one.dcm") == [folder / "one.dcm"]


def test_a_file_that_is_replaced_is_asked_for_its_series_again(folder):
    assert slide_files(folder / "one.dcm")[1:] == [folder / "two.dcm"]
    (folder / "two.dcm").write_bytes(b"head" + UID.replace(b"1.2.3", b"1.2.4"))
    os.utime(folder / "two.dcm", ns=(1, 1))
    assert slide_files(folder / "one.dcm")[1:] == []


def test_size_and_hash_are_of_all_files_and_of_one_alone_are_its_own(folder):
    source = describe(slide_files(folder / "v.vms"))
    contents = [(folder / name).read_bytes() for name in ("v.vms", "v.jpg", "v_x1.jpg")]
    assert (source.name, source.more, source.size) == ("v.vms", ("v.jpg", "v_x1.jpg"), sum(map(len, contents)))
    assert source.sha256 == hashlib.sha256(b"".join(contents)).hexdigest()
    assert describe([folder / "a.svs"]) == Source(name="a.svs", size=6, sha256=hashlib.sha256(b"aperio").hexdigest())


@pytest.fixture
def later(folder):
    """The document of a store, written after the slides."""
    document = folder / "zarr.json"
    document.touch()
    os.utime(document, ns=(2**62, 2**62))
    return document


@pytest.mark.parametrize("opened", ["a.svs", "one.dcm", "m.mrxs", "v.vms"])
def test_a_slide_has_changed_when_any_of_its_files_has(folder, later, opened):
    path = folder / opened
    files = slide_files(path)
    source, before = describe(files), identity(files)
    assert not has_changed(path, source, later)
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content + b"!")
        assert has_changed(path, source, later)
        assert identity(files) != before
        file.write_bytes(content)
        assert not has_changed(path, source, later)
        if content:
            file.write_bytes(content[::-1])  # as long as before, and after the store
            os.utime(file, ns=(2**62 + 1, 2**62 + 1))
            assert has_changed(path, source, later)
        file.write_bytes(content)
        os.utime(file, ns=(2**62 + 1, 2**62 + 1))
        assert not has_changed(path, source, later)
        assert later.stat().st_mtime_ns == 2**62 + 1  # so that the next run need not read it
        os.utime(later, ns=(2**62, 2**62))
        os.utime(file, ns=(1, 1))
        hidden = file.with_name("hidden")
        shutil.move(file, hidden)
        assert has_changed(path, source, later)
        assert None in identity(files)
        shutil.move(hidden, file)
    assert not has_changed(path, source, later)


def test_a_store_that_knows_one_file_of_several_is_compared_by_that(folder, later):
    path = folder / "one.dcm"
    source = describe([path])
    assert not has_changed(path, source, later)
    (folder / "two.dcm").write_bytes(b"?")
    assert not has_changed(path, source, later)
