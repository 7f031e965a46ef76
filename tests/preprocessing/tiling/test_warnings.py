import numpy as np

from preprocessing.errors import SlideError
from preprocessing.tiling.warnings import review

OVERVIEW = np.full((20, 20, 3), 240, np.uint8)


def mask(**shares):
    """20 rows; of each class so many."""
    values = {"glass": 0, "tissue": 1, "pen": 2, "blurred": 3}
    return np.repeat(np.uint8([values[name] for name, rows in shares.items() for _ in range(rows)]), 20).reshape(20, 20)


def test_nothing_is_said_of_a_slide_that_is_well():
    assert review(OVERVIEW, mask(glass=10, tissue=10), 100, "metadata") == []


def test_what_looks_odd_is_said():
    def said(classes, n=100, source="metadata", overview=OVERVIEW, **more):
        (sentence,) = review(overview, classes, n, source, **more)
        return sentence

    fine = mask(glass=10, tissue=10)
    black = OVERVIEW.copy()
    black[:5] = 0
    assert said(fine, n=3) == "only 3 tiles"
    assert "no glass" in said(mask(tissue=20))
    assert said(mask(glass=10, tissue=5, blurred=5)) == "50% of the tissue is out of focus"
    assert said(mask(glass=10, tissue=8, pen=2)) == "pen marks cover 10.0% of the slide"
    assert "not from the slide file" in said(fine, source="flag")
    assert "nominal" in said(fine, source="objective")
    assert said(fine, overview=black).startswith("25.0% of the slide is pure black")
    stained = OVERVIEW.copy()
    stained[10:14] = (120, 80, 40)
    assert said(fine, overview=stained) == (
        "40% of the tissue is brown or yellow: another stain than H&E, for example IHC"
    )
    stained[10:14] = (60, 110, 180)
    assert said(fine, overview=stained) == (
        "40% of the tissue is blue or green: another stain than H&E, for example trichrome"
    )
    bad = [SlideError("cannot decode x=3", where="s", fix="f")]
    assert said(fine, bad_tiles=bad) == "1 damaged tiles left out: cannot decode x=3"
    assert said(fine, unseen=bad) == "1 damaged tiles of the slide treated as glass: cannot decode x=3"
