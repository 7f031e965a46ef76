from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.errors import SlideError
from preprocessing.slides.resolution import as_number, contradictions, resolve_mpp

anywhere = Path("slide.svs")
WORDS = {
    "manifest": {"manifest": 0.3},
    "metadata": {"stated": (0.4, 0.4)},
    "objective": {"objective_power": 20.0, "from_objective": True},
    "flag": {"flag": 0.6},
}
"""Who may say it, in the declared order, and what each says here."""


@given(said=st.sets(st.sampled_from(list(WORDS)), min_size=1))
def test_the_first_in_the_declared_order_who_said_it_is_believed(said):
    words = {key: value for who in said for key, value in WORDS[who].items()}
    first = next(who for who in WORDS if who in said)
    mpp = {"manifest": 0.3, "metadata": 0.4, "objective": 0.5, "flag": 0.6}
    assert resolve_mpp(anywhere, **words) == (mpp[first], first)


def test_an_objective_is_not_believed_unless_the_user_says_so():
    assert resolve_mpp(anywhere, objective_power=40.0, flag=0.6) == (0.6, "flag")
    with pytest.raises(SlideError, match=r"only an objective of 40x, nominally 0\.25 micrometres") as caught:
        resolve_mpp(anywhere, objective_power=40.0)
    assert "--mpp-from-objective" in caught.value.fix


def test_where_nothing_is_known_no_objective_is_offered():
    with pytest.raises(SlideError, match="does not state its resolution") as caught:
        resolve_mpp(anywhere, from_objective=True)
    assert "objective" not in str(caught.value)


@given(mpp=st.floats(allow_nan=True).filter(lambda mpp: not 0.05 <= mpp <= 20))
def test_absurd_resolutions_are_refused_whoever_states_them(mpp):
    for words in ({"manifest": mpp}, {"stated": (mpp, mpp)}, {"flag": mpp}):
        with pytest.raises(SlideError, match="micrometres per pixel, and no slide has"):
            resolve_mpp(anywhere, **words)


@pytest.mark.parametrize("power", [0, -20, float("nan"), 1e9])
def test_an_absurd_objective_is_refused_and_never_offered(power):
    with pytest.raises(SlideError, match="no slide has less"):
        resolve_mpp(anywhere, objective_power=power, from_objective=True)


def test_a_wrong_word_is_not_passed_over_for_a_later_one():
    with pytest.raises(SlideError, match=r"352\.778") as caught:
        resolve_mpp(anywhere, stated=(352.778, 352.778), flag=0.5)
    assert "manifest" in caught.value.fix
    assert resolve_mpp(anywhere, manifest=0.5, stated=(352.778, 352.778)) == (0.5, "manifest")


@given(mpp=st.floats(0.1, 10), ratio=st.floats(0.5, 1.5))
def test_pixels_are_square_within_two_percent_or_refused(mpp, ratio):
    apart = max(ratio, 1 / ratio) - 1
    if apart < 0.0199:
        assert resolve_mpp(anywhere, stated=(mpp, mpp * ratio))[0] == pytest.approx(mpp, rel=0.011)
    elif apart > 0.0201:
        with pytest.raises(SlideError, match="not square"):
            resolve_mpp(anywhere, stated=(mpp, mpp * ratio))


@pytest.mark.parametrize("text", ["abc", "", "0.5um", "nan", "0,5"])
def test_what_spells_no_number_passes_no_check(text):
    with pytest.raises(SlideError, match="nan x nan"):
        resolve_mpp(anywhere, stated=(as_number(text), as_number(text)))


@pytest.mark.parametrize(
    ("mpp", "source", "stated", "tagged", "power", "sentences"),
    [
        (0.5, "metadata", (0.5, 0.5), (0.5, 0.5), 20.0, []),
        (0.46, "metadata", (0.46, 0.46), None, 20.0, []),  # scanners differ from the nominal value by a tenth
        (0.5, "metadata", (0.5, 0.5), (352.8, 352.8), 20.0, []),  # 72 dpi is a default
        (0.5, "metadata", (0.5, 0.5), None, 40.0, ["its objective of 40x means nominally 0.25"]),
        (1.267, "metadata", (1.267, 1.267), None, 20.0, ["its objective of 20x means nominally 0.5"]),  # inch for cm
        (0.5, "metadata", (0.5, 0.5), (0.25, 0.25), None, ["its TIFF tags state 0.25"]),
        (0.25, "manifest", (0.5, 0.5), None, None, ["the slide states 0.5"]),
        (0.5, "objective", None, None, 20.0, []),
        (0.25, "flag", None, None, 20.0, ["its objective of 20x means nominally 0.5"]),
        (0.5, "metadata", (0.5, 0.5), None, 0.0, []),
        (0.5, "metadata", (0.5, 0.5), (float("nan"), 1.0), float("nan"), []),
    ],
)
def test_statements_that_contradict_the_resolution_are_named(mpp, source, stated, tagged, power, sentences):
    found = contradictions(mpp, source, stated, tagged, power)
    assert found == [f"the resolution is {mpp} um/px, but {sentence}" for sentence in sentences]
