"""Content stores of item images, as uint8 pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.decoding import BrokenImageError, Resizing
from adapter4rec.utils.errors import UserError


@dataclass(frozen=True)
class Pixels(Content):
    """Images of n items, uint8 ``[n, height, width, 3]``, RGB; normalised by the image encoder."""

    pixels: Tensor


class ImageStore(ContentStore):
    """Images of all items, read from an LMDB on demand. Works in worker processes.

    Args:
        database: LMDB of the images.
        names: item names in the order of the item ids 1…N.
        size: input height and width of the image encoder, in pixels.
    """

    def __init__(self, database: ImageDatabase, names: list[bytes], size: int) -> None:
        self.database = database
        self.names = names
        self.size = size

    @cached_property
    def resizing(self) -> Resizing:
        """How images became pixels."""
        return Resizing.of(self.database.description)

    def fault_of(self, name: bytes) -> str | None:
        """Why an item has no usable image; None if the database does not leave it out."""
        if name not in self.database.description.left_out:
            return None
        return self.database.faults().get(name, "no image")

    @property
    def identity(self) -> str:
        """Hash of the content of all items."""
        digest = hashlib.sha256(f"{self.database.description.content} {self.size}".encode())
        for name in self.names:
            digest.update(len(name).to_bytes(8, "little") + name)
        return digest.hexdigest()

    def fetch(self, items: np.ndarray) -> Pixels:
        """Read the images of ``items`` (int64 ``[n]``, ids 1…N).

        Raises:
            UserError: as :meth:`ImageDatabase.read`.
        """
        return Pixels(torch.from_numpy(self.database.read([self.names[item - 1] for item in items])))


class ImageFileStore(ContentStore):
    """Images from files or PIL, decoded and resized on demand, in the same way as ``build_lmdb_hm.py``.

    Args:
        pictures: an image file or a PIL image for each item.
        labels: name of each item in error messages.
        resizing: how images become pixels.
    """

    def __init__(
        self, pictures: Sequence[Path | Image.Image], labels: Sequence[str], resizing: Resizing
    ) -> None:
        self.pictures = pictures
        self.labels = labels
        self.resizing = resizing

    def fetch(self, items: np.ndarray) -> Pixels:
        """Decode the images of ``items`` (int64 ``[n]``, ids 1…N).

        Raises:
            UserError: a file is missing, or an image cannot be read.
        """
        pixels = []
        for row in items - 1:
            try:
                pixels.append(self.resizing.pixels(self.pictures[row]))
            except BrokenImageError as error:
                where = f" ({self.pictures[row]})" if isinstance(self.pictures[row], Path) else ""
                raise UserError(f"{self.labels[row]}: cannot read image{where}: {error}") from None
        return Pixels(torch.from_numpy(np.stack(pixels)))
