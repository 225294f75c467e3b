"""Reading the LMDB of item images built by ``build_lmdb_hm.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np

from adapter4rec.data.images.decoding import BrokenImageError, PixelArray, decoded, resized
from adapter4rec.data.images.description import DESCRIPTION_KEY, Description, State
from adapter4rec.data.images.opening import SharedEnvironment, lmdb_message, opened
from adapter4rec.data.images.records import Buffer, DamagedRecordError, Storage, shown, unpack
from adapter4rec.utils.errors import UserError

_BUILDER = "python build_lmdb_hm.py"
_KEYS_OF_RELEASED = (b"__keys__", b"__len__")


class ImageDatabase:
    """Images by item name, read from a complete LMDB.

    The LMDB is opened lazily, once per process. Instances can be pickled and used after a fork; several
    instances may share a path. The checksum of an image is verified at each read.

    Args:
        path: folder (or file) of the LMDB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shared: SharedEnvironment | None = None
        self._description: Description | None = None

    def __reduce__(self) -> tuple[type[ImageDatabase], tuple[Path]]:
        return ImageDatabase, (self.path,)

    @property
    def description(self) -> Description:
        """Description of the LMDB.

        Raises:
            UserError: not a complete image LMDB.
        """
        self._environment()
        assert self._description is not None
        return self._description

    def names(self) -> set[bytes]:
        """Names of the items with an image. Only keys are read.

        Raises:
            UserError: not a complete image LMDB, or damaged.
        """
        try:
            with self._environment().begin() as transaction:
                found = set(transaction.cursor().iternext(keys=True, values=False))
        except lmdb.Error as error:
            raise self._damaged(error) from None
        return found - {DESCRIPTION_KEY}

    def pixels(self, name: bytes, size: int) -> PixelArray:
        """The image of one item, uint8 ``[size, size, 3]``, RGB.

        Raises:
            UserError: as :meth:`read_into`.
        """
        out = np.empty((1, size, size, 3), np.uint8)
        self.read_into([name], out)
        return out[0]

    def read_into(self, names: Sequence[bytes], out: PixelArray) -> None:
        """Read the images of ``names`` into ``out``, uint8 ``[len(names), size, size, 3]``, RGB, in order.

        Raises:
            UserError: an item has no image, an image is damaged, the pixels have another size, or the LMDB
                cannot be read.
            ValueError: wrong shape or dtype of ``out``.
        """
        n, height, width, channels = out.shape
        if (n, width, channels) != (len(names), height, 3) or out.dtype != np.uint8:
            raise ValueError(f"out is {out.dtype} {list(out.shape)} for {len(names)} images")
        environment = self._environment()
        self.require_size(height)
        try:
            with environment.begin(buffers=True) as transaction:
                for row, name in enumerate(names):
                    self._fill(out[row], name, transaction.get(name))
        except lmdb.Error as error:
            raise self._damaged(error) from None

    def without_image(self, names: Sequence[bytes], items: Path) -> set[bytes]:
        """Items that were left out when the LMDB was built.

        Args:
            names: names of items; all must be in the item list that the LMDB was built from.
            items: path of the item list, for error messages.

        Raises:
            UserError: the LMDB was built from another item list, or cannot be read.
        """
        lacking = set(names) - self.names()
        unknown = lacking.difference(self.description.left_out)
        if unknown:
            first = next(name for name in names if name in unknown)
            raise UserError(
                f"{self.path}: built from another item list than {items}: {len(unknown):,} items are "
                f"missing, the first is {shown(first)}; build an LMDB with: {_BUILDER} --items {items} "
                "--into ANOTHER_PATH"
            )
        return lacking

    def require_size(self, size: int) -> None:
        """Check that the LMDB provides images of ``size`` x ``size``.

        Raises:
            UserError: the pixels have another size, or the LMDB cannot be read.
        """
        kept = self.description.size
        if kept not in (None, size):
            raise UserError(
                f"{self.path}: images are {kept} x {kept}, but the image encoder expects {size} x {size}; "
                f"build an LMDB with: {_BUILDER} --size {size} --into ANOTHER_PATH (or --store file for any "
                "size)"
            )

    def _fill(self, out: PixelArray, name: bytes, value: Buffer | None) -> None:
        if value is None or name == DESCRIPTION_KEY:
            raise UserError(f"{self.path}: no image of item {shown(name)}")
        try:
            record = unpack(name, value)
            if record.form is Storage.FILE:
                out[:] = resized(decoded(bytes(record.payload)).image, len(out))
                return
        except DamagedRecordError as error:
            raise UserError(f"{self.path}: {error}; {self._rebuild_hint()}") from None
        except BrokenImageError as error:
            raise UserError(f"{self.path}: the image of item {shown(name)}: {error}") from None
        if (record.height, record.width) != out.shape[:2]:
            raise UserError(
                f"{self.path}: the image of item {shown(name)} has the wrong size {record.height} x "
                f"{record.width}; {self._rebuild_hint()}"
            )
        out[:] = np.frombuffer(record.payload, np.uint8).reshape(out.shape)

    def _environment(self) -> lmdb.Environment:
        if self._shared is None or self._shared.closed:
            self._shared = None
            shared = self._opened()
            self._description = self._complete_description(shared.env)
            self._shared = shared
        return self._shared.env

    def _opened(self) -> SharedEnvironment:
        if not self.path.exists():
            raise UserError(
                f"{self.path}: no such LMDB; build it with: {_BUILDER} --items ITEMS --images FOLDER "
                f"--into {self.path}"
            )
        return opened(self.path)

    def _complete_description(self, environment: lmdb.Environment) -> Description:
        try:
            with environment.begin() as transaction:
                raw = transaction.get(DESCRIPTION_KEY)
                released = raw is None and any(transaction.get(key) for key in _KEYS_OF_RELEASED)
        except lmdb.Error as error:
            raise self._damaged(error) from None
        if released:
            raise UserError(
                f"{self.path}: an LMDB of the released scripts; convert it with: {_BUILDER} "
                f"--convert {self.path} --items ITEMS --into ANOTHER_PATH"
            )
        if raw is None:
            raise UserError(f"{self.path}: this LMDB was not built by {_BUILDER}")
        try:
            description = Description.from_bytes(raw)
        except ValueError as error:
            raise UserError(
                f"{self.path}: cannot read the description ({error}); {self._rebuild_hint()}"
            ) from None
        if description.state is not State.COMPLETE:
            raise UserError(
                f"{self.path}: incomplete LMDB; run the same {_BUILDER} command again to resume the build"
            )
        return description

    def _damaged(self, error: lmdb.Error) -> UserError:
        return UserError(f"{self.path}: damaged LMDB ({lmdb_message(error)}); {self._rebuild_hint()}")

    def _rebuild_hint(self) -> str:
        return f"copy the LMDB again, or remove it and build it again with {_BUILDER}"
