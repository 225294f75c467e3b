"""From the bytes of an image file to 8 bit RGB the right way up, at the size that an encoder takes."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from adapter4rec.data.images.records import Conversion

PixelArray = NDArray[np.uint8]

RESIZE = "PIL bilinear"
"""How images are resized; part of a database's description."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_LONGEST_REASON = 120
_BOMB = "too many pixels, it may be a decompression bomb"
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
"""What undoes each EXIF orientation; 1 is upright."""


class BrokenImageError(Exception):
    """Bytes that are no image, or none that can be used; the message is a short reason."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        image: mode RGB, full size, the right way up.
        conversions: what was done to make it so.
    """

    image: Image.Image
    conversions: Conversion


def decoded(data: bytes) -> DecodedImage:
    """Decode an image file; of an animation the first frame.

    Transparent places become white, half-transparent ones are laid on white, so that the colours which
    files hide under transparency never show. Values of 16 bits are scaled to 8, not clipped.

    Raises:
        BrokenImageError: empty, no image, cut off, damaged, or with more pixels than PIL takes for harmless.
    """
    if not data:
        raise BrokenImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _require_harmless(image)
            return _upright(image, _bits_of_a_channel(image, data))
    except BrokenImageError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS)
        raise BrokenImageError(f"no image: none of {known}, or cut off at its very start") from None
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"{_BOMB}: {_line(error)}") from None
    except Exception as error:  # the formats' readers raise whatever their parsing runs into
        raise BrokenImageError(f"it cannot be decoded: {_line(error)}") from None


def resized(image: Image.Image, size: int) -> PixelArray:
    """The pixels of an RGB image at ``[size, size, 3]``, its proportions given up (PIL bilinear)."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def in_colour(image: Image.Image) -> DecodedImage:
    """Any 8 bit image as RGB, transparency laid on white.

    Raises:
        BrokenImageError: pixels of 32 bits, which have no known range.
    """
    if image.mode in ("I", "F"):
        raise BrokenImageError("its pixels have 32 bits, and what is black and white among them is not known")
    conversions = _CONVERSIONS_OF_MODE.get(image.mode, Conversion.OTHER)
    if image.info.get("transparency") is not None and image.mode in ("1", "L", "RGB", "P"):
        conversions |= Conversion.ALPHA
    if Conversion.ALPHA in conversions:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return DecodedImage(image.convert("RGB"), conversions)


def upright(image: Image.Image) -> DecodedImage:
    """An image that PIL has opened or made, as :func:`decoded` gives it from its file.

    Raises:
        BrokenImageError: cut off, damaged, or of pixels without a known range.
    """
    try:
        return _upright(image, 16 if image.mode.startswith("I;16") else 8)
    except BrokenImageError:
        raise
    except Exception as error:  # a file that is read only now
        raise BrokenImageError(f"it cannot be decoded: {_line(error)}") from None


def _require_harmless(image: Image.Image) -> None:
    """Refuse what Pillow only warns of; to make its warning an error is not safe in threads."""
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:
        raise BrokenImageError(f"{_BOMB}: {image.width} x {image.height}, and the limit is {most:,} pixels")


def _upright(image: Image.Image, bits: int) -> DecodedImage:
    # PIL turns TIFF files itself when it loads them, and forgets the orientation.
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
    except Exception:  # damaged EXIF data raises anything, and does not make the image unusable
        return 1


def _bits_of_a_channel(image: Image.Image, data: bytes) -> int:
    """Bits as the file has them: PIL opens most 16 bit colour files as if they had 8."""
    if image.format == "PNG":
        return data[24]  # of the IHDR chunk, which is always the first
    if image.format == "TIFF":
        return int(np.max(image.tag_v2.get(ExifTags.Base.BitsPerSample, 1)))
    return 8


def _eight_bit(image: Image.Image, bits: int) -> Image.Image:
    """The high 8 of 16 bits; PIL does so for colour by itself, but would clip grey values."""
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
    """An error in one short line, without tabs."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= _LONGEST_REASON else words[: _LONGEST_REASON - 1] + "…"
