import csv

import numpy as np

import preprocessing.tiling.report
from preprocessing.tiling.report import SlideRow, TileReport, outlined, save_picture

OVERVIEW = np.full((20, 30, 3), 240, np.uint8)


def save(tmp_path, rows):
    report = TileReport(tmp_path, rows)
    report.save()
    return report, (tmp_path / "tile_report.html").read_text()


def test_the_table_has_a_row_for_every_slide_in_order(tmp_path):
    rows = [
        SlideRow("slide", "done", n_tiles=5, mpp=0.25, mpp_source="metadata", warnings="only 5 tiles"),
        SlideRow("b", "failed", "why", "how"),
    ]
    save(tmp_path, rows)
    with (tmp_path / "tile_report.csv").open() as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == [
        "slide_id",
        "status",
        "reason",
        "fix",
        "n_tiles",
        "mpp",
        "mpp_source",
        "seconds",
    ]
    assert [(row["slide_id"], row["status"], row["reason"]) for row in read] == [
        ("slide", "done", "only 5 tiles"),
        ("b", "failed", "why"),
    ]


def test_the_page_shows_failures_first_then_warnings(tmp_path):
    _, page = save(
        tmp_path,
        [
            SlideRow("fine", "done", n_tiles=50, mpp=0.25, mpp_source="metadata"),
            SlideRow("odd", "done", n_tiles=5, mpp=0.25, mpp_source="flag", warnings="only 5 tiles"),
            SlideRow("zz", "failed", "it <broke> & fell", "mend it"),
        ],
    )
    assert page.index("zz") < page.index("odd") < page.index("fine")
    assert "it &lt;broke&gt; &amp; fell" in page
    assert "Fix: mend it" in page
    assert "only 5 tiles" in page


def test_the_page_needs_no_other_file(tmp_path):
    save_picture(tmp_path, "slide", OVERVIEW, OVERVIEW[..., 0] % 4)
    _, page = save(tmp_path, [SlideRow("slide", "skipped", "complete", n_tiles=5, mpp=0.25, mpp_source="metadata")])
    assert page.count('src="') == page.count('src="data:image/jpeg;base64,') == 1
    assert "http" not in page


def test_one_failure_makes_the_exit_code_one(tmp_path):
    done, skipped, failed = (SlideRow(status, status) for status in ("done", "skipped", "failed"))
    assert TileReport(tmp_path, [done, skipped]).exit_code == 0
    assert TileReport(tmp_path, [done, failed]).exit_code == 1
    assert TileReport(tmp_path, [failed]).exit_code == 1


def test_the_page_of_a_large_cohort_points_to_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(preprocessing.tiling.report, "PICTURES_IN_PAGE", 0)
    save_picture(tmp_path, "a b", OVERVIEW, OVERVIEW[..., 0] % 4)
    _, page = save(tmp_path, [SlideRow("a b", "done", n_tiles=5, mpp=0.25, mpp_source="metadata")])
    assert 'src="tile_report/a%20b.jpg"' in page
    assert (tmp_path / "tile_report" / "a b.jpg").read_bytes().startswith(b"\xff\xd8")


def test_each_class_gets_its_outline_and_the_picture_is_small():
    mask = np.zeros((500, 800), np.uint8)
    mask[50:200, 50:200], mask[50:200, 300:450], mask[50:200, 550:700] = 1, 2, 3
    picture = outlined(np.full((500, 800, 3), 255, np.uint8), mask)
    assert picture.shape == (200, 320, 3)
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert colours == {(255, 255, 255), (0, 150, 60), (220, 120, 0), (0, 90, 255)}


def test_a_cause_is_one_line_with_the_number_of_its_slides(tmp_path):
    lost = [SlideRow(f"s{i}", "failed", f"cannot decode level 0 at x={i}.5", "copy it again") for i in range(23)]
    warned = [
        SlideRow(f"w{i}", "done", warnings=f"only {i} tiles; pen marks cover {i}.7% of the slide") for i in (1, 2)
    ]
    report = TileReport(tmp_path, [*lost, *warned, SlideRow("x", "failed", "why", "how")])
    assert report.problems == [
        "warning: 2 slides (w1, w2): only 1 tiles",
        "warning: 2 slides (w1, w2): pen marks cover 1.7% of the slide",
        "failed: 23 slides (s0, s1, s2 and 20 more): cannot decode level 0 at x=0.5\n  fix:   copy it again",
        "failed: x: why\n  fix:   how",
    ]
    assert "(2 with warnings" in report.summary.splitlines()[0]
