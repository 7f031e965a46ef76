"""Errors that a user reads: their words come through as they are, and command no terminal."""

import pickle

import pytest

from preprocessing.errors import MAX_NAME, PipelineError, SlideError, few, printable
from preprocessing.tile import describe_failure

ESCAPES = "\x1b]0;title\x07 \x9b31m \r \udcff"


def test_what_a_damaged_file_says_reaches_no_terminal_as_it_is():
    error = SlideError(f"tag has VR {ESCAPES}", where=f"/slides/{ESCAPES}", fix="copy it again")
    error.add_note(f"OpenSlide: {ESCAPES}")
    shown = (
        str(error),
        *describe_failure(error),
        *describe_failure(ValueError(ESCAPES)),
        *describe_failure(OSError(5, "Input/output", ESCAPES)),
    )
    assert not [c for text in shown for c in text if c != "\n" and not c.isprintable()]
    assert error.what == r"tag has VR \x1b]0;title\x07 \x9b31m \r \udcff"


@pytest.mark.parametrize("text", ["größe 0.5 µm", "日本.svs", "C:\\slides\\'a'", "two\nlines", ""])
def test_what_can_be_shown_is_shown(text):
    assert printable(text) == text


def test_an_error_comes_out_of_another_process_with_its_words_and_notes():
    error = PipelineError("it is wrong", where="here", fix="mend it")
    error.add_note("perhaps")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "it is wrong\n  where: here\n  fix:   mend it\n  note:  perhaps"


def test_of_many_texts_the_first_are_given_and_the_rest_counted():
    assert few(["a", "b"], 2) == "a, b"
    assert few(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert few(["a is empty", "b is empty", "c is empty"], 2, "; ") == "a is empty; b is empty; and 1 more"
    assert few(["x" * 100_000]) == "x" * MAX_NAME + "..."
