"""Image files become 8 bit RGB, or are refused with a reason; the records that hold them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from adapter4rec.data.images.database import pack, unpack
from adapter4rec.data.images.decoding import BrokenImageError, decoded


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
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II" + struct.pack("<HIH", 42, 8, len(tags)) + entries + bytes(4) + values.tobytes()
    high = values >> 8
    assert np.array_equal(np.asarray(decoded(data))[:, :, 0], 255 - high if white_is_zero else high)


@pytest.mark.parametrize("mode", ["I", "F", "LAB", "HSV", "La"])
def test_modes_that_are_refused_are_named(mode):
    with pytest.raises(BrokenImageError, match="32-bit" if len(mode) == 1 else mode):
        decoded(Image.new(mode, (2, 2)))
