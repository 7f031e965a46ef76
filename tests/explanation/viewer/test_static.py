import hashlib
import re
from importlib.resources import files

import cv2
import numpy as np
import pytest

from longvit.config import ViewConfig
from longvit.explanation.viewer import run as viewing
from longvit.explanation.viewer.find import find
from longvit.explanation.viewer.run import run
from longvit.explanation.viewer.site import LIBRARY, PAGE, SCRIPTS, START, Site, page_file
from longvit.explanation.viewer.static import write_static
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


def test_a_page_that_is_there_is_replaced_and_anything_else_is_left_alone(planted, tmp_path):
    site = Site(find(ViewConfig(source=planted.store.path)), 256)
    write_static(site, tmp_path / "page")
    (tmp_path / "page" / "old").touch()
    write_static(site, tmp_path / "page")
    assert not (tmp_path / "page" / "old").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="no page of ours"):
        write_static(site, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_nothing_of_the_page_names_another_machine():
    ours = {name: page_file(name).replace(NAMESPACE, b"") for name in PAGE if not name.startswith("openseadragon/")}
    assert {name: found.group() for name, text in ours.items() if (found := OUTSIDE.search(text))} == {}
    assert OUTSIDE.search(b"<script src='//cdn.example.org/x.js'>")


def test_the_page_loads_the_scripts_that_there_are_in_their_order():
    loaded = re.findall(rb'<script src="([^"]+)" defer>', page_file(START))
    assert [name.decode() for name in loaded] == [LIBRARY, *SCRIPTS]
    there = {file.name for file in files("longvit.explanation.viewer").joinpath("page").iterdir()}
    assert there == {"index.html", "style.css", "openseadragon", *SCRIPTS}


def test_openseadragon_is_the_file_of_its_package():
    said = files("longvit.explanation.viewer").joinpath("page", "openseadragon", "SOURCE.md").read_text()
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
