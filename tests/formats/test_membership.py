import pytest

from longvit.cohort.splits import Fold
from longvit.formats.membership import read_membership, write_membership
from longvit.tokens.read import Scale
from preprocessing.errors import CheckpointError


def test_a_slide_is_seen_by_the_folds_that_trained_on_it_on_its_patient_or_on_an_equal_file(save_store, tmp_path):
    stores = {name: save_store(name, [[0, 0]]).path for name in ("a", "b", "c")}
    folds = [Fold(0, ("A",), ("B",), ("C",)), Fold(1, ("C",), (), ("A", "B"))]
    write_membership(tmp_path, stores, {"a": "A", "b": "B", "c": "C"}, folds)
    read = read_membership(tmp_path)
    assert read.scale == Scale(mpp=0.5, tile_px=64)
    new = {"a": ("x", "x"), "x": ("B", "x"), "y": ("x", "c"), "z": ("x", "x")}
    patients, hashes = zip(*new.values(), strict=True)
    assert read.seen(new, patients, hashes) == [(0,), (0,), (1,), ()]


def test_a_run_without_its_membership_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"membership\.csv"):
        read_membership(tmp_path)
