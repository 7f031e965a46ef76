"""Resolution and magnification of an image from OME-XML, the description inside an OME-TIFF.

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
    "μm": 1.0,  # U+03BC; the micro sign U+00B5 is normalised to it
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "thou": 25.4,
    "in": 25_400.0,
    "inch": 25_400.0,
}
"""Micrometres per unit: units of OME's UnitsLength plausible for a pixel, and two non-standard spellings (um, inch)."""
NO_LENGTH = {"pixel", "reference frame"}
"""Units of OME that are not a physical length."""


def ome_mpp(xml: str, size: tuple[int, int]) -> tuple[float, float] | None:
    """Return micrometres per pixel, x and y, of the image of `size` (width, height), or None if it states none.

    A value is NaN if the physical size is not a number or its unit is unknown.
    """
    for pixels in _elements(xml, "Pixels"):
        if (pixels.get("SizeX"), pixels.get("SizeY")) == tuple(map(str, size)):
            x, y = _length(pixels, "PhysicalSizeX"), _length(pixels, "PhysicalSizeY")
            return None if x is None or y is None else (x, y)
    return None


def ome_objective_power(xml: str) -> float | None:
    """Return the nominal magnification of the objective, or None if the file lists no or several magnifications."""
    powers = {objective.get("NominalMagnification") for objective in _elements(xml, "Objective")} - {None}
    return as_number(str(powers.pop())) if len(powers) == 1 else None


def _elements(xml: str, name: str) -> list[ElementTree.Element]:
    return [element for element in ElementTree.fromstring(xml).iter() if element.tag.rpartition("}")[2] == name]


def _length(pixels: ElementTree.Element, name: str) -> float | None:
    value = pixels.get(name)
    unit = unicodedata.normalize("NFKC", pixels.get(f"{name}Unit", "um"))  # the default unit is micrometres
    if value is None or unit in NO_LENGTH:
        return None
    return as_number(value) * UM_PER_UNIT.get(unit, math.nan)
