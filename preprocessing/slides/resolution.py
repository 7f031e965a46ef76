"""Resolution of a slide and its source, chosen in a fixed order and never guessed.

1. `manifest`: the manifest's row.
2. `metadata`: the slide file (openslide.mpp, OME's PhysicalSize, DICOM's PixelSpacing, TIFF resolution per inch or cm).
3. `objective`: 10 / objective power, only if the user allows it.
4. `flag`: the user's value for all slides without a resolution.

An implausible value is refused; the next source is not tried.
"""

import math
from pathlib import Path

from preprocessing.errors import SlideError
from preprocessing.store.schema import MppSource

MPP_LIMITS = (0.05, 20.0)
"""Finest and coarsest resolution of scanners, micrometres per pixel; others have wrong units, or a printer's 72 dpi."""
MAX_ANISOTROPY = 0.02
"""Relative difference of a pixel's sides above which it is not square."""
MAX_OF_FILE, MAX_OF_OBJECTIVE = 1.05, 1.4
"""Factors by which the resolution may differ from other statements in the file, and from the nominal value of the
objective, before the slide gets a warning."""
UM_TIMES_POWER = 10.0
"""Micrometres per pixel times objective power: nominally 0.25 at 40x and 0.5 at 20x; scanners differ by a tenth."""
MPP_FIX = "give the slide's level-0 resolution in the column `mpp` of a manifest CSV"


def resolve_mpp(
    path: Path,
    *,
    manifest: float | None = None,
    stated: tuple[float, float] | None = None,
    objective_power: float | None = None,
    from_objective: bool = False,
    flag: float | None = None,
) -> tuple[float, MppSource]:
    """Return micrometres per pixel of level 0 and their source, in the order given in the module's docstring.

    Args:
        path: The slide, named in the error.
        manifest: Micrometres per pixel in the manifest's row.
        stated: Micrometres per pixel in x and y in the file.
        objective_power: Magnification of the objective in the file.
        from_objective: Use `10 / objective_power` for slides without a resolution.
        flag: Micrometres per pixel for slides without a resolution.

    Raises:
        SlideError: No source has a resolution, or the first that has one has an implausible value.

    >>> resolve_mpp(Path("a.svs"), objective_power=20, from_objective=True)
    (0.5, 'objective')
    """
    if manifest is not None:
        return _checked(path, (manifest, manifest), "the manifest gives"), "manifest"
    if stated is not None:
        return _checked(path, stated, "the slide states"), "metadata"
    if from_objective and objective_power is not None:
        nominal = UM_TIMES_POWER / objective_power if objective_power else math.inf
        return _checked(path, (nominal, nominal), f"an objective of {objective_power:g}x means"), "objective"
    if flag is not None:
        return _checked(path, (flag, flag), "mpp_if_missing gives"), "flag"
    raise _missing(path, objective_power)


def contradictions(
    mpp: float,
    source: MppSource,
    stated: tuple[float, float] | None,
    tagged: tuple[float, float] | None,
    objective_power: float | None,
) -> list[str]:
    """Return a sentence for each other statement of the resolution that contradicts the chosen one.

    TIFF tags with an impossible resolution are ignored: many files have a printer's 72 dpi.

    Args:
        mpp: Chosen resolution of level 0, micrometres per pixel.
        source: Its source.
        stated: Micrometres per pixel in x and y in the file.
        tagged: The same in the TIFF tags of the file.
        objective_power: Magnification of the objective in the file.

    >>> contradictions(0.5, "metadata", (0.5, 0.5), None, 40)
    ['the resolution is 0.5 um/px, but its objective of 40x means nominally 0.25']
    """
    power = objective_power if objective_power and objective_power > 0 and source != "objective" else math.nan
    others = (
        ("the slide states", stated[0] if stated and source == "manifest" else math.nan, MAX_OF_FILE),
        ("its TIFF tags state", tagged[0] if tagged else math.nan, MAX_OF_FILE),
        (f"its objective of {power:g}x means nominally", UM_TIMES_POWER / power, MAX_OF_OBJECTIVE),
    )
    low, high = MPP_LIMITS
    return [
        f"the resolution is {mpp:.4g} um/px, but {who} {other:.4g}"
        for who, other, most in others
        if low <= other <= high and max(other / mpp, mpp / other) > most
    ]


def as_number(text: str) -> float:
    """Convert text in a slide's metadata to a number; NaN if it is not one, which every check refuses."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _missing(path: Path, objective_power: float | None) -> SlideError:
    what = "the slide does not state its resolution (no openslide.mpp-x and -y, no TIFF resolution)"
    fix = f"{MPP_FIX}, or pass --mpp-if-missing for all slides without a resolution"
    if objective_power is not None and objective_power > 0:
        what += (
            f", only an objective of {objective_power:g}x, nominally {UM_TIMES_POWER / objective_power:.3g} micrometres"
        )
        fix += ", or --mpp-from-objective to use such nominal values"
    return SlideError(what, where=path, fix=fix)


def _checked(path: Path, mpp: tuple[float, float], who: str) -> float:
    x, y = mpp
    low, high = MPP_LIMITS
    if not (low <= x <= high and low <= y <= high):
        raise SlideError(
            f"{who} {x:.6g} x {y:.6g} micrometres per pixel, and no slide has less than {low} or more than {high}",
            where=path,
            fix=MPP_FIX,
        )
    if abs(x - y) > MAX_ANISOTROPY * min(x, y):
        raise SlideError(
            f"{who} {x:.6g} x {y:.6g} micrometres per pixel: the pixels are not square",
            where=path,
            fix=f"resample the slide to square pixels, or, if one of the two values is wrong, {MPP_FIX}",
        )
    return (x + y) / 2
