"""Decoding image files to upright 8-bit RGB, and resizing."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from adapter4rec.data.images.records import Conversion

PixelArray = NDArray[np.uint8]

RESIZE = "PIL bilinear"
"""Resizing method, recorded in the description of an LMDB."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_LONGEST_REASON = 120
_BOMB = "too many pixels (possible decompression bomb)"
_CONVERSIONS_OF_MODE = {
    "RGB": Conversion(0),
    "1": Conversion.GREY,
    "L": Conversion.GREY,
    "LA": Conversion.GREY | Conversion.ALPHA,
    "P": Conversion.PALETTE,
    "PA": Conversion.PALETTE | Conversion.ALPHA,
    "CMYK": Conversion.CMYK,
    "RGBA": Conversion.ALPHA,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that corrects each EXIF orientation; 1 is upright."""


class BrokenImageError(Exception):
    """An image that cannot be read; the message is a short reason."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        image: upright, mode RGB, original size.
        conversions: conversions that were applied.
    """

    image: Image.Image
    conversions: Conversion


def decoded(data: bytes) -> DecodedImage:
    """Decode an image file; the first frame of an animation.

    Images with transparency are composited on white. 16-bit values are scaled to 8 bits, not clipped.

    Raises:
        BrokenImageError: empty, not an image, truncated, damaged, or more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if not data:
        raise BrokenImageError("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _require_harmless(image)
            return _upright(image, _bits_of_a_channel(image, data))
    except BrokenImageError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS)
        raise BrokenImageError(f"not an image, or truncated (supported formats: {known})") from None
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"{_BOMB}: {_line(error)}") from None
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions
        raise BrokenImageError(f"cannot decode image: {_line(error)}") from None


def resized(image: Image.Image, size: int) -> PixelArray:
    """Resize an RGB image to uint8 ``[size, size, 3]`` (PIL bilinear); the aspect ratio is not kept."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def in_colour(image: Image.Image) -> DecodedImage:
    """Convert an 8-bit image to RGB; transparency is composited on white.

    Raises:
        BrokenImageError: 32-bit pixels, whose value range is unknown.
    """
    if image.mode in ("I", "F"):
        raise BrokenImageError("32-bit pixels with unknown value range are not supported")
    conversions = _CONVERSIONS_OF_MODE.get(image.mode, Conversion.OTHER)
    if image.info.get("transparency") is not None and image.mode in ("1", "L", "RGB", "P"):
        conversions |= Conversion.ALPHA
    if Conversion.ALPHA in conversions:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return DecodedImage(image.convert("RGB"), conversions)


def upright(image: Image.Image) -> DecodedImage:
    """As :func:`decoded`, for a PIL image.

    Raises:
        BrokenImageError: truncated, damaged, or 32-bit pixels.
    """
    try:
        return _upright(image, 16 if image.mode.startswith("I;16") else 8)
    except BrokenImageError:
        raise
    except Exception as error:  # PIL reads files lazily
        raise BrokenImageError(f"cannot decode image: {_line(error)}") from None


def _require_harmless(image: Image.Image) -> None:
    """Reject images for which Pillow only warns; turning its warning into an error is not thread-safe."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise BrokenImageError(f"{_BOMB}: {image.width} x {image.height}; the limit is {limit:,} pixels")


def _upright(image: Image.Image, bits: int) -> DecodedImage:
    # PIL rotates TIFF images on load and resets the orientation tag.
    before = _orientation(image) if image.format == "TIFF" else 1
    image.load()
    after = _orientation(image)
    picture = in_colour(_eight_bit(image, bits))
    conversions = picture.conversions
    if bits > 8:
        conversions |= Conversion.SIXTEEN_BIT
    if before in _TURNS or after in _TURNS:
        conversions |= Conversion.EXIF_TURNED
    upright = picture.image.transpose(_TURNS[after]) if after in _TURNS else picture.image
    return DecodedImage(upright, conversions)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raises arbitrary exceptions; the image may still be readable
        return 1


def _bits_of_a_channel(image: Image.Image, data: bytes) -> int:
    """Bits per channel in the file: PIL opens most 16-bit colour images as 8-bit."""
    if image.format == "PNG":
        return data[24]  # bit depth in the IHDR chunk, which is always the first
    if image.format == "TIFF":
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


def _line(error: BaseException) -> str:
    """An error message as one short line without tabs."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= _LONGEST_REASON else words[: _LONGEST_REASON - 1] + "…"
