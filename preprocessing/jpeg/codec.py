"""The Zarr v3 codec `imagecodecs_jpeg`, and the decoding of single tiles.

imagecodecs-zarr registers a codec of the same name and configuration, but only for Python 3.12 and later. The codec
here reads and writes the same metadata and bytes on 3.11 too, so a store is readable with either codec.
"""

import asyncio
import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import simplejpeg
import zarr
from imagecodecs import jpeg8_decode, jpeg8_encode
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.common import JSON, parse_named_configuration
from zarr.registry import register_codec

CODEC_NAME = "imagecodecs_jpeg"
Pieces = Sequence[bytes | memoryview]
"""The bytes of a chunk, in consecutive pieces."""
VECTOR_BYTES, UNEVEN = 32, 8
"""Bytes that libjpeg-turbo writes at once, and offset of an image from a multiple of them.

With this offset no row of an image 16, 32, ... pixels wide begins at a multiple.
"""


@dataclass(frozen=True, kw_only=True)
class Jpeg(ArrayBytesCodec):
    """Zarr codec that stores each chunk as one JPEG. Keys are as in imagecodecs-zarr; keys that are None are omitted.

    Chunks are (..., height, width, 3) or (..., height, width) uint8; all leading axes have length 1. `tables` and
    `header` (base64) complete chunks without tables of their own, as in a TIFF. Our stores contain whole JPEGs and need
    neither.
    """

    is_fixed_size = False

    level: int | None = None
    bitspersample: int | None = None
    tables: str | None = None
    header: str | None = None
    colorspace_data: str | None = None
    colorspace_jpeg: str | None = None
    subsampling: str | None = None
    optimize: bool | None = None
    smoothing: bool | None = None
    lossless: bool | None = None
    predictor: int | None = None

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Return the codec that a metadata document describes."""
        _, configuration = parse_named_configuration(data, CODEC_NAME, require_configuration=False)
        return cls(**cast("dict[str, Any]", configuration or {}))

    def to_dict(self) -> dict[str, JSON]:
        """Return the codec's metadata document."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"name": CODEC_NAME, "configuration": {key: value for key, value in values.items() if value is not None}}

    def encode_image(self, image: npt.NDArray[np.uint8]) -> bytes:
        """Encode one image, (height, width, 3) or (height, width), as JPEG bytes."""
        encoded = jpeg8_encode(
            image,
            level=self.level,
            colorspace=self.colorspace_data,
            outcolorspace=self.colorspace_jpeg,
            subsampling=self.subsampling,
            optimize=self.optimize,
            smoothing=self.smoothing,
            lossless=self.lossless,
            predictor=self.predictor,
        )
        return bytes(encoded)

    def decode_image(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Decode JPEG bytes to one image, (height, width, 3) or (height, width)."""
        if self.header is not None:
            data = base64.b64decode(self.header) + data + b"\xff\xd9"
        return jpeg8_decode(
            data,
            tables=None if self.tables is None else base64.b64decode(self.tables),
            colorspace=self.colorspace_jpeg,
            outcolorspace=self.colorspace_data,
        )

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        chunk = chunk_data.as_numpy_array()
        image_shape = chunk.shape[-3:] if chunk.shape[-1] == 3 else chunk.shape[-2:]
        image = np.ascontiguousarray(chunk).reshape(image_shape)  # fails unless the leading axes have length 1
        return chunk_spec.prototype.buffer.from_bytes(self.encode_image(image))

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        image = self.decode_image(chunk_data.to_bytes())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(image.reshape(chunk_spec.shape))

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError, because the size is unknown before encoding."""
        raise NotImplementedError


def empty_pixels(*shape: int) -> npt.NDArray[np.uint8]:
    """Return an uninitialised array (..., height, width, channels) that does not begin at a multiple of 32 bytes.

    At such multiples, which NumPy's arrays may have, libjpeg-turbo writes colours past the processor's caches
    (`vmovntdq` in jdcolext-avx2.asm). A tile of 256 pixels then takes 20 to 40 of 250 microseconds longer.
    """
    size = math.prod(shape)
    memory = np.empty(size + VECTOR_BYTES, np.uint8)
    start = (UNEVEN - memory.__array_interface__["data"][0]) % VECTOR_BYTES
    return memory[start : start + size].reshape(shape)


def decode_into(data: bytes, out: npt.NDArray[np.uint8], scale: int = 1, *, plain: bool = False) -> None:
    """Decode JPEG bytes into `out` without a copy: RGB with the same pixels as `Jpeg().decode_image`, or luma only.

    The image size is checked first, which takes 1 of 250 microseconds per tile: simplejpeg's own check of the buffer
    accepts an image of 32,767 x 32,767 pixels.

    Args:
        data: A colour JPEG, `scale` times as high and wide as `out`.
        out: (height, width, 3) for RGB, or (height, width, 1) for luma, which takes two thirds of the time; see
            `empty_pixels`.
        scale: 1, 2, 4 or 8: number of image pixels per decoded pixel, along each side.
        plain: Repeat subsampled chroma instead of interpolating it.

    Raises:
        ValueError: The bytes are not a JPEG, are damaged, or contain an image of another size.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    wanted = out.shape[0] * scale, out.shape[1] * scale
    if (height, width) != wanted:
        raise ValueError(f"JPEG of {width} x {height} pixels where {wanted[1]} x {wanted[0]} are expected")
    colours = {3: "RGB", 1: "GRAY"}[out.shape[2]]
    size = {"min_height": out.shape[0], "min_width": out.shape[1]}
    simplejpeg.decode_jpeg(data, colours, fastupsample=plain, buffer=out, **size)


register_codec(CODEC_NAME, Jpeg)
# With imagecodecs-zarr installed, the name has two implementations; choosing one here avoids a warning of zarr.
zarr.config.set({f"codecs.{CODEC_NAME}": f"{Jpeg.__module__}.{Jpeg.__qualname__}"})
