"""Safe reading of the LMDBs written by the released scripts, whose values are pickles.

A value is a pickled ``LMDB_Image`` with the attributes ``channels``, ``size`` (height, width), ``image``
(raw bytes, row-major) and ``id``. Since a pickle can call arbitrary functions, the unpickler resolves only
three names, to inert classes: the record class and, for numpy ids, ``scalar`` and ``dtype``.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
from PIL import Image

from adapter4rec.data.images.decoding import BrokenImageError, DecodedImage, in_colour
from adapter4rec.data.images.description import DESCRIPTION_KEY, LONGEST_NAME, Origin
from adapter4rec.data.images.opening import SharedEnvironment, lmdb_message, opened
from adapter4rec.data.images.records import shown
from adapter4rec.data.images.sources import Place
from adapter4rec.utils.errors import UserError

_RECORD = "LMDB_Image"
_NUMPY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY_NAMES = ("dtype", "scalar")
_LISTS = (b"__keys__", b"__len__")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_NUMBERED_ITEM = re.compile(rb"v([0-9]+)")
_EXAMPLES = 3


class _RefusedError(Exception):
    """A pickle refers to a name that is not allowed."""


class _Placeholder:
    """Placeholder for numpy scalars and dtypes; discards its arguments."""

    def __init__(self, *values: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _RecordUnpickler(pickle.Unpickler):
    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw))
        # New classes for each pickle, so that a pickle cannot modify the classes of the next one.
        self._record = type(_RECORD, (), {})
        self._ignored = type("Placeholder", (_Placeholder,), {})

    def find_class(self, module: str, name: str) -> Any:
        if name == _RECORD:  # in any module: the released scripts use several
            return self._record
        if module in _NUMPY_MODULES and name in _NUMPY_NAMES:
            return self._ignored
        raise _RefusedError(f"{module}.{name}")

    def attributes(self) -> dict[str, Any]:
        """Load the record and return its attributes.

        Raises:
            BrokenImageError: the pickle is damaged, or not an image record.
            _RefusedError: it refers to a name that is not allowed.
        """
        try:
            found = self.load()
        except _RefusedError:
            raise
        except Exception as error:  # damaged pickles raise arbitrary exceptions
            raise BrokenImageError(f"damaged record ({type(error).__name__})") from None
        if type(found) is not self._record:
            raise BrokenImageError(f"the record is a pickled {type(found).__name__}, not an image")
        return vars(found)


class ReleasedSource:
    """An LMDB of the released scripts, opened lazily. Thread-safe.

    Args:
        path: file or folder of the LMDB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shared: SharedEnvironment | None = None

    @property
    def origin(self) -> Origin:
        """An LMDB of the released scripts."""
        return Origin.RELEASED

    def find(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Keys of the images of ``names``: the item name, or for an item ``v123`` the number.

        Raises:
            UserError: the LMDB cannot be read, or has no image of any item.
        """
        try:
            with self._environment().begin(buffers=True) as transaction:
                if transaction.get(DESCRIPTION_KEY) is not None:
                    raise UserError(f"{self.path}: built by this project; no conversion needed")
                found = {name: key for name in names for key in _keys(name) if transaction.get(key)}
                if not found:
                    raise self._no_match(names, transaction)
        except lmdb.Error as error:
            raise UserError(f"{self.path}: damaged LMDB ({lmdb_message(error)})") from None
        return found

    def load(self, place: Place) -> tuple[bytes, DecodedImage]:
        """The image; the bytes are empty, since there is no image file.

        Raises:
            BrokenImageError: damaged record.
            UserError: the pickle refers to other code, which is not executed.
        """
        key = place.encode() if isinstance(place, str) else place
        try:
            with self._environment().begin() as transaction:
                raw = transaction.get(key)
        except lmdb.Error as error:
            raise BrokenImageError(f"damaged LMDB ({lmdb_message(error)})") from None
        try:
            return b"", _picture(_RecordUnpickler(raw or b"").attributes())
        except _RefusedError as refused:
            raise UserError(
                f"{self.path}: unsafe pickle in record {shown(key)}: it refers to {refused}. Nothing was "
                "executed; this LMDB was not written by the released scripts"
            ) from None

    def looked_for(self) -> str:
        """The LMDB and the form of its keys."""
        return f"{self.path}. Keys are item names, or for an item v123 the number."

    def _environment(self) -> lmdb.Environment:
        if self._shared is None:
            self._shared = opened(self.path)
        return self._shared.env

    def _no_match(self, names: Sequence[bytes], transaction: lmdb.Transaction) -> UserError:
        keys = (bytes(key) for key in transaction.cursor().iternext(keys=True, values=False))
        found = ", ".join(shown(key) for key in islice((k for k in keys if k not in _LISTS), _EXAMPLES))
        wanted = ", ".join(map(shown, names[:_EXAMPLES]))
        return UserError(
            f"{self.path}: no image of any item; keys: {found or 'none'}, …; item names: {wanted}, …"
        )


def _keys(name: bytes) -> list[bytes]:
    """Possible keys of an item, in ascending priority."""
    number = _NUMBERED_ITEM.fullmatch(name)
    keys = [number[1].lstrip(b"0") or b"0", number[1], name] if number else [name]
    return [key for key in keys if len(key) <= LONGEST_NAME and key not in _LISTS]


def _picture(attributes: dict[str, Any]) -> DecodedImage:
    try:
        channels, (height, width), raw = attributes["channels"], attributes["size"], attributes["image"]
    except (KeyError, TypeError, ValueError):
        raise BrokenImageError("invalid record: channels, size or image missing") from None
    numbers = (channels, height, width)
    if not all(type(number) is int and number > 0 for number in numbers) or type(raw) is not bytes:
        raise BrokenImageError("invalid record: channels, size or image of the wrong type")
    if channels not in _MODES:
        raise BrokenImageError(f"invalid record: {channels} channels; expected 1, 3 or 4")
    if len(raw) != height * width * channels:
        raise BrokenImageError(f"invalid record: {len(raw):,} bytes for {height} x {width} x {channels}")
    return in_colour(Image.frombytes(_MODES[channels], (width, height), raw))
