"""Image files become 8 bit RGB, or are refused with a reason; the records that hold them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from image_shop import encoded, exif, picture, png
from PIL import Image, ImageOps, ImageSequence, features

from adapter4rec.data.images.database import pack, unpack
from adapter4rec.data.images.decoding import BrokenImageError, decoded, in_colour


class TestRecords:
    PIXELS = bytes(range(12))

    def test_round_trip(self) -> None:
        value = pack(b"v1", self.PIXELS)
        assert len(value) == 4 + 12
        assert unpack(b"v1", value, 2).tobytes() == self.PIXELS
        assert unpack(b"v1", memoryview(value), 2).shape == (2, 2, 3)

    def test_a_flipped_bit_anywhere_names_the_item(self) -> None:
        value = pack(b"v1", self.PIXELS)
        for position in range(len(value)):
            damaged = bytearray(value)
            damaged[position] ^= 1
            with pytest.raises(ValueError, match="'v1'"):
                unpack(b"v1", bytes(damaged), 2)

    def test_cut_off(self) -> None:
        value = pack(b"v1", self.PIXELS)
        for length in range(len(value)):
            with pytest.raises(ValueError, match="'v1'"):
                unpack(b"v1", value[:length], 2)

    def test_another_items_value_is_no_value(self) -> None:
        with pytest.raises(ValueError, match="'v2'"):
            unpack(b"v2", pack(b"v1", self.PIXELS), 2)


def one_colour() -> Image.Image:
    image = Image.new("P", (9, 5), 3)
    image.putpalette([200, 0, 0] * 256)
    return image


def tiff_of_12_bits() -> bytes:
    """A white TIFF of 2 x 2 pixels, written by hand, since Pillow writes none of 12 bits."""
    pixels = b"\xff" * 6
    tags = {256: 2, 257: 2, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    end = struct.pack("<I", 0)
    return (
        b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + end
    )


AVIF = ["AVIF"] if features.check("avif") else []
SIXTEEN = np.random.default_rng(5).integers(0, 65536, (6, 7, 3)).astype(np.uint16)


@pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged images
class TestDecoding:
    @pytest.mark.parametrize(
        "data",
        [
            encoded(picture(1), "JPEG"),
            encoded(picture(1), "PNG"),
            encoded(picture(1), "WEBP"),
            encoded(picture(1), "BMP"),
            encoded(picture(1), "TIFF"),
            encoded(picture(1), "TIFF", compression="tiff_lzw"),
            encoded(picture(1, "L"), "JPEG"),
            encoded(picture(1, "1"), "PNG"),
            encoded(picture(1, "P"), "PNG"),
            encoded(picture(1, "P"), "GIF"),
            encoded(picture(1, "CMYK"), "JPEG"),
            *(encoded(picture(1), kind) for kind in AVIF),
        ],
    )
    def test_modes_become_what_pil_makes_of_them(self, data: bytes) -> None:
        found = decoded(data)
        expected = Image.open(io.BytesIO(data)).convert("RGB")
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))

    def test_rare_modes(self) -> None:
        found = in_colour(picture(1, "YCbCr"))
        assert found.mode == "RGB"

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_alpha_is_laid_on_white(self, mode: str, kind: str) -> None:
        image = picture(2, mode)
        *colours, alpha = (np.asarray(band).astype(float) for band in image.split())
        found = decoded(encoded(image, kind))
        expected = np.stack(colours * (3 // len(colours)), axis=2)
        share = alpha[..., None] / 255
        expected = expected * share + 255 * (1 - share)
        assert np.abs(np.asarray(found) - expected).max() <= 1

    @pytest.mark.parametrize(
        "data",
        [
            encoded(Image.new("RGBA", (9, 5), (200, 0, 0, 0)), "PNG"),
            encoded(Image.new("RGBA", (9, 5), (200, 0, 0, 0)), "WEBP", lossless=True, exact=True),
            encoded(one_colour(), "PNG", transparency=3),
            encoded(one_colour(), "GIF", transparency=3, optimize=False),
            encoded(Image.new("RGB", (9, 5), (200, 0, 0)), "PNG", transparency=(200, 0, 0)),
            encoded(Image.new("L", (9, 5), 7), "PNG", transparency=7),
            png(np.full((5, 9), 777), struct.pack(">H", 777)),
            png(np.full((5, 9, 3), 777), struct.pack(">HHH", 777, 777, 777)),
        ],
    )
    def test_hidden_colours_never_show(self, data: bytes) -> None:
        found = decoded(data)
        assert (np.asarray(found) == 255).all()

    @pytest.mark.parametrize(
        ("data", "values"),
        [
            (png(SIXTEEN), SIXTEEN),
            (png(SIXTEEN[..., 0]), np.repeat(SIXTEEN[..., :1], 3, axis=2)),
            (
                encoded(Image.fromarray(SIXTEEN[..., 0]), "TIFF"),
                np.repeat(SIXTEEN[..., :1], 3, axis=2),
            ),
        ],
    )
    def test_16_bits_are_scaled_not_clipped(self, data: bytes, values: np.ndarray) -> None:
        found = decoded(data)
        np.testing.assert_array_equal(np.asarray(found), values >> 8)

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", *AVIF])
    def test_turned_by_exif(self, kind: str, orientation: int) -> None:
        image = picture(3)
        data = encoded(image, kind, exif=exif(orientation))
        found = decoded(data)
        assert found.size == (image.size if orientation < 5 else image.size[::-1])
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))

    def test_nonsense_in_exif_does_no_harm(self) -> None:
        data = encoded(picture(3), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
        assert decoded(data).size == picture(3).size
        assert decoded(encoded(picture(3), "JPEG", exif=exif(9))).size == picture(3).size

    def test_the_first_frame_of_an_animation(self) -> None:
        frames = [picture(seed, "P") for seed in (1, 2)]
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        first = next(iter(ImageSequence.Iterator(Image.open(io.BytesIO(data))))).convert("RGB")
        np.testing.assert_array_equal(np.asarray(decoded(data)), np.asarray(first))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
    def test_cut_off(self, kind: str) -> None:
        data = encoded(picture(4, "P" if kind == "GIF" else "RGB"), kind)
        for part in (1, 10, len(data) // 3, len(data) // 2, len(data) * 3 // 4):
            with pytest.raises(BrokenImageError):
                decoded(data[:part])

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "empty file"),
            (b"no image at all", "not an image"),
            (b"<html><body>404</body></html>" * 50, "not an image"),
            (
                png(np.zeros((4, 4)), claimed=(10**5, 10**5)),
                "bomb",
            ),
            (encoded(Image.new("F", (4, 4)), "TIFF"), "32-bit"),
            (tiff_of_12_bits(), "12-bit"),
        ],
    )
    def test_what_is_wrong_is_said(self, data: bytes, reason: str) -> None:
        with pytest.raises(BrokenImageError, match=reason) as caught:
            decoded(data)
        assert "\n" not in str(caught.value)
        assert "\t" not in str(caught.value)


def small_grey_png(bits: int, values: np.ndarray, transparent: int) -> bytes:
    """A PNG of one row in 1, 2 or 4 bits of grey, with a transparent value."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    planes = np.unpackbits(values.astype(np.uint8)[:, None], axis=1)[:, -bits:]
    head = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    data = zlib.compress(b"\0" + np.packbits(planes).tobytes())
    parts = chunk(b"IHDR", head) + chunk(b"tRNS", struct.pack(">H", transparent)) + chunk(b"IDAT", data)
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_small_grey_with_a_transparent_value(bits):
    values = np.arange(2**bits)
    for transparent in values.tolist():
        expected = values * 255 // (2**bits - 1)
        expected[transparent] = 255
        found = np.asarray(decoded(small_grey_png(bits, values, transparent)))
        assert found[0, :, 0].tolist() == expected.tolist()


@pytest.mark.parametrize("white_is_zero", [True, False])
def test_16_bit_tiffs_of_both_polarities(white_is_zero):
    values = np.linspace(0, 65535, 32).astype("<u2").reshape(4, 8)
    tags = [(256, 3, 8), (257, 3, 4), (258, 3, 16), (259, 3, 1), (262, 3, 0 if white_is_zero else 1)]
    tags += [(273, 4, 8 + 2 + 12 * 9 + 4), (277, 3, 1), (278, 3, 4), (279, 4, 64)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II" + struct.pack("<HIH", 42, 8, len(tags)) + entries + bytes(4) + values.tobytes()
    high = values >> 8
    assert np.array_equal(np.asarray(decoded(data))[:, :, 0], 255 - high if white_is_zero else high)


def claiming(width: int, height: int, kind: str, **options: object) -> bytes:
    """A small file with many pixels."""
    return encoded(Image.new("L" if kind == "PNG" else "RGB", (width, height)), kind, **options)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (claiming(6000, 5000, "PNG"), None),
        (claiming(6000, 5000, "PNG"), 224),
        (claiming(4000, 4000, "WEBP", quality=1), None),
        (claiming(6000, 6000, "JPEG", quality=1), None),
        (claiming(7000, 7000, "JPEG", quality=1, progressive=True), 224),  # reduced, but not before
    ],
    ids=["png", "png to be resized", "webp", "jpeg", "progressive jpeg"],
)
def test_more_pixels_than_the_file_has_reason_for_are_refused(data: bytes, size: int | None) -> None:
    with pytest.raises(BrokenImageError, match=r"pixels would take \d+ MiB, more than 200 MiB"):
        decoded(data, size)


def test_large_pictures_are_decoded() -> None:
    assert decoded(claiming(6000, 4000, "JPEG")).size == (6000, 4000)
    assert max(decoded(claiming(7000, 7000, "JPEG", quality=1), 224).size) < 1000  # reduced
    loud = np.random.default_rng(0).integers(0, 256, (1000, 1000), np.uint8)
    assert decoded(encoded(Image.fromarray(np.tile(loud, (6, 5))), "BMP")).size == (5000, 6000)


def test_bands_of_transparency_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(2, "RGBA")
    whole = np.asarray(in_colour(image))
    monkeypatch.setattr("adapter4rec.data.images.decoding._BAND_PIXELS", 1)
    assert np.array_equal(np.asarray(in_colour(image)), whole)


@pytest.mark.parametrize("mode", ["I", "F", "LAB", "HSV", "La"])
def test_modes_that_are_refused_are_named(mode):
    with pytest.raises(BrokenImageError, match="32-bit" if len(mode) == 1 else mode):
        decoded(Image.new(mode, (2, 2)))
