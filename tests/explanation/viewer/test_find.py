import shutil

import pytest

from longvit.config import ViewConfig
from longvit.explanation.viewer.find import find
from preprocessing.errors import ConfigError


def test_a_run_brings_its_stores_and_its_held_out_patients(planted):
    found = find(planted.config)
    assert len(found.stores) == 14
    assert found.held_out is not None
    assert set(found.explanations) == {"P00-0"}


def test_a_store_is_one_slide(planted):
    found = find(ViewConfig(source=planted.store.path))
    assert dict(found.stores) == {"P00-0": planted.store.path}
    assert found.held_out is None


def test_a_folder_of_stores_is_its_slides(planted, cohort):
    assert len(find(ViewConfig(source=cohort.stores)).stores) == 14


def test_explanations_bring_the_stores_that_they_explain(planted):
    found = find(ViewConfig(source=planted.explanations))
    assert dict(found.stores) == {"P00-0": planted.store.path}


def test_stores_that_have_moved_are_found_where_the_user_says(planted, cohort, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(planted.explanations, tmp_path / "explanations")
    document = tmp_path / "explanations" / "P00-0" / "explanation.json"
    document.write_text(document.read_text().replace(str(cohort.stores), str(tmp_path / "gone")))
    with pytest.raises(ConfigError, match="store of P00-0 is not where it was explained"):
        find(ViewConfig(source=tmp_path / "explanations"))
    shutil.copytree(planted.store.path, moved / "P00-0.zarr")
    found = find(ViewConfig(source=tmp_path / "explanations", stores=moved))
    assert dict(found.stores) == {"P00-0": moved / "P00-0.zarr"}


def test_the_slides_that_were_tiled_may_be_named(planted, tmp_path):
    (tmp_path / "P00-0.svs").touch()
    found = find(ViewConfig(source=planted.store.path, slides=tmp_path))
    assert found.slides["P00-0"].path == tmp_path / "P00-0.svs"


@pytest.mark.parametrize(("name", "said"), [("", "this is no run"), ("absent", "there is nothing here")])
def test_anything_else_is_refused(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        find(ViewConfig(source=tmp_path / name))


@pytest.mark.parametrize("text", ["", "out: x", "[", "stores: 3"])
def test_a_run_that_does_not_say_where_its_stores_are_is_refused(planted, tmp_path, text):
    shutil.copy(planted.run / "predictions.csv", tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="does not say where its stores are"):
        find(ViewConfig(source=tmp_path))
