"""What OME-XML, the description of an OME-TIFF, says of an image's resolution.

https://docs.openmicroscopy.org/ome-model/6.3.1/ome-tiff/specification.html
"""

import math
import unicodedata
from xml.etree import ElementTree

from preprocessing.slides.resolution import as_number

UM_PER_UNIT = {
    "pm": 1e-6,
    "Å": 1e-4,
    "nm": 1e-3,
    "μm": 1.0,  # U+03BC; the micro sign, U+00B5, is turned into it
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "thou": 25.4,
    "in": 25_400.0,
    "inch": 25_400.0,
}
"""Micrometres in those units of OME's UnitsLength that a pixel may have, and in two that are only used (um, inch)."""
NO_LENGTH = {"pixel", "reference frame"}
"""Units of OME that say nothing of a size."""


def ome_mpp(xml: str, size: tuple[int, int]) -> tuple[float, float] | None:
    """Micrometres per pixel, x and y, of the image of `size` (width, height); None where it states none.

    NaN for a size that is no number or in a unit that is none.
    """
    for pixels in _elements(xml, "Pixels"):
        if (pixels.get("SizeX"), pixels.get("SizeY")) == tuple(map(str, size)):
            x, y = _length(pixels, "PhysicalSizeX"), _length(pixels, "PhysicalSizeY")
            return None if x is None or y is None else (x, y)
    return None


def ome_objective_power(xml: str) -> float | None:
    """Nominal magnification of the objective; None if the file lists none or several."""
    powers = {objective.get("NominalMagnification") for objective in _elements(xml, "Objective")} - {None}
    return as_number(str(powers.pop())) if len(powers) == 1 else None


def _elements(xml: str, name: str) -> list[ElementTree.Element]:
    return [element for element in ElementTree.fromstring(xml).iter() if element.tag.rpartition("}")[2] == name]


def _length(pixels: ElementTree.Element, name: str) -> float | None:
    value = pixels.get(name)
    unit = unicodedata.normalize("NFKC", pixels.get(f"{name}Unit", "um"))  # micrometres where none is given
    if value is None or unit in NO_LENGTH:
        return None
    return as_number(value) * UM_PER_UNIT.get(unit, math.nan)
