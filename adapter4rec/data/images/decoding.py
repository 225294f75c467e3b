"""Decoding image files to upright 8-bit RGB, and resizing."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from adapter4rec.data.images.database import PixelArray
from adapter4rec.utils.files import read_regular

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_LONGEST_REASON = 120
_MOST_BYTES = 1 << 28
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_WHITE_IS_ZERO = 0
_GREY_DEPTHS = {"1": 1, "L;2": 2, "L;4": 4}
"""Bits of grey PNGs by Pillow's raw mode."""


class BrokenImageError(Exception):
    """An image that cannot be read; the message is a short reason."""


def decoded(source: Path | bytes | Image.Image) -> Image.Image:
    """Decode an image file, its bytes, or a PIL image to RGB, upright; the first frame of an animation.

    Images with transparency are composited on white. 16-bit values are scaled to 8 bits, not clipped.

    Raises:
        BrokenImageError: the file cannot be read, is not an image, truncated or damaged, or has 12-bit or
            32-bit pixels, or so many pixels that Pillow refuses to decode them.
    """
    try:
        if isinstance(source, Image.Image):
            return _upright(source.copy())
        data = read_regular(source, _MOST_BYTES) if isinstance(source, Path) else source
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _upright(image)
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions
        raise BrokenImageError(one_line(error)) from None


def in_colour(image: Image.Image) -> Image.Image:
    """Convert an 8-bit image to RGB; transparency is composited on white.

    Raises:
        ValueError: LAB or HSV, or 32-bit pixels, whose value range is unknown.
    """
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels with unknown value range are not supported")
    if image.mode in ("LAB", "HSV"):
        raise ValueError(f"{image.mode} pixels are not supported; convert the image to RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def resized(image: Image.Image, size: int) -> PixelArray:
    """Resize an RGB image to uint8 ``[size, size, 3]`` (PIL bilinear); the aspect ratio is not kept."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _upright(image: Image.Image) -> Image.Image:
    if 12 in getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()):
        raise ValueError("12-bit pixels are not supported")
    depth = None
    if isinstance(image, ImageFile.ImageFile) and image.format == "PNG" and image.tile:
        depth = _GREY_DEPTHS.get(str(image.tile[0].args))
    image.load()
    if depth is not None and isinstance(hidden := image.info.get("transparency"), int):
        image = image.convert("L")  # grey of 1, 2 or 4 bits, scaled to 8; the transparent value is not
        image.info["transparency"] = hidden * (255 // (2**depth - 1))
    with suppress(Exception):  # damaged EXIF data; the image itself may still be readable
        ImageOps.exif_transpose(image, in_place=True)
    return in_colour(_eight_bit(image))


def _eight_bit(image: Image.Image) -> Image.Image:
    """Reduce 16 bits to the high 8; PIL does this for colour images, but clips grey values."""
    hidden = image.info.get("transparency")
    if isinstance(hidden, tuple) and max(hidden) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in hidden)
    if not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    high = (values >> 8).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        high = 255 - high
    grey = Image.fromarray(high)
    if isinstance(hidden, int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


def one_line(error: Exception) -> str:
    """The reason for an error, as one short line without tabs."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image, or truncated (formats: {', '.join(_FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read file: {error.strerror}"
    return (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_REASON]
