import json
import os
import shutil
from pathlib import Path

import pytest

from longvit.config import ViewConfig
from longvit.runs.privacy import Pseudonyms
from longvit.viewer.find import find
from longvit.viewer.site import Site
from longvit.viewer.static import write_static
from preprocessing.errors import ConfigError, StoreError


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


def without(path: Path, *names: str) -> None:
    """Make of a store one that lacks some arrays."""
    document = json.loads((path / "zarr.json").read_text())
    arrays = document["attributes"]["arrays"]
    document["attributes"]["arrays"] = [name for name in arrays if name not in names]
    (path / "zarr.json").write_text(json.dumps(document))
    for name in names:
        shutil.rmtree(path / name)


@pytest.mark.parametrize("names", [("overview",), ("overview_mask",), ("tissue",), ("tiles", "crc32c")])
def test_a_store_without_pictures_is_left_out_by_name_and_the_others_are_shown(cohort, tmp_path, capsys, names):
    for name in ("P00-0", "P01-0", "P02-0"):
        shutil.copytree(cohort.stores / f"{name}.zarr", tmp_path / "stores" / f"{name}.zarr")
    without(tmp_path / "stores" / "P01-0.zarr", *names)
    found = find(ViewConfig(source=tmp_path / "stores"))
    assert list(found.stores) == ["P00-0", "P02-0"]
    said = f"1 of 3 slides are not shown, because their stores lack pictures: P01-0 (no {names[0]})"
    assert capsys.readouterr().err == f"warning: {said}\n"
    assert write_static(Site(found, 256), tmp_path / "page").is_file()
    for name in ("P00-0", "P02-0"):
        without(tmp_path / "stores" / f"{name}.zarr", *names)
    with pytest.raises(StoreError, match=f"the store has no {names[0]}"):
        find(ViewConfig(source=tmp_path / "stores"))


def test_stores_are_left_out_under_their_pseudonyms(cohort, tmp_path, capsys):
    for name in ("P00-0", "P01-0"):
        shutil.copytree(cohort.stores / f"{name}.zarr", tmp_path / f"{name}.zarr")
    without(tmp_path / "P01-0.zarr", "overview")
    found = find(ViewConfig(source=tmp_path, pseudonyms=tmp_path / "key"))
    names = Pseudonyms.read(tmp_path / "key")
    assert list(found.stores) == [names.of("P00-0")]
    assert names.of("P01-0") in (said := capsys.readouterr().err)
    assert "P01-0" not in said


def test_a_damaged_store_is_not_left_out_so_that_the_page_shows_its_error(cohort, tmp_path):
    for name in ("P00-0", "P01-0"):
        shutil.copytree(cohort.stores / f"{name}.zarr", tmp_path / f"{name}.zarr")
    (tmp_path / "P00-0.zarr" / "zarr.json").write_text("{}")
    assert list(find(ViewConfig(source=tmp_path)).stores) == ["P00-0", "P01-0"]


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
