"""Law: the page works in a real browser: served, opened from disk, and inside of a notebook's frame."""

import io
import shutil
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from longvit.config import ViewConfig
from longvit.explanation import show
from longvit.explanation.colour import DIVERGING, SEQUENTIAL
from longvit.viewer.find import find
from longvit.viewer.site import Site
from longvit.viewer.static import write_static

GLASS = (240, 240, 240)
STAGE = "#picture"
READY = "window.viewer?.layer && window.viewer.picture.world.getItemAt(0)?.getFullyLoaded()"


@pytest.fixture(scope="module")
def addresses(planted, serve, tmp_path_factory) -> dict[str, str]:
    """The same page in three ways."""
    out = tmp_path_factory.mktemp("static")
    page = write_static(Site(find(planted.config), 4096), out / "page")
    frame = show(planted.run, explanations=planted.explanations)  # several slides
    (out / "notebook.html").write_text(f"<!doctype html><body style='margin:0'>{frame._repr_html_()}</body>")
    return {
        "served": serve(planted.config).address,
        "disk": page.as_uri(),
        "notebook": (out / "notebook.html").as_uri(),
    }


@pytest.fixture
def visit(browser) -> Callable:
    """(address) -> the page, once the slide and its heatmap are there; whatever goes wrong on it fails the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 820})
    wrong: list[str] = []

    def go(address: str, until: str = READY):
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        own = address.split("/", 3)[2] if address.startswith("http") else ""
        page.on("request", lambda request: None if ours(request.url, own) else wrong.append(f"foreign: {request.url}"))
        page.goto(address)
        wait(page, until)
        return page

    go.wrong = wrong
    yield go
    context.close()
    assert wrong == []


def wait(frame, expression: str) -> None:
    """Until an expression holds; Playwright's own way needs the eval that the page's policy forbids."""
    end = time.monotonic() + 20
    while not frame.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


def ours(url: str, host: str) -> bool:
    return url.startswith(("data:", "blob:", f"http://{host}/" if host else "file:", "about:srcdoc"))


def colours(page, stage: str = STAGE) -> np.ndarray:
    """What the stage shows, RGB (h, w, 3)."""
    page.wait_for_timeout(700)  # animations of half a second
    return np.asarray(Image.open(io.BytesIO(page.locator(stage).screenshot())).convert("RGB")).astype(int)


def at_tile(image: np.ndarray, rc: np.ndarray) -> np.ndarray:
    """Colour of the stage in a tile, clear of the buttons, while the whole slide (5 x 4 tiles) is in sight.

    The page is not asked: a slide is shown as large as it fits, in the middle.
    """
    height, width = image.shape[:2]
    side = min(width / 5, height / 4)
    left, top = (width - 5 * side) / 2, (height - 4 * side) / 2
    return image[int(top + (rc[0] + 0.625) * side), int(left + (rc[1] + 0.625) * side)]


def assert_alike(found, colour, tolerance: int = 6) -> None:
    assert np.abs(np.asarray(found) - np.asarray(colour)).max() <= tolerance, (found, colour)


def rgb(colour) -> np.ndarray:
    return np.asarray(colour[:3]) * 255


@pytest.mark.parametrize("way", ["served", "disk"])
def test_the_heat_is_where_it_was_planted_and_nowhere_else(visit, addresses, planted, way):
    page = visit(addresses[way])
    page.locator("#opacity").fill("100")
    image, rc = colours(page), planted.store.rc
    for i, place in enumerate(rc):
        assert_alike(at_tile(image, place), rgb(SEQUENTIAL(1.0 if i == 2 else 0.0)))
    empty = next((r, c) for r in range(1, 4) for c in range(1, 4) if [r, c] not in rc.tolist())
    assert_alike(at_tile(image, np.array(empty)), GLASS)
    page.select_option("#method", "contribution")
    image = colours(page)
    assert_alike(at_tile(image, rc[2]), rgb(DIVERGING(1.0)))
    assert_alike(at_tile(image, rc[0]), rgb(DIVERGING(0.25)))


def test_opacity_and_toggles_change_what_is_seen(visit, addresses, planted):
    page, rc = visit(addresses["served"]), planted.store.rc
    page.uncheck("#show-heat")
    tissue = at_tile(colours(page), rc[2])
    page.check("#show-heat")
    page.locator("#opacity").fill("50")
    assert_alike(at_tile(colours(page), rc[2]), (tissue + rgb(SEQUENTIAL(1.0))) / 2, 8)
    assert page.locator("#opacity-text").inner_text() == "50 %"
    page.uncheck("#show-heat")
    assert page.locator("#legend").is_hidden()
    without = colours(page)
    page.check("#show-grid")
    grid = colours(page)
    changed = np.abs(grid - without).max(axis=2) > 60
    assert 0.001 < changed.mean() < 0.1  # lines, not areas
    page.uncheck("#show-grid")
    page.check("#show-mask")
    assert page.locator("#mask-key").inner_text().split() == ["tissue", "pen", "out", "of", "focus"]


def test_layers_follow_the_method_and_the_legend_has_the_numbers(visit, addresses, planted):
    page = visit(addresses["served"])
    assert page.locator("#method option").all_inner_texts() == ["Attention received", "Contribution"]
    assert page.locator("#layer option").all_inner_texts() == ["All layers", "Layer 1"]
    page.select_option("#layer", "received_layer_01")
    wait(page, "window.viewer.layer.key === 'received_layer_01'")
    assert page.locator("#meaning").inner_text() == "Attention received in layer 1."
    assert "≤ 0" in page.locator("#legend").inner_text()
    assert "≥ 1" in page.locator("#legend").inner_text()
    page.locator("#opacity").fill("100")
    assert_alike(at_tile(colours(page), planted.store.rc[2]), rgb(SEQUENTIAL(0.0)))
    page.select_option("#method", "contribution")
    wait(page, "window.viewer.layer.key === 'contribution'")
    assert page.locator("#layer").is_disabled()
    assert "raises the log hazard" in page.locator("#legend").inner_text()


@pytest.mark.parametrize("way", ["served", "disk"])
def test_a_click_shows_the_tile_with_its_scores_and_its_patient(visit, addresses, planted, way):
    page = visit(addresses[way])
    box, (row, column) = page.locator(STAGE).bounding_box(), planted.store.rc[2]
    side = min(box["width"] / 5, box["height"] / 4)
    x = (box["width"] - 5 * side) / 2 + (column + 0.375) * side
    y = (box["height"] - 4 * side) / 2 + (row + 0.125) * side
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.wait_for_selector("#scores tr:nth-child(3)")
    said = page.locator("#place").inner_text()
    assert f"Tile row {row}, column {column}" in said
    assert f"Token row {row * 4}, column {column * 4 + 1}" in said
    cells = page.locator("#scores tbody tr").all_inner_texts()
    assert [cell.split("\t")[1] for cell in cells] == ["1", "0", "1"]
    wait(page, "window.viewer.zoomed.world.getItemAt(0)?.getFullyLoaded()")
    assert colours(page, ".zoomed").std() > 10
    assert "Patient P00" in page.locator("#patient").inner_text()
    assert page.locator("#patient svg circle").count() == 1
    page.mouse.click(box["x"] + 90, box["y"] + 4)
    wait(page, "!window.viewer.chosen")


def test_it_zooms_and_the_scale_bar_keeps_up(visit, addresses):
    page = visit(addresses["served"])
    # The slide is 640 level-0 pixels of 0.25 um wide; on the stage it is as high as the stage, 5 to 4.
    box = page.locator(STAGE).bounding_box()
    um_per_px = 640 * 0.25 / (min(box["width"] / 5, box["height"] / 4) * 5)
    shown = float(page.locator("#scale-text").inner_text().split("·")[1].split()[0])
    assert shown == pytest.approx(um_per_px, rel=0.01)
    page.locator("#zoom-in").click()
    page.wait_for_timeout(700)
    closer = float(page.locator("#scale-text").inner_text().split("·")[1].split()[0])
    assert closer == pytest.approx(um_per_px / 1.6, rel=0.02)
    length, unit = page.locator("#scale-text").inner_text().split("·")[0].split()
    assert unit == "µm"
    assert page.locator("#scale-bar").bounding_box()["width"] == pytest.approx(float(length) / closer, rel=0.05)


def test_the_keyboard_is_enough(visit, addresses):
    page = visit(addresses["served"])
    page.locator("#highest").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#scores tr:nth-child(3)")
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    wait(page, "window.viewer.rankOfChosen() === 1")
    unnamed = """() => [...document.querySelectorAll("button, input, select")].filter((e) =>
        !(e.getAttribute("aria-label") || e.innerText || e.closest("label")?.innerText))"""
    assert page.evaluate(f"({unnamed})().length") == 0
    picture = page.locator(f"{STAGE} .openseadragon-canvas").first
    before = page.evaluate("window.viewer.picture.viewport.getZoom(false)")
    picture.focus()
    page.keyboard.press("r")
    page.keyboard.press("+")
    page.wait_for_timeout(200)
    assert page.evaluate("window.viewer.picture.viewport.getZoom(false)") > before
    assert page.evaluate("window.viewer.picture.viewport.getRotation(false)") == 0


def test_another_slide_is_a_click_away_and_says_that_it_has_no_heatmap(visit, addresses):
    page = visit(addresses["served"])
    page.locator("#find").fill("p11")
    assert page.locator("#slide-list li:visible").count() == 1
    page.locator("#slide-list li:visible button").click()
    wait(page, "window.viewer.slide.slide_id === 'P11-0'")
    assert "has not been explained" in page.locator("#heat-empty").inner_text()
    assert "No fold of this run held this slide's patient out" in page.locator("#patient").inner_text()
    assert page.locator("#legend").is_hidden()
    wait(page, "window.viewer.picture.world.getItemAt(0)?.getFullyLoaded()")


def test_a_slide_that_cannot_be_read_says_why_and_what_to_do(visit, serve, cohort, tmp_path):
    for name in ("P00-0", "P01-0"):
        shutil.copytree(cohort.stores / f"{name}.zarr", tmp_path / f"{name}.zarr")
    (tmp_path / "P01-0.zarr" / "zarr.json").write_text('{"attributes": {"schema_version": 9}}')
    page = visit(serve(ViewConfig(source=tmp_path)).address, "window.viewer?.slide")
    page.locator("#slide-list button").nth(1).click()
    page.wait_for_selector("#message:visible")
    said = page.locator("#message").inner_text()
    assert "schema version 9" in said
    assert "tile the slide again" in said
    assert all("500" in line for line in visit.wrong)  # its thumbnail
    visit.wrong.clear()


def test_in_a_notebook_the_page_carries_everything_with_it(visit, addresses, planted):
    page = visit(addresses["notebook"], "true")
    frame = page.frames[1]
    wait(frame, READY)
    frame.locator("#opacity").fill("100")
    page.wait_for_timeout(700)
    picture = frame.locator(STAGE).screenshot()
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    assert_alike(at_tile(image, planted.store.rc[2]), rgb(SEQUENTIAL(1.0)))
    assert_alike(at_tile(image, planted.store.rc[0]), rgb(SEQUENTIAL(0.0)))
