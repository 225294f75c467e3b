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
from pathlib import Path
from typing import Any

import lmdb
from PIL import Image

from adapter4rec.data.images.database import DESCRIPTION_KEY, examples, lmdb_message, opened, shown
from adapter4rec.data.images.decoding import BrokenImageError, in_colour
from adapter4rec.utils.errors import UserError

_RECORD = "LMDB_Image"
_NUMPY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_NUMPY_NAMES = ("dtype", "scalar")
_LISTS = (b"__keys__", b"__len__")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_NUMBERED_ITEM = re.compile(rb"v([0-9]+)")


class _Placeholder:
    """Placeholder for numpy scalars and dtypes; discards its arguments."""

    def __init__(self, *values: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _RecordUnpickler(pickle.Unpickler):
    def __init__(self, raw: bytes, label: str) -> None:
        super().__init__(io.BytesIO(raw))
        self._label = label
        # New classes for each pickle, so that a pickle cannot modify the classes of the next one.
        self.record = type(_RECORD, (), {})
        self._ignored = type("Placeholder", (_Placeholder,), {})

    def find_class(self, module: str, name: str) -> Any:
        if name == _RECORD:  # in any module: the released scripts use several
            return self.record
        if module in _NUMPY_MODULES and name in _NUMPY_NAMES:
            return self._ignored
        raise UserError(
            f"{self._label}: unsafe pickle: it refers to {module}.{name}. Nothing was executed; this LMDB "
            "was not written by the released scripts"
        )


class ReleasedSource:
    """An LMDB of the released scripts. Thread-safe.

    Args:
        path: file or folder of the LMDB.

    Raises:
        UserError: no such LMDB, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._environment = opened(path)

    def find(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Keys of the images of ``names``: the item name, or for an item ``v123`` the number.

        Raises:
            UserError: the LMDB cannot be read, or has no image of any item.
        """
        try:
            with self._environment.begin(buffers=True) as transaction:
                if transaction.get(DESCRIPTION_KEY) is not None:
                    raise UserError(f"{self.path}: built by this project; no conversion needed")
                found = {name: key for name in names for key in _keys(name) if transaction.get(key)}
                if not found:
                    keys = map(bytes, transaction.cursor().iternext(keys=True, values=False))
                    raise UserError(
                        f"{self.path}: no image of any item; keys: "
                        f"{examples(key for key in keys if key not in _LISTS)}; items: {examples(names)}"
                    )
        except lmdb.Error as error:
            raise UserError(f"{self.path}: damaged LMDB ({lmdb_message(error)})") from None
        return found

    def load(self, place: bytes) -> Image.Image:
        """The image under a key, RGB.

        Raises:
            BrokenImageError: damaged record.
            UserError: the pickle refers to other code, which is not executed.
        """
        try:
            with self._environment.begin() as transaction:
                raw = transaction.get(place)
            unpickler = _RecordUnpickler(raw or b"", f"{self.path}: record {shown(place)}")
            record = unpickler.load()
        except UserError:
            raise
        except Exception as error:  # damaged pickles raise arbitrary exceptions
            raise BrokenImageError(f"damaged record ({type(error).__name__})") from None
        if type(record) is not unpickler.record:
            raise BrokenImageError(f"the record is a pickled {type(record).__name__}, not an image")
        return _picture(vars(record))


def _keys(name: bytes) -> list[bytes]:
    """Possible keys of an item, in ascending priority."""
    number = _NUMBERED_ITEM.fullmatch(name)
    keys = [number[1].lstrip(b"0") or b"0", number[1], name] if number else [name]
    return [key for key in keys if key not in _LISTS]


def _picture(attributes: dict[str, Any]) -> Image.Image:
    try:
        channels, (height, width), raw = attributes["channels"], attributes["size"], attributes["image"]
        if len(raw) != height * width * channels:
            raise ValueError(f"{len(raw):,} bytes for {height} x {width} x {channels}")
        image = Image.frombytes(_MODES[channels], (width, height), raw)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenImageError(f"invalid record: {error}") from None
    return in_colour(image)
