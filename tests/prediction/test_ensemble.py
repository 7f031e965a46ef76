import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longvit.formats.membership import read_membership
from longvit.prediction.ensemble import SCALE_FILE, RiskScale, _read_scale, ensemble_row
from longvit.tokens.read import Scale
from preprocessing.errors import CheckpointError

RISKS = st.lists(st.floats(-5, 5), min_size=2, max_size=6)


def test_probabilities_are_averaged_and_their_spread_is_said():
    row = ensemble_row([{"p_a": 0.9, "p_b": 0.1}, {"p_a": 0.5, "p_b": 0.5}], [])
    assert row == pytest.approx({"p_a": 0.7, "p_b": 0.3, "sd_a": 0.2, "sd_b": 0.2})


def test_risks_are_averaged_in_deviations_from_each_models_training_patients():
    row = ensemble_row([{"risk": 3.0}, {"risk": -10.0}], [RiskScale(1.0, 2.0), RiskScale(-40.0, 10.0)])
    assert row == pytest.approx({"risk": 2.0, "sd_risk": 1.0})  # 1 and 3 deviations


@given(RISKS, st.floats(0.1, 10), st.floats(-100, 100))
def test_the_unit_and_the_zero_of_a_models_risk_do_not_matter(risks, unit, zero):
    scales = [RiskScale(0.0, 1.0)] * len(risks)
    plain = ensemble_row([{"risk": risk} for risk in risks], scales)
    first = {"risk": risks[0] * unit + zero}
    moved = ensemble_row([first, *({"risk": r} for r in risks[1:])], [RiskScale(zero, unit), *scales[1:]])
    assert moved == pytest.approx(plain, abs=1e-9)


@given(RISKS)
def test_a_model_that_tells_everybody_the_same_counts_as_nothing_said(risks):
    scales = [RiskScale(np.mean(risks), 0.0)] * len(risks)
    assert ensemble_row([{"risk": risk} for risk in risks], scales) == {"risk": 0.0, "sd_risk": 0.0}


def test_risks_that_differ_by_rounding_alone_are_all_the_same():
    assert RiskScale(-27.8, 2e-6).standardised(-27.7999) == 0.0
    assert RiskScale(0.0, 0.01).standardised(0.02) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "content",
    [
        *(
            "",
            "null",
            "[1]",
            '{"mean": 1}',
            '{"mean": "x", "sd": 1}',
            '{"mean": NaN, "sd": 1}',
            '{"mean": 1, "sd": -1}',
        ),
        *('{"mean": 1e999, "sd": 1}', "[" * 10**5, '{"mean": 1, "sd": 1, "more": ' + "1" * 10**5, "\ud800"),
    ],
)
def test_a_scale_that_cannot_be_one_is_refused(tmp_path, content):
    (tmp_path / SCALE_FILE).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match="the scale of the fold's risks cannot be read"):
        _read_scale(tmp_path / SCALE_FILE)


def test_a_scale_comes_back(tmp_path):
    (tmp_path / SCALE_FILE).write_text(json.dumps(RiskScale(1.5, 0.2)._asdict()))
    assert _read_scale(tmp_path / SCALE_FILE) == RiskScale(1.5, 0.2)


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


def test_a_slide_whose_file_is_unknown_is_not_taken_for_another(tmp_path):
    (tmp_path / "membership.csv").write_text(MEMBERSHIP.replace(",x,", ",,"))
    membership = read_membership(tmp_path)
    assert membership.seen(["b", "a"], ["B", "B"], [None, None]) == [(), (0,)]
    assert membership.seen(["b"], ["B"], [""]) == [()]


def test_a_membership_holds_the_scale(tmp_path):
    (tmp_path / "membership.csv").write_text(MEMBERSHIP)
    assert read_membership(tmp_path).scale == Scale(mpp=0.5, tile_px=64)
