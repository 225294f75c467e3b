"""Decoding image files to upright 8-bit RGB, and resizing."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from adapter4rec.data.images.description import Description
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import read_regular
from adapter4rec.utils.plain_text import SNIFFED_BYTES, is_page

PixelArray = NDArray[np.uint8]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

_NOT_DECODED = ("EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow recognises but does not decode, or decodes with Ghostscript, which runs programs."""
_MARGINS = {"reduced": 1.5, "fast": 0.85}
"""A JPEG is decoded at no less than this multiple of the wanted size. With less than 1.5, the filter of the
resizing has too few pixels, and the result differs by more than one grey level."""
_LONGEST_REASON = 120
_MOST_BYTES = 1 << 28
_MOST_DECODED = 200 << 20
"""Bytes that decoding any file may take; of a larger file, ten times its size in addition."""
_PIXEL_BYTES = {"WEBP": 16, "AVIF": 10, "JPEG2000": 20}
"""Most bytes per pixel that are allocated at a time, by formats whose decoders hold copies (measured with
Pillow 13); 8 by others: the image, and a turned or converted copy."""
_COEFFICIENT_BYTES = 6
"""Bytes per pixel of the coefficients of a progressive JPEG, which are held at full size."""
_BAND_PIXELS = 1 << 18
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_WHITE_IS_ZERO = 0
_GREY_DEPTHS = {"1": 1, "L;2": 2, "L;4": 4}
"""Bits of grey PNGs by Pillow's raw mode."""


class BrokenImageError(Exception):
    """An image that cannot be read; the message is a short reason."""


def decoded(source: Path | bytes | Image.Image, least: int | None = None) -> Image.Image:
    """Decode an image file, its bytes, or a PIL image to RGB, upright; the first frame of an animation.

    Images with transparency are composited on white. 16-bit values are scaled to 8 bits, not clipped.

    Args:
        source: in any format that Pillow decodes, recognised by content.
        least: height and width that are enough. A large JPEG is then decoded at the half, the quarter or the
            eighth of its size that is no smaller, which takes a fraction of the time.

    Raises:
        BrokenImageError: the file cannot be read, is not an image, truncated or damaged, or has 12-bit or
            32-bit pixels, or would take more memory than 200 MiB and ten times the size of the file.
    """
    data = b""
    try:
        if isinstance(source, Image.Image):
            return _upright(source.copy())
        data = image_bytes(source) if isinstance(source, Path) else source
        with opened_image(data) as image:
            width, height = image.size
            if least is not None:
                image.draft(image.mode, (least, least))
            needed = _PIXEL_BYTES.get(image.format or "", 8) * image.width * image.height
            if image.info.get("progressive"):
                needed += _COEFFICIENT_BYTES * width * height
            if needed > _MOST_DECODED + 10 * len(data):
                raise ValueError(
                    f"{width} x {height} pixels would take {needed >> 20:,} MiB, more than 200 MiB and 10 "
                    "times the file; reduce it"
                )
            return _upright(image)
    except BrokenImageError:
        raise
    except UnidentifiedImageError:
        raise BrokenImageError(_not_an_image(data)) from None
    except Exception as error:  # Pillow's decoders raise arbitrary exceptions
        raise BrokenImageError(one_line(error)) from None


def image_bytes(path: Path) -> bytes:
    """The content of an image file, of at most 256 MiB.

    Raises:
        BrokenImageError: it cannot be read, is larger, or is not a regular file.
    """
    try:
        return read_regular(path, _MOST_BYTES)
    except UserError as error:
        raise BrokenImageError(str(error).removeprefix(f"{path}: ")) from None
    except OSError as error:
        raise BrokenImageError(one_line(error)) from None


def opened_image(source: bytes | Path) -> Image.Image:
    """An image file or its bytes, opened by Pillow but not decoded yet.

    Raises:
        UnidentifiedImageError: Pillow recognises no format that it can decode.
    """
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in Image.ID if kind not in _NOT_DECODED)


def _not_an_image(data: bytes) -> str:
    """What bytes are that Pillow does not recognise."""
    start = data[:SNIFFED_BYTES]
    if not data:
        return "empty file"
    if b"<svg" in start:
        return "not an image of pixels, but an SVG drawing; export it as PNG"
    if is_page(start):
        return "not an image, but a web page; download it again"
    if start[4:8] == b"ftyp":
        return f"this Pillow does not decode {start[8:12].decode('ascii', 'replace').upper()}; convert it"
    return "not an image that Pillow can decode, or truncated"


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
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Composite on white, band by band: as a whole it takes three more copies of the image."""
    found = Image.new("RGB", image.size)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        found.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return found


def resized(
    image: Image.Image, size: int, fit: str = "stretch", interpolation: str = "bilinear"
) -> PixelArray:
    """Resize an RGB image to uint8 ``[size, size, 3]`` with one of Pillow's filters.

    Args:
        image: of any size.
        size: height and width.
        fit: ``stretch`` does not keep the aspect ratio, as in the paper; ``crop`` keeps it and cuts off what
            extends beyond the square, equally on both sides; ``pad`` keeps it and adds white margins.
        interpolation: ``bilinear`` or ``bicubic``.
    """
    square, method = (size, size), _FILTERS[interpolation]
    if fit == "crop":
        return np.asarray(ImageOps.fit(image, square, method))
    if fit == "pad":
        return np.asarray(ImageOps.pad(image, square, method, color="white"))
    return np.asarray(image.resize(square, method))


@dataclass(frozen=True)
class Resizing:
    """How an image becomes pixels.

    Attributes:
        size: height and width; see :func:`resized`, also for the following two.
        fit: ``stretch``, ``crop`` or ``pad``.
        interpolation: ``bilinear`` or ``bicubic``.
        decoding: size at which a JPEG is decoded. ``full``; ``reduced``, at least 1.5 times the wanted size;
            or ``fast``, at least 0.85 times.
    """

    size: int
    fit: str = "stretch"
    interpolation: str = "bilinear"
    decoding: str = "reduced"

    def pixels(self, source: Path | bytes | Image.Image) -> PixelArray:
        """Decode and resize an image, uint8 ``[size, size, 3]``.

        Raises:
            BrokenImageError: see :func:`decoded`.
        """
        margin = _MARGINS.get(self.decoding)
        image = decoded(source, None if margin is None else int(margin * self.size))
        return resized(image, self.size, self.fit, self.interpolation)

    @classmethod
    def of(cls, description: Description) -> Resizing:
        """The resizing of the images of an LMDB."""
        names = ("size", "fit", "interpolation", "decoding")
        return cls(**{name: description.options[name] for name in names})


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
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read file: {error.strerror}"
    return (" ".join(str(error).split()) or type(error).__name__)[:_LONGEST_REASON]
