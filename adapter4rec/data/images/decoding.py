"""Decoding image files to upright 8-bit RGB, and resizing."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from adapter4rec.data.images.records import PixelArray

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_LONGEST_REASON = 120


class BrokenImageError(Exception):
    """An image that cannot be read; the message is a short reason."""


def read_image(path: Path) -> Image.Image:
    """Decode an image file, as :func:`decoded`.

    Raises:
        BrokenImageError: the image cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BrokenImageError(f"cannot read file: {error.strerror}") from None
    return decoded(data)


def decoded(data: bytes) -> Image.Image:
    """Decode an image file to RGB, upright; the first frame of an animation.

    Images with transparency are composited on white. 16-bit values are scaled to 8 bits, not clipped.

    Raises:
        BrokenImageError: not an image, truncated, damaged, 32-bit pixels, or so many pixels that Pillow
            refuses to decode them.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _upright(image, _bits_of_a_channel(image, data))
    except UnidentifiedImageError:
        raise BrokenImageError(f"not an image, or truncated (formats: {', '.join(_FORMATS)})") from None
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions
        raise BrokenImageError(_line(error)) from None


def upright(image: Image.Image) -> Image.Image:
    """As :func:`decoded`, for a PIL image.

    Raises:
        BrokenImageError: truncated, damaged, or 32-bit pixels.
    """
    try:
        return _upright(image.copy(), 16 if image.mode.startswith("I;16") else 8)
    except Exception as error:  # PIL reads files lazily
        raise BrokenImageError(_line(error)) from None


def in_colour(image: Image.Image) -> Image.Image:
    """Convert an 8-bit image to RGB; transparency is composited on white.

    Raises:
        ValueError: 32-bit pixels, whose value range is unknown.
    """
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels with unknown value range are not supported")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def resized(image: Image.Image, size: int) -> PixelArray:
    """Resize an RGB image to uint8 ``[size, size, 3]`` (PIL bilinear); the aspect ratio is not kept."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _upright(image: Image.Image, bits: int) -> Image.Image:
    image.load()
    with suppress(Exception):  # damaged EXIF data; the image itself may still be readable
        ImageOps.exif_transpose(image, in_place=True)
    return in_colour(_eight_bit(image, bits))


def _bits_of_a_channel(image: Image.Image, data: bytes) -> int:
    """Bits per channel in the file: PIL opens most 16-bit colour images as 8-bit."""
    if image.format == "PNG":
        return data[24]  # bit depth in the IHDR chunk, which is always the first
    if isinstance(image, TiffImageFile):
        return int(np.max(image.tag_v2.get(ExifTags.Base.BitsPerSample, 1)))
    return 8


def _eight_bit(image: Image.Image, bits: int) -> Image.Image:
    """Reduce 16 bits to the high 8; PIL does this for colour images, but clips grey values."""
    hidden = image.info.get("transparency")
    if not image.mode.startswith("I;16"):
        if bits == 16 and isinstance(hidden, tuple):
            image.info["transparency"] = tuple(value >> 8 for value in hidden)
        return image
    values = np.asarray(image)
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    if isinstance(hidden, int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


def _line(error: Exception) -> str:
    """An error message as one short line without tabs."""
    return (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_REASON]
