import html
import re

import pytest

from longvit.viewer.notebook import show


@pytest.fixture
def page(planted) -> str:
    """The page inside of the frame that a cell shows."""
    frame = show(planted.run, explanations=planted.explanations, height=321, max_px=256)._repr_html_()
    assert "height: 321px" in frame
    (inside,) = re.fullmatch(r'<iframe srcdoc="([^"]*)" [^>]*></iframe>', frame).groups()
    return html.unescape(inside)


def test_the_page_of_a_cell_asks_for_no_file_and_no_network(page):
    assert re.findall(r'<(?:script|link|img)[^>]*\s(?:src|href)="(?!data:)', page) == []
    assert page.count("<script>") >= 2
    assert "<style>" in page


def test_its_pictures_are_inside_before_the_script_that_asks_for_them(page):
    assert len(re.findall(r'": "data:image/(?:jpeg|png);base64,[A-Za-z0-9+/]+=*"', page)) > 3
    assert page.index("LongViT.pictures = {") > page.index("<style>")
    assert "<!-- data -->" not in page
