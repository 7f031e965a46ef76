import time

from longvit.cohort.near_names import near_pairs, nearest


def test_pairs_are_named_once_and_many_of_one_spelling_are_bounded():
    assert list(near_pairs(["a", "A", "b", "a"])) == [("A", "a")]
    assert len(list(near_pairs(f"{'0' * k}1" for k in range(300)))) == 50 * 49 / 2


def test_a_hundred_thousand_names_take_seconds():
    start = time.process_time()
    assert list(near_pairs(f"P-{i}" for i in range(100_000))) == []
    assert time.process_time() - start < 10


def test_another_slide_of_a_tcga_patient_is_not_another_spelling():
    assert nearest(["TCGA-05-4250-01Z-00-DX2"], ["TCGA-05-4250", "TCGA-05-4250-01Z-00-DX1"]) is None
    assert nearest(["tcga_05_4250"], ["TCGA-05-4250"]) == "the split has tcga_05_4250, the table has TCGA-05-4250"
