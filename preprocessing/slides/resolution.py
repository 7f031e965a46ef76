"""How large a pixel of a slide is, and who said so: stated, in a declared order, never guessed.

The manifest goes before the slide's own word (`metadata`: openslide.mpp, OME's PhysicalSize, DICOM's PixelSpacing, TIFF
resolution per inch or centimetre). A slide that states only its objective's power has that of it if the user said so
(`objective`), else what a flag gives for all slides that state none (`flag`). A wrong word is refused, not passed over.
"""

import math
from pathlib import Path

from preprocessing.errors import SlideError
from preprocessing.store.schema import MppSource

MPP_LIMITS = (0.05, 20.0)
"""No scanner is finer or coarser, micrometres per pixel; what says so has other units, or a printer's 72 dpi."""
MAX_ANISOTROPY = 0.02
"""Pixels whose sides differ by more are not square."""
UM_TIMES_POWER = 10.0
"""Micrometres per pixel times objective power: 40x is 0.25 and 20x 0.5, nominally; scanners differ by a tenth."""
MPP_FIX = "give its level-0 resolution in the column `mpp` of a manifest CSV"


def resolve_mpp(
    path: Path,
    *,
    manifest: float | None = None,
    stated: tuple[float, float] | None = None,
    objective_power: float | None = None,
    from_objective: bool = False,
    flag: float | None = None,
) -> tuple[float, MppSource]:
    """Micrometres per pixel of level 0 and who said so, in the order that the module declares.

    Args:
        path: The slide, for the error.
        manifest: Micrometres per pixel in the manifest's row.
        stated: Micrometres per pixel in x and y that the file states.
        objective_power: Magnification that the file states.
        from_objective: Whether the user takes `10 / objective_power` for the resolution of slides that state no other.
        flag: Micrometres per pixel for slides that state none.

    Raises:
        SlideError: Nobody said, or what was said cannot be.

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


def as_number(text: str) -> float:
    """The number that a slide's metadata spells; NaN for what is none, which no check lets through."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _missing(path: Path, objective_power: float | None) -> SlideError:
    what = "the slide does not state its resolution (no openslide.mpp-x and -y, no TIFF resolution)"
    fix = f"{MPP_FIX}, or pass --mpp-if-missing for all slides that lack theirs"
    if objective_power is not None and objective_power > 0:
        what += (
            f", only an objective of {objective_power:g}x, nominally {UM_TIMES_POWER / objective_power:.3g} micrometres"
        )
        fix += ", or --mpp-from-objective to take such nominal values"
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
            f"{who} {x:.6g} x {y:.6g} micrometres per pixel: its pixels are not square",
            where=path,
            fix=f"resample the slide to square pixels, or, if one of the two is wrong, {MPP_FIX}",
        )
    return (x + y) / 2
