"""Results of an earlier start of `explain`: whether a slide's folder is complete, and of the same models and stores."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from longvit.config import ExplainConfig
from longvit.explanation.faithfulness import CURVE_FILES
from longvit.explanation.files import file_names
from longvit.explanation.models import ExplainedModels
from longvit.formats.explanation_json import EXPLANATION, SCORES, ExplanationFolder, is_explanation
from longvit.runs.folder import INPUTS, refuse_others, settings_of
from longvit.runs.input_hashes import RecordedInputs, read_inputs
from longvit.runs.privacy import Pseudonyms
from preprocessing.errors import CohortError, few
from preprocessing.store.store import PatchStore


class SlideResult(NamedTuple):
    """Slide to explain, and the folder of its result."""

    path: Path
    """Path of the slide's store."""
    folder: Path
    """Folder of the result, named after the slide or its pseudonym."""
    inputs: RecordedInputs
    """Settings, models, and the stores of all slides that are read together with this slide."""


def slide_results(
    config: ExplainConfig,
    models: ExplainedModels,
    opened: Mapping[str, PatchStore],
    paths: Mapping[str, Path],
    sequences: Sequence[Sequence[str]],
    names: Pseudonyms,
) -> dict[str, SlideResult]:
    """Return the slides of all sequences, each with its folder and inputs; with a key, hashes of stores are keyed too.

    Pieces have folders of their own, and a fold is the same whether it is named by its number or by its file: neither
    is a setting of the result.
    """
    settings = {key: value for key, value in settings_of(config).items() if key not in {"pieces", "fold"}}
    without_frame = {key: value for key, value in settings.items() if key != "geojson_frame"}
    wholes = {slide: store.path for slide, store in opened.items()}
    every = read_inputs(models.files, wholes, models.first.required_encoder.config.input)
    keyed = {slide: tuple(map(names.of, store)) for slide, store in every.stores.items()}
    found = {}
    for slides in sequences:
        together = {names.of(slide): keyed[slide] for slide in slides}
        for slide in slides:
            own = settings if opened[slide].bounds_l0 else without_frame  # the frames differ only there
            inputs = every.model_copy(update={"settings": own, "stores": together})
            found[slide] = SlideResult(paths[slide], config.out / names.of(slide), inputs)
    return found


def is_to_explain(sequence: Sequence[SlideResult], config: ExplainConfig) -> bool:
    """Return whether a slide of a sequence is new or incomplete, or the sequence has changed; changes are printed.

    Raises:
        ConfigError: A slide was explained with other models or other settings.
    """
    return any([_is_new(one, config) for one in sequence])  # the list: all changes are printed


def _is_new(slide: SlideResult, config: ExplainConfig) -> bool:
    if not is_explanation(slide.folder):
        return True
    earlier = RecordedInputs.read(slide.folder / INPUTS)
    changed = refuse_others(slide.folder, earlier, slide.inputs, adds_slides=True)
    if changed or earlier.stores.keys() != slide.inputs.stores.keys():
        return True
    missing = _missing_files(slide.folder, config)
    if missing:
        print(f"{slide.folder}: without {few(missing)}; the slide is explained again", file=sys.stderr)
    return bool(missing)


def _missing_files(folder: Path, config: ExplainConfig) -> list[str]:
    """Return the names of missing files of an explanation; if its document cannot be read, the document's name."""
    try:
        keys = [one.key for one in ExplanationFolder.read(folder).layers if one.layer is None]
    except CohortError:
        return [EXPLANATION]
    names = [SCORES, *(CURVE_FILES if config.faithfulness else ()), *(name for key in keys for name in file_names(key))]
    return [name for name in names if not (folder / name).is_file()]
