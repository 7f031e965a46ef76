"""Decoders of the frames of DICOM slides that are not baseline JPEG: JPEG 2000, HTJ2K, JPEG-LS and RLE."""

from collections.abc import Callable
from dataclasses import dataclass
from struct import unpack_from

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from preprocessing.jpeg.markers import segments

Pixels = npt.NDArray[np.uint8]
SIZE, CODING = 0x51, 0x52
"""Segments of JPEG 2000 with the size and the transform of colours (ITU-T T.800, A.5.1 and A.6.1)."""
YCBCR = "YBR_FULL"
"""PhotometricInterpretation of frames in YCbCr, which their decoder does not turn to RGB."""


def _jpeg_2000(data: bytes, out: Pixels) -> None:
    """Decode a frame; its size is compared before, because OpenJPEG takes memory for the size that it claims."""
    for kind, begin, _ in segments(data):
        if kind == SIZE:
            right, bottom, left, top = unpack_from(">4I", data, begin + 2)
            if (bottom - top, right - left, 3) != out.shape:
                raise ValueError(f"the frame has {right - left} x {bottom - top} pixels, not those of the header")
            imagecodecs.jpeg2k_decode(data, out=out)
            return
    raise ValueError("the frame is not a JPEG 2000 codestream")


def _rle(data: bytes, out: Pixels) -> None:
    """Decode a frame, whose colours are planes (DICOM PS3.5, G)."""
    height, width, colours = out.shape
    planes = np.empty((colours, height, width), np.uint8)
    imagecodecs.dicomrle_decode(data, "u1", out=planes.data.cast("B"))
    out[:] = planes.transpose(1, 2, 0)


def has_own_transform(data: bytes) -> bool:
    """Return whether a JPEG 2000 frame is turned to RGB by its decoder."""
    return any(kind == CODING and data[begin + 4 : begin + 5] == b"\x01" for kind, begin, _ in segments(data))


@dataclass(frozen=True)
class Frames:
    """Decoder of the frames of a transfer syntax, which fills an array, (h, w, 3), and fails for another size."""

    decode: Callable[[bytes, Pixels], object]
    colours: tuple[str, ...] = ("RGB", YCBCR)
    """Values of PhotometricInterpretation whose frames the decoder turns to RGB, or leaves in YBR_FULL."""


_WAVELET = ("RGB", "YBR_RCT", "YBR_ICT", YCBCR)
_HTJ2K = Frames(lambda data, out: imagecodecs.htj2k_decode(data, out=out), _WAVELET)
_JPEG_LS = Frames(lambda data, out: imagecodecs.jpegls_decode(data, out=out))
FRAMES = {
    JPEG2000Lossless: Frames(_jpeg_2000, _WAVELET),
    JPEG2000: Frames(_jpeg_2000, _WAVELET),
    HTJ2KLossless: _HTJ2K,
    HTJ2KLosslessRPCL: _HTJ2K,
    HTJ2K: _HTJ2K,
    JPEGLSLossless: _JPEG_LS,
    JPEGLSNearLossless: _JPEG_LS,
    RLELossless: Frames(_rle),
}
