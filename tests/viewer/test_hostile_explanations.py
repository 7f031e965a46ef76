"""Law: an explanation from a stranger is shown as text, or refused in one sentence with its place and fix."""

import json
import os
import shutil
from pathlib import Path

import pytest

from longvit.config import ViewConfig
from longvit.viewer.find import find
from longvit.viewer.notebook import self_contained
from longvit.viewer.site import Site
from preprocessing.errors import PipelineError

HTML = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u2028</ScRiPt><!--")


@pytest.fixture
def hostile(planted, tmp_path):
    """A function: (changed text of a file) -> the page of the explanation, self-contained."""
    shutil.copytree(planted.explanations, tmp_path / "maps")

    def show(*, stores: Path | None = planted.store.path.parent, scores: str | None = None, **changes) -> str:
        document = tmp_path / "maps" / "P00-0" / "explanation.json"
        document.write_text(json.dumps(json.loads(document.read_text()) | changes))
        if scores is not None:
            document.with_name("scores.csv").write_text(scores)
        return self_contained(Site(find(ViewConfig(source=tmp_path / "maps", stores=stores)), 256))

    return show


def test_names_with_html_are_text_of_the_page(hostile, planted):
    layers = json.loads((planted.explanations / "P00-0" / "explanation.json").read_text())["layers"]
    wicked = layers[0] | {"label": HTML[0], "meaning": HTML[1], "method": HTML[2]}
    plain = hostile()
    page = hostile(target=HTML[0], model=HTML[1], prediction=dict.fromkeys(HTML, 0.5), layers=[wicked, *layers[1:]])
    for tag in ("<script", "</script", "<img", "<!--"):
        assert page.lower().count(tag) == plain.lower().count(tag)
    assert page.count("alert(1)") == 6  # all of them are there, as text


def refused(hostile, **changes) -> PipelineError:
    with pytest.raises(PipelineError) as error:
        hostile(**changes)
    assert len(str(error.value)) < 1000
    return error.value


@pytest.mark.parametrize("slide_id", ["../../x", "/etc/passwd", "<img src=x>", "a\0", "P00\u202e0", ".", ""])
def test_an_id_is_no_path_and_no_html(hostile, slide_id):
    assert "slide_id" in refused(hostile, slide_id=slide_id).what


@pytest.mark.parametrize("store", ["a" * 300 + "/P00-0.zarr", "../" * 300 + "x", "/dev/x.zarr", "a\0/b.zarr", "\n"])
def test_a_store_that_cannot_be_is_not_where_the_slide_was_explained(hostile, store):
    assert "store of P00-0 is not where it was explained" in refused(hostile, store=store, stores=None).what


def test_a_grid_that_no_browser_can_draw_is_refused(hostile):
    head, row = "x_l0,y_l0,row,column,received,received_layer_01,contribution\n", "0,0,{},{},0,0,0\n"
    assert "P00-0" in hostile(scores=head + row.format(16383, 16383))
    assert "more than 268,435,456 places" in refused(hostile, scores=head + row.format(16384, 16384)).what


def test_two_explanations_of_one_slide_are_refused(hostile, tmp_path):
    shutil.copytree(tmp_path / "maps" / "P00-0", tmp_path / "maps" / "copy")
    error = refused(hostile)
    assert (error.what, error.where) == (
        "two explanations are of P00-0, the other is in P00-0",
        tmp_path / "maps" / "copy",
    )


@pytest.mark.parametrize("target", ["explanation.json", "/dev/zero", "/proc/self/environ", "/etc/hostname", "/"])
@pytest.mark.parametrize("name", ["explanation.json", "scores.csv"])
def test_a_link_to_another_file_is_refused(planted, tmp_path, name, target):
    shutil.copytree(planted.explanations, tmp_path / "maps")
    file = tmp_path / "maps" / "P00-0" / name
    file.unlink()
    os.symlink(name if target == "explanation.json" else target, file)  # the first leads to itself
    with pytest.raises(PipelineError) as error:
        self_contained(Site(find(ViewConfig(source=tmp_path / "maps", stores=planted.store.path.parent)), 256))
    assert len(str(error.value)) < 1000
