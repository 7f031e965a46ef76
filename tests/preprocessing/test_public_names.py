"""Law: the package exports what its page names, and importing it costs nothing."""

import subprocess
import sys

import pytest

import preprocessing

NAMES = ["CohortError", "PatchStore", "PipelineError", "Slide", "SlideError", "StoreError", "TileConfig"]
NAMES += ["TissueConfig", "add_embeddings", "find_stores", "open_store", "problems", "read_slide", "tile_slides"]


def test_these_are_the_public_names():
    assert preprocessing.__all__ == dir(preprocessing) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_is_there_and_documented(name):
    assert len(getattr(preprocessing, name).__doc__) > 20


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="no attribute 'tile_everything'"):
        preprocessing.tile_everything  # noqa: B018


def test_importing_the_package_or_its_configs_loads_no_heavy_library():
    heavy = {"zarr", "cv2", "openslide", "tifffile", "torch"}
    code = f"import sys, preprocessing, preprocessing.config; print(*{heavy} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_tiling_loads_no_torch():
    code = "import sys, preprocessing.tile; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
