"""Reading the image database that ``build_lmdb_hm.py`` makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np

from adapter4rec.data.images.decoding import BrokenImageError, PixelArray, decoded, resized
from adapter4rec.data.images.description import DESCRIPTION_KEY, Description, State
from adapter4rec.data.images.opening import SharedEnvironment, lmdb_words, opened
from adapter4rec.data.images.records import Buffer, DamagedRecordError, Storage, shown, unpack
from adapter4rec.utils.errors import UserError

_BUILDER = "python build_lmdb_hm.py"
_KEYS_OF_RELEASED = (b"__keys__", b"__len__")


class ImageDatabase:
    """Images by item name, from an LMDB that is complete.

    Opened at first use, once in each process: an instance may be made before a fork, sent to another process,
    and be one of several for the same path. The checksum of each image is compared at every read.

    Args:
        path: the folder (or file) of the database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shared: SharedEnvironment | None = None
        self._description: Description | None = None

    def __reduce__(self) -> tuple[type[ImageDatabase], tuple[Path]]:
        return ImageDatabase, (self.path,)

    @property
    def description(self) -> Description:
        """What the database holds.

        Raises:
            UserError: no complete image database lies there.
        """
        self._environment()
        assert self._description is not None
        return self._description

    def names(self) -> set[bytes]:
        """Names of the items that have an image. Reads the keys only.

        Raises:
            UserError: no complete image database lies there, or it is damaged.
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
        """Fill ``out``, uint8 ``[len(names), size, size, 3]``, with the images of ``names`` in their order.

        Raises:
            UserError: a name has no image, an image is damaged (the item is named), the database holds pixels
                of another size, or cannot be read at all.
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
        """Those of ``names`` that were left out when the database was built.

        Args:
            names: of a list of items; a part of the list that the database was built from, or all of it.
            items: the list's file, for the message.

        Raises:
            UserError: the database was built from other items, or cannot be read.
        """
        lacking = set(names) - self.names()
        unknown = lacking.difference(self.description.left_out)
        if unknown:
            first = next(name for name in names if name in unknown)
            raise UserError(
                f"{self.path}: built from another list than {items}: {len(unknown):,} of its items are not "
                f"there, {shown(first)} the first of them; build one with: {_BUILDER} --items {items} "
                "--into ANOTHER_PATH"
            )
        return lacking

    def require_size(self, size: int) -> None:
        """Check that images of ``size`` x ``size`` can be read.

        Raises:
            UserError: the database holds pixels of another size, or cannot be read.
        """
        kept = self.description.size
        if kept not in (None, size):
            raise UserError(
                f"{self.path}: it holds images of {kept} x {kept}, and {size} x {size} are needed; build "
                f"them with: {_BUILDER} --size {size} --into ANOTHER_PATH (or --store file: any size)"
            )

    def _fill(self, out: PixelArray, name: bytes, value: Buffer | None) -> None:
        if value is None or name == DESCRIPTION_KEY:
            raise UserError(f"{self.path}: there is no image of item {shown(name)}")
        try:
            record = unpack(name, value)
            if record.form is Storage.FILE:
                out[:] = resized(decoded(bytes(record.payload)).image, len(out))
                return
        except DamagedRecordError as error:
            raise UserError(f"{self.path}: {error}; {self._anew()}") from None
        except BrokenImageError as error:
            raise UserError(f"{self.path}: the image of item {shown(name)}: {error}") from None
        if (record.height, record.width) != out.shape[:2]:
            raise UserError(
                f"{self.path}: the image of item {shown(name)} is {record.height} x {record.width}, "
                f"unlike the others; {self._anew()}"
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
                f"{self.path}: there is no image database; build it with: {_BUILDER} --items ITEMS "
                f"--images FOLDER --into {self.path}"
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
            raise UserError(f"{self.path}: an LMDB, but not one that {_BUILDER} made")
        try:
            description = Description.from_bytes(raw)
        except ValueError as error:
            raise UserError(
                f"{self.path}: its description cannot be read ({error}); {self._anew()}"
            ) from None
        if description.state is not State.COMPLETE:
            raise UserError(
                f"{self.path}: the database is only half built; run the {_BUILDER} command that started it "
                "again to resume"
            )
        return description

    def _damaged(self, error: lmdb.Error) -> UserError:
        return UserError(f"{self.path}: the database is damaged ({lmdb_words(error)}); {self._anew()}")

    def _anew(self) -> str:
        return f"copy it again, or remove it and build it again with {_BUILDER}"
