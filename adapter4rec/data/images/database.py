"""Reading the LMDB of item images built by ``build_lmdb_hm.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import lmdb
import numpy as np

from adapter4rec.data.images.opening import lmdb_message, opened
from adapter4rec.data.images.records import DESCRIPTION_KEY, Description, PixelArray, shown, unpack
from adapter4rec.utils.errors import UserError

_BUILDER = "python build_lmdb_hm.py"


class ImageDatabase:
    """Images by item name, read from an LMDB.

    Instances can be pickled and used after a fork. The checksum of an image is verified at each read.

    Args:
        path: folder (or file) of the LMDB, which is opened at the first access.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def description(self) -> Description:
        """Description of the LMDB.

        Raises:
            UserError: not an image LMDB.
        """
        if not self.path.exists():
            raise UserError(f"{self.path}: no such LMDB, or its build is not complete; run {_BUILDER}")
        with self._transaction() as transaction:
            raw = transaction.get(DESCRIPTION_KEY)
            if raw is None:
                raise UserError(
                    f"{self.path}: not built by {_BUILDER}; convert an LMDB of the released scripts with "
                    f"--convert {self.path} --into ANOTHER_PATH"
                )
            return Description.from_bytes(bytes(raw), self.path)

    def names(self) -> set[bytes]:
        """Names of the items with an image. Only keys are read.

        Raises:
            UserError: damaged LMDB.
        """
        with self._transaction() as transaction:
            keys = transaction.cursor().iternext(keys=True, values=False)
            return set(map(bytes, keys)) - {DESCRIPTION_KEY}

    def read(self, names: Sequence[bytes]) -> PixelArray:
        """The images of ``names``, uint8 ``[len(names), size, size, 3]``, RGB.

        Raises:
            UserError: an item has no image, an image is damaged, or the LMDB cannot be read.
        """
        size = self.description.size
        images = np.empty((len(names), size, size, 3), np.uint8)
        with self._transaction() as transaction:
            for row, name in enumerate(names):
                value = transaction.get(name)
                if value is None:
                    raise UserError(f"{self.path}: no image of item {shown(name)}")
                images[row] = unpack(name, value, size)
        return images

    def without_image(self, names: Sequence[bytes], items: Path) -> set[bytes]:
        """Items that were left out when the LMDB was built.

        Args:
            names: names of items; all must be in the item list that the LMDB was built from.
            items: path of the item list, for error messages.

        Raises:
            UserError: the LMDB was built from another item list, or cannot be read.
        """
        left_out = self.description.left_out
        lacking = set(names) - self.names()
        unknown = lacking.difference(left_out)
        if unknown:
            first = next(name for name in names if name in unknown)
            raise UserError(
                f"{self.path}: built from another item list than {items}: {len(unknown):,} items are "
                f"missing, the first is {shown(first)}; build another LMDB with {_BUILDER} --items {items}"
            )
        return lacking

    def require_size(self, size: int) -> None:
        """Check that the images are of ``size`` x ``size``.

        Raises:
            UserError: they have another size, or the LMDB cannot be read.
        """
        found = self.description.size
        if found != size:
            raise UserError(
                f"{self.path}: images are {found} x {found}, but the image encoder expects {size} x {size}; "
                f"build another LMDB with {_BUILDER} --size {size}"
            )

    @contextmanager
    def _transaction(self) -> Iterator[lmdb.Transaction]:
        """A read transaction; values are memoryviews. Damage to the LMDB becomes a UserError."""
        try:
            with opened(self.path).begin(buffers=True) as transaction:
                yield transaction
        except (lmdb.Error, ValueError) as error:
            reason = lmdb_message(error) if isinstance(error, lmdb.Error) else error
            raise UserError(f"{self.path}: {reason}; remove the LMDB and build it again") from None
