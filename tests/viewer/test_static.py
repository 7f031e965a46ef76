import hashlib
import re
import shutil
import socket
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from longvit.config import ViewConfig
from longvit.runs.privacy import Pseudonyms
from longvit.viewer import view as viewing
from longvit.viewer.find import find
from longvit.viewer.site import LIBRARY, PAGE, SCRIPTS, START, Site, page_file
from longvit.viewer.static import write_static
from longvit.viewer.view import run
from preprocessing.errors import ConfigError

OUTSIDE = re.compile(
    rb"(?:https?:)?//[a-z0-9-]+\.[a-z]|@import|\bfetch\(|XMLHttpRequest|WebSocket|EventSource\(|sendBeacon"
)
NAMESPACE = b"http://www.w3.org/2000/svg"  # a name, which nobody asks for


def test_the_folder_holds_every_file_of_the_page(planted, tmp_path):
    site = Site(find(ViewConfig(source=planted.explanations)), 256)
    page = write_static(site, tmp_path / "out")
    assert page == tmp_path / "out" / "index.html"
    there = {str(file.relative_to(page.parent)) for file in page.parent.rglob("*") if file.is_file()}
    assert there == set(site.paths())
    assert {*PAGE, "data/index.js", "data/0/slide.js", "data/0/layers/2.js"} <= there
    for path in there:
        assert (page.parent / path).read_bytes() == site.find(path).make()


def test_the_pyramid_keeps_the_bound_that_the_user_set(planted, tmp_path, capsys):
    run(ViewConfig(source=planted.store.path, static=tmp_path / "out", max_px=256))
    tiles = sorted((tmp_path / "out" / "data" / "0" / "tiles").rglob("*.jpg"))
    assert [cv2.imread(str(tile)).shape for tile in tiles] == [(205, 256, 3)]
    assert re.search(r"\d\.\d MB; slides are at most 256 pixels", capsys.readouterr().out)


def test_the_tiles_of_the_finest_level_put_the_slide_together(planted):
    site = Site(find(ViewConfig(source=planted.store.path)))
    tiles = [cv2.imdecode(np.frombuffer(site.find(f"data/0/tiles/9/{x}_0.jpg").make(), np.uint8), 1) for x in (0, 1)]
    whole = np.concatenate(tiles, axis=1)[..., ::-1].astype(int)
    assert whole.shape == (256, 320, 3)
    row, column = planted.store.rc[2]
    shown = whole[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64]
    assert np.abs(shown.mean((0, 1)) - planted.store.read_tiles([2])[0].mean((0, 1))).max() < 3


def test_a_page_that_is_there_is_replaced(planted, tmp_path):
    site = Site(find(ViewConfig(source=planted.store.path)), 256)
    write_static(site, tmp_path / "page")
    (tmp_path / "page" / "data" / "7").mkdir()
    write_static(site, tmp_path / "page")
    assert not (tmp_path / "page" / "data" / "7").exists()


@pytest.mark.parametrize(
    "names", [["thesis.tex"], ["index.html"], ["index.html", "data/table.csv"], ["PAGE", "thesis.tex"]]
)
def test_anything_else_is_left_alone(planted, tmp_path, names):
    site, mine = Site(find(ViewConfig(source=planted.store.path)), 256), tmp_path / "mine"
    if "PAGE" in names:
        write_static(site, mine)
    for name in names[-1:] if "PAGE" in names else names:
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("mine")
    with pytest.raises(ConfigError, match="not a page of the viewer"):
        write_static(site, mine)
    assert (mine / names[-1]).read_text() == "mine"


def test_a_file_or_a_link_is_left_alone(planted, tmp_path):
    site = Site(find(ViewConfig(source=planted.store.path)), 256)
    (tmp_path / "file").write_text("mine")
    write_static(site, tmp_path / "page")
    (tmp_path / "link").symlink_to(tmp_path / "page")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="not a page of the viewer"):
            write_static(site, tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def texts(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_page_names_neither_folders_nor_the_machine(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "host-of-alice")
    monkeypatch.setenv("USER", "alice-the-user")
    run(planted.config.model_copy(update={"static": tmp_path / "out", "max_px": 256}))
    secrets = [str(planted.run), str(planted.store.path.parent), "host-of-alice", "alice-the-user"]
    written = texts(tmp_path / "out")
    assert {"index.html", "data/index.js"} <= set(written)
    for name, content in written.items():
        assert [one for one in secrets if one.encode() in content] == [], name


def test_a_page_with_pseudonyms_holds_no_id(planted, cohort, tmp_path):
    config = planted.config.model_copy(
        update={"static": tmp_path / "out", "max_px": 256, "pseudonyms": tmp_path / "key"}
    )
    run(config)
    name = Pseudonyms.read(tmp_path / "key").of("P00")
    written = texts(tmp_path / "out")
    assert name.encode() in written["data/index.js"]
    ids = re.compile(rb"\bP(0\d|1[01])(-\d)?\b")
    for path, content in written.items():
        if path not in PAGE and not path.endswith((".jpg", ".png")):
            assert ids.search(content) is None, path


def test_a_broken_slide_says_so_on_the_page_without_its_folder(cohort, tmp_path, capsys):
    shutil.copytree(cohort.stores / "P00-0.zarr", tmp_path / "P00-0.zarr")
    sites = [Site(find(ViewConfig(source=tmp_path, pseudonyms=key))) for key in (None, tmp_path / "key")]
    (tmp_path / "P00-0.zarr" / "zarr.json").write_text("{}")
    plain, hidden = (site.find("data/0/slide.js").make().decode() for site in sites)
    assert "cannot be read" in plain
    assert str(tmp_path) not in plain
    assert "the slide cannot be read" in hidden
    assert "P00-0" not in hidden
    assert "P00-0" in capsys.readouterr().err


def test_nothing_of_the_page_names_another_machine():
    ours = {name: page_file(name).replace(NAMESPACE, b"") for name in PAGE if not name.startswith("openseadragon/")}
    assert {name: found.group() for name, text in ours.items() if (found := OUTSIDE.search(text))} == {}
    assert OUTSIDE.search(b"<script src='//cdn.example.org/x.js'>")


def test_the_page_loads_the_scripts_that_there_are_in_their_order():
    loaded = re.findall(rb'<script src="([^"]+)" defer>', page_file(START))
    assert [name.decode() for name in loaded] == [LIBRARY, *SCRIPTS]
    there = {file.name for file in files("longvit.viewer").joinpath("page").iterdir()}
    assert there == {"index.html", "style.css", "openseadragon", *SCRIPTS}


def test_openseadragon_is_the_file_of_its_package():
    said = files("longvit.viewer").joinpath("page", "openseadragon", "SOURCE.md").read_text()
    assert hashlib.sha256(page_file(LIBRARY)).hexdigest() in said
    version = re.search(rb'versionStr:"([\d.]+)"', page_file(LIBRARY))[1].decode()
    assert said.startswith(f"OpenSeadragon {version},")
    assert b"Redistributions in binary form" in page_file("openseadragon/LICENSE.txt")


def test_without_static_the_page_is_served_until_interrupted(planted, monkeypatch, capsys):
    opened = []

    def interrupt(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(viewing.Server, "serve_forever", interrupt)
    monkeypatch.setattr(viewing.webbrowser, "open", opened.append)
    run(planted.config)
    assert opened == []
    run(planted.config.model_copy(update={"browser": True}))
    assert capsys.readouterr().out.count("http://127.0.0.1:") == 2
    assert opened[0].startswith("http://127.0.0.1:")
