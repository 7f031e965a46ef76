"""Maps of numbers over a slide as pyramidal OME-TIFFs, which QuPath, Fiji and napari open in micrometres."""

import hashlib
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import numpy.typing as npt
import tifffile

_TILE = 256
"""Side of a TIFF tile, pixels; the smallest level of the pyramid fits into a single tile."""
_UM_PER_CM = 1e4


def write_ome_pyramid(path: Path, values: npt.NDArray[np.float32], pixel_um: tuple[float, float], name: str) -> None:
    """Write one channel of numbers; its first pixel begins at the slide's top-left corner.

    Numbers are written instead of colours, so that a viewer shows the value under the cursor and lets users choose
    colours and limits. Each level halves the previous level by averaging the pixels that have a value.

    Args:
        path: File to write, `.ome.tif`.
        values: (height, width); NaN for pixels without a value.
        pixel_um: Width and height of a pixel, micrometres.
        name: Name of the channel.
    """
    levels = [values.astype(np.float32)]
    while max(levels[-1].shape) > _TILE:
        levels.append(halved(levels[-1]))
    digest = hashlib.sha256(f"{name} {pixel_um} {values.shape}".encode() + levels[0].tobytes()).hexdigest()
    about = {
        "axes": "YX",
        "UUID": str(uuid5(NAMESPACE_OID, digest)),  # required; equal maps give equal files
        "Name": name,
        "Channel": {"Name": [name]},
        "PhysicalSizeX": pixel_um[0],
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": pixel_um[1],
        "PhysicalSizeYUnit": "µm",
        "Plane": {"PositionX": 0.0, "PositionXUnit": "µm", "PositionY": 0.0, "PositionYUnit": "µm"},
    }
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for level, pixels in enumerate(levels):
            x_per_cm, y_per_cm = (_UM_PER_CM / (side * 2**level) for side in pixel_um)
            tiff.write(
                pixels,
                resolution=(x_per_cm, y_per_cm),
                resolutionunit="CENTIMETER",
                tile=(_TILE, _TILE),
                photometric="minisblack",
                compression="zlib",
                subfiletype=None if level == 0 else 1,
                subifds=len(levels) - 1 if level == 0 else None,
                metadata=about if level == 0 else {},
            )


def halved(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Average each 2 x 2 pixels of a map, (h, w), without NaN; NaN if all four are. Odd sizes are rounded up."""
    height, width = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2)), constant_values=np.nan)
    four = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
    count = np.isfinite(four).sum(axis=(1, 3))
    total = np.nansum(four, axis=(1, 3))
    return np.where(count, total / np.maximum(count, 1), np.nan).astype(np.float32)
