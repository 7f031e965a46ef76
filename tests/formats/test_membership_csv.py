import pytest

from longvit.formats.membership_csv import read_membership, write_membership
from preprocessing.errors import CheckpointError

MEMBERSHIP = "slide_id,patient_id,sha256,mpp,tile_px,fold_0\na,A,x,0.5,64,train\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"\0" * 100, b'"' + b"x" * 10**5, MEMBERSHIP.replace("0.5", "nan").encode()]
    + [MEMBERSHIP.replace(*pair).encode() for pair in (("64", "-1"), ("64", "x"), ("fold_0", "fold_x"))]
    + [MEMBERSHIP.replace(*pair).encode() for pair in (("train", "trained"), ("sha256,", ""), (",fold_0", ""))],
)
def test_a_membership_that_is_not_ours_is_refused(tmp_path, content):
    (tmp_path / "membership.csv").write_bytes(content)
    with pytest.raises(CheckpointError, match="the table"):
        read_membership(tmp_path)


def test_a_run_without_membership_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"the run has no membership\.csv"):
        read_membership(tmp_path)


def test_the_slides_of_a_run_come_back_with_their_scale_and_parts(tmp_path, cohort):
    stores = {slide: cohort.stores / f"{slide}.zarr" for slide in ("P00-0", "P01-0")}
    folds = {0: {"train": ("A",), "val": ("A",), "test": ("B",)}, 7: {"train": (), "val": ("B",), "test": ()}}
    write_membership(tmp_path, stores, {"P00-0": "A", "P01-0": "B"}, folds)
    members = read_membership(tmp_path).members
    assert [(one.slide_id, one.patient_id, one.mpp, one.tile_px) for one in members] == [
        ("P00-0", "A", 0.5, 64),
        ("P01-0", "B", 0.5, 64),
    ]
    assert [one.parts for one in members] == [{0: ("train", "val"), 7: ()}, {0: ("test",), 7: ("val",)}]
    assert "train;val" in (tmp_path / "membership.csv").read_text()


def test_a_slide_is_seen_by_its_id_its_patient_or_its_file(tmp_path):
    rows = ["a,A,x,0.5,64,train,test", "b,B,y,0.5,64,test,val", "c,C,z,0.5,64,test,"]
    head = "slide_id,patient_id,sha256,mpp,tile_px,fold_0,fold_1"
    (tmp_path / "membership.csv").write_text("\n".join([head, *rows]) + "\n")
    membership = read_membership(tmp_path)
    new = [("a", "?", "?"), ("?", "B", "?"), ("?", "?", "x"), ("c", "C", "z"), ("a", "B", "?"), ("?", "?", "?")]
    assert membership.seen(*zip(*new, strict=True)) == [(0,), (1,), (0,), (), (0, 1), ()]


def test_a_slide_whose_file_is_unknown_is_not_taken_for_another(tmp_path):
    (tmp_path / "membership.csv").write_text(MEMBERSHIP.replace(",x,", ",,"))
    membership = read_membership(tmp_path)
    assert membership.seen(["b", "a"], ["B", "B"], [None, None]) == [(), (0,)]
    assert membership.seen(["b"], ["B"], [""]) == [()]


def test_a_piece_and_its_whole_slide_see_each_other_but_two_pieces_do_not(tmp_path):
    rows = ["T~1,A,0~1,0.5,256,train", "U,B,1,0.5,256,train", "V~2,C,2~2,0.5,256,test"]
    (tmp_path / "membership.csv").write_text("\n".join(["slide_id,patient_id,sha256,mpp,tile_px,fold_0", *rows]) + "\n")
    membership = read_membership(tmp_path)
    new = [("T~1", "x"), ("T~2", "x"), ("T", "x"), ("U~3", "x"), ("V", "x")]
    new += [("x", "0~1"), ("x", "0~2"), ("x", "0"), ("x", "1~3"), ("x", "2")]
    found = membership.seen([slide for slide, _ in new], ["D"] * 10, [sha256 for _, sha256 in new])
    assert found == [(0,), (), (0,), (0,), ()] * 2
