"""Item images as a run fetches them: uint8 pixels of the distinct items of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adapter4rec.data.content import Content
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.decoding import BrokenImageError, resized, upright
from adapter4rec.data.images.sources import read_picture
from adapter4rec.utils.errors import UserError


@dataclass(frozen=True)
class Pixels(Content):
    """Images of n items, uint8 ``[n, height, width, 3]``, RGB; they are scaled where they are encoded."""

    pixels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


class ImageStore:
    """Images of a catalogue, read from an LMDB when they are fetched, in whichever process fetches them.

    Args:
        database: where they lie.
        names: the name of each item, in the order of the items' numbers 1…N.
        size: height and width that the item encoder takes, in pixels.
    """

    def __init__(self, database: ImageDatabase, names: list[bytes], size: int) -> None:
        self.database = database
        self.names = names
        self.size = size

    @property
    def identity(self) -> str:
        """Hash of all that :meth:`fetch` gives, for which items in which order."""
        digest = hashlib.sha256(f"{self.database.description.content} {self.size}".encode())
        for name in self.names:
            digest.update(len(name).to_bytes(8, "little") + name)
        return digest.hexdigest()

    def fetch(self, items: np.ndarray) -> Pixels:
        """Pixels of ``items``, each read once."""
        pixels = np.empty((len(items), self.size, self.size, 3), np.uint8)
        self.database.read_into([self.names[item - 1] for item in items], pixels)
        return Pixels(torch.from_numpy(pixels))

    def costs(self) -> np.ndarray:
        """1 an item: all images are of one size."""
        return np.ones(len(self.names), np.int64)


class PictureStore:
    """Images outside of an LMDB, prepared when they are fetched, as ``build_lmdb_hm.py`` prepares them.

    Args:
        pictures: of each item a file, or an image that PIL has opened or made.
        labels: what each is called in messages.
        size: height and width that the item encoder takes, in pixels.
    """

    def __init__(self, pictures: Sequence[Path | Image.Image], labels: Sequence[str], size: int) -> None:
        self.pictures = pictures
        self.labels = labels
        self.size = size

    def fetch(self, items: np.ndarray) -> Pixels:
        """Pixels of ``items``.

        Raises:
            UserError: a file is missing or no image, or an image is damaged.
        """
        return Pixels(torch.from_numpy(np.stack([self._pixels(item - 1) for item in items])))

    def costs(self) -> np.ndarray:
        """1 an item: all images are of one size."""
        return np.ones(len(self.pictures), np.int64)

    def _pixels(self, row: int) -> np.ndarray:
        picture = self.pictures[row]
        try:
            if isinstance(picture, Image.Image):
                return resized(upright(picture).image, self.size)
            return resized(read_picture(picture)[1].image, self.size)
        except BrokenImageError as error:
            where = "" if isinstance(picture, Image.Image) else f" ({picture})"
            raise UserError(f"{self.labels[row]}: the image cannot be used{where}: {error}") from None
