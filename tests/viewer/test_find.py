import json
import os
import shutil
from pathlib import Path

import pytest

from longvit.config import ViewConfig
from longvit.runs.privacy import Pseudonyms
from longvit.viewer.find import find
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
    document.write_text(document.read_text().replace("/stores/", "/gone/"))
    with pytest.raises(ConfigError, match="store of P00-0 is not where it was explained"):
        find(ViewConfig(source=tmp_path / "explanations"))
    shutil.copytree(planted.store.path, moved / "P00-0.zarr")
    found = find(ViewConfig(source=tmp_path / "explanations", stores=moved))
    assert dict(found.stores) == {"P00-0": moved / "P00-0.zarr"}


def test_the_slides_that_were_tiled_may_be_named(planted, tmp_path):
    (tmp_path / "P00-0.svs").touch()
    found = find(ViewConfig(source=planted.store.path, slides=tmp_path))
    assert found.slides["P00-0"].path == tmp_path / "P00-0.svs"


@pytest.mark.parametrize(("name", "said"), [("", "this is not a run"), ("absent", "there is nothing here")])
def test_anything_else_is_refused(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        find(ViewConfig(source=tmp_path / name))


@pytest.mark.parametrize("text", ["", "out: x", "stores: 3"])
def test_a_run_that_does_not_say_where_its_stores_are_is_refused(planted, tmp_path, text):
    shutil.copy(planted.run / "predictions.csv", tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="does not name the folder of its stores"):
        find(ViewConfig(source=tmp_path))


@pytest.mark.parametrize(
    "text", ["[", "[" * 100_000, "a: " + "9" * 10_000, "x: '" + "a" * 300_000, "- stores"], ids=range(5)
)
def test_settings_of_a_run_that_cannot_be_read_are_refused(planted, tmp_path, text):
    shutil.copy(planted.run / "predictions.csv", tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"settings|nested|number"):
        find(ViewConfig(source=tmp_path))


@pytest.mark.parametrize("store", ["/etc/passwd", "../../../etc/P00-0.zarr", "P01-0.zarr", "", "\0"])
def test_an_explanation_leads_to_no_file_but_the_store_of_its_slide(planted, cohort, tmp_path, store):
    shutil.copytree(planted.explanations, tmp_path / "explanations")
    document = tmp_path / "explanations" / "P00-0" / "explanation.json"
    (document.parent / "P01-0.zarr").symlink_to(cohort.stores / "P01-0.zarr")
    document.write_text(json.dumps(json.loads(document.read_text()) | {"store": store}))
    with pytest.raises(ConfigError, match="store of P00-0 is not where it was explained"):
        find(ViewConfig(source=tmp_path / "explanations"))


def test_a_run_shows_pseudonyms_and_the_same_again(planted, tmp_path):
    found = find(planted.config.model_copy(update={"pseudonyms": tmp_path / "key"}))
    names = Pseudonyms.read(tmp_path / "key")
    assert found.title == "Slides"
    assert set(found.stores) == {names.of(path.stem) for path in found.stores.values()}
    assert list(found.stores) == sorted(found.stores)
    assert set(found.explanations) == {names.of("P00-0")} < set(found.stores)
    ours, theirs = (
        one.held_out.patient(name) for one, name in ((found, names.of("P02-1")), (find(planted.config), "P02-1"))
    )
    assert ours == theirs | {"patient_id": names.of("P02")}


def test_explanations_under_pseudonyms_find_their_stores_by_the_key(planted, cohort, tmp_path):
    name = Pseudonyms.read(tmp_path / "key").of("P00-0")
    shutil.copytree(planted.explanations / "P00-0", tmp_path / name)
    document = tmp_path / name / "explanation.json"
    place = os.path.relpath(cohort.stores / f"{name}.zarr", tmp_path / name)
    document.write_text(json.dumps(json.loads(document.read_text()) | {"slide_id": name, "store": place}))
    found = find(ViewConfig(source=tmp_path, pseudonyms=tmp_path / "key"))
    assert dict(found.stores) == {name: Path(os.path.abspath(planted.store.path))}
    with pytest.raises(ConfigError, match=f"store of {name} is not where"):
        find(ViewConfig(source=tmp_path))
