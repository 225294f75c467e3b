"""What the tests of the image LMDB share: images made by code, and folders of them."""

from __future__ import annotations

import csv
import io
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image, ImageOps

from adapter4rec.data.images import updating
from adapter4rec.data.images.building import ImageLmdbSettings
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.description import SOURCES_KEY

SIZE = 16


def picture(seed: int, mode: str = "RGB", width: int = 31, height: int = 22) -> Image.Image:
    chance = np.random.default_rng(seed)
    coarse = chance.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    colours = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    if mode in ("LA", "RGBA"):
        return colours.convert(mode)
    return colours.convert("RGB").convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def by_hand(data: bytes) -> np.ndarray:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def png(values: np.ndarray, transparent: bytes = b"", claimed: tuple[int, int] | None = None) -> bytes:
    """A PNG of 16 bits a channel, uint16 ``[height, width]`` or ``[height, width, 3]``.

    Args:
        values: what is in it.
        transparent: the colour that counts as transparent.
        claimed: another height and width for its header.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = claimed or values.shape[:2]
    colour = 2 if values.ndim == 3 else 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    hidden = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + head + hidden + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def contents(path: Path) -> dict[bytes, bytes]:
    with tempfile.TemporaryDirectory() as copy:  # the database itself may be open in this process
        shutil.copy(path / "data.mdb", copy)
        with lmdb.open(copy, readonly=True, lock=False) as env, env.begin() as read:
            return {key: value for key, value in read.cursor() if key != SOURCES_KEY}


def pixels(database: ImageDatabase, name: bytes) -> np.ndarray:
    return database.read([name])[0]


class Shop:
    """A folder of images and its list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.images.mkdir()
        self.names: list[str] = []

    def filled(self) -> Shop:
        """The shop with 60 images, in an order that is not the keys'."""
        for number in np.random.default_rng(0).permutation(60):
            self.add(f"B{number:03d}", encoded(picture(number), "JPEG"))
        return self

    def add(self, name: str, data: bytes | None = None, file: str = "") -> None:
        self.names.append(name)
        if data is not None:
            path = self.images / (file or f"{name}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def settings(self, **changes) -> ImageLmdbSettings:
        items = self.folder / "items.tsv"
        items.write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")
        values = {"items": items, "images": self.images, "into": self.folder / "shop.lmdb", "size": SIZE}
        return ImageLmdbSettings(**(values | {"workers": 1} | changes))

    def left_out(self) -> dict[str, str]:
        with (self.folder / "shop.missing.csv").open(encoding="utf-8", newline="") as file:
            return {row["item"]: row["reason"] for row in csv.DictReader(file)}


def small_batches(patch: pytest.MonkeyPatch) -> None:
    """Several transactions within a test."""
    patch.setattr(updating, "_BATCH_BYTES", 8 * 3 * SIZE**2)
