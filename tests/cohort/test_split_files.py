import json
from pathlib import Path

import pytest

from longvit.cohort.splits import read_splits
from preprocessing.errors import CohortError

PARTS = {"train": ("A", "B"), "val": ("C",), "test": ("D",)}
TABLE = "slide_id,label,{}\nA.svs,x,{}\nB,x,{}\nC,y,{}\nD,y,{}\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("head", ["slide_id,label\n", "index,image_id,label\n", "name,label\n"])
def test_a_file_of_each_part_is_read_as_panda_s_are(tmp_path, head):
    lead = "9," if head.startswith("index") else ""
    for part, names in PARTS.items():
        for k in (0, 3):
            write(tmp_path / f"{part}_{k}.csv", head + "".join(f"{lead}{name}.tiff,1\n" for name in names))
    splits = read_splits(tmp_path)
    assert [(split.index, split.parts) for split in splits] == [(0, PARTS), (3, PARTS)]
    assert [file.name for file in splits[0].files] == ["train_0.csv", "val_0.csv", "test_0.csv"]
    (tmp_path / "val_3.csv").unlink()
    with pytest.raises(CohortError, match="the split has no file of val"):
        read_splits(tmp_path, (3,))
    write(tmp_path / "val_00.csv", "a\n")
    with pytest.raises(CohortError, match=r"val_0\.csv and val_00\.csv have the same number"):
        read_splits(tmp_path)


def test_a_column_of_parts_is_one_fold_and_several_are_several(tmp_path):
    path = write(tmp_path / "t.csv", TABLE.format("split", "train", "Training", "valid", "test"))
    (split,) = read_splits(path)
    assert (split.index, split.parts, split.files) == (0, PARTS, (path,))
    two = ["train,test", "train,val", "val,train", "test,train"]
    path = write(tmp_path / "k.csv", TABLE.format("fold_0,fold_4", *two))
    assert [(s.index, s.parts["val"]) for s in read_splits(path)] == [(0, ("C",)), (4, ("B",))]


def test_a_column_of_numbers_holds_out_each_number_once(tmp_path):
    splits = read_splits(write(tmp_path / "t.csv", TABLE.format("fold", 0, "1.0", 2, 2)))
    assert [(split.index, *split.parts.values()) for split in splits] == [
        (0, ("C", "D"), ("B",), ("A",)),
        (1, ("A",), ("C", "D"), ("B",)),
        (2, ("B",), ("A",), ("C", "D")),
    ]
    assert [split.index for split in read_splits(tmp_path / "t.csv", (2,))] == [2]
    with pytest.raises(CohortError, match="there is no fold 5") as error:
        read_splits(tmp_path / "t.csv", (5,))
    assert error.value.fix == "folds present: 0, 1, 2"


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (("other", 0, 1, 2, 2), "has no column fold or split"),
        (("fold", 0, 1, 0, 1), "has 2 numbers; train, val and test need three"),
        (("split", "train", "val", "holdout", "test"), "column split contains 'holdout', neither a part nor"),
    ],
)
def test_a_column_that_is_no_split_is_refused(tmp_path, columns, sentence):
    with pytest.raises(CohortError, match=sentence):
        read_splits(write(tmp_path / "t.csv", TABLE.format(*columns)))


def test_one_file_of_the_published_form_is_read(tmp_path):
    path = write(tmp_path / "splits_7.csv", ",train,val,test\n0,A,C,D\n1,B,,\n")
    assert [(split.index, split.parts) for split in read_splits(path)] == [(7, PARTS)]


@pytest.mark.parametrize(
    ("content", "indices"),
    [
        (PARTS, [0]),
        ([PARTS, PARTS], [0, 1]),
        ({"2": PARTS, "0": PARTS}, [0, 2]),
        ({"fold_1": PARTS, "fold_0": PARTS}, [0, 1]),
        ({"Training": PARTS["train"], "Validation": PARTS["val"], "testing": PARTS["test"]}, [0]),
    ],
)
def test_json_of_lists_is_read(tmp_path, content, indices):
    splits = read_splits(write(tmp_path / "s.json", json.dumps(content)))
    assert [(split.index, split.parts) for split in splits] == [(k, PARTS) for k in indices]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\xff", "is not JSON"),
        ("3", "fold 0 has no lists"),
        ("[]", "has no folds"),
        ('{"train": ["A"]}', "fold 0 has no lists of names called train and val"),
        ('{"train": ["A"], "val": [["B"]]}', "fold 0 has no lists"),
        ('{"cohort": {"train": ["A"], "val": ["B"]}}', "cohort is neither a part nor a fold"),
        ('{"fold_0": {}, "0": {}}', "fold 0 is there twice"),
    ],
)
def test_json_that_is_no_split_is_refused(tmp_path, text, sentence):
    (tmp_path / "s.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CohortError, match=sentence):
        read_splits(tmp_path / "s.json")
