import pytest

from longvit.formats.site_probe_json import MAX_BYTES, Probed, SiteProbe, read_site_probe, write_site_probe
from preprocessing.errors import CohortError

PROBE = SiteProbe(
    n_patients=40,
    site=Probed(n_classes=4, balanced_accuracy=0.5, chance_error=0.07),
    label=None,
    reason=None,
)


@pytest.mark.parametrize("probe", [PROBE, SiteProbe(n_patients=0, site=None, label=None, reason="no hospital")])
def test_a_probe_comes_back(probe, tmp_path):
    write_site_probe(tmp_path, probe)
    assert read_site_probe(tmp_path) == probe


def test_there_may_be_no_probe(tmp_path):
    assert read_site_probe(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[" * 90_000,
        " " * (MAX_BYTES + 1),
        PROBE.model_dump_json().replace("0.5", "1.5"),
        PROBE.model_dump_json().replace("0.5", "NaN"),
        PROBE.model_dump_json().replace('"n_classes":4', '"n_classes":0'),
    ],
)
def test_a_damaged_file_is_refused_by_its_path(text, tmp_path):
    (tmp_path / "site_probe.json").write_text(text)
    with pytest.raises(CohortError) as refused:
        read_site_probe(tmp_path)
    assert refused.value.where == tmp_path / "site_probe.json"
