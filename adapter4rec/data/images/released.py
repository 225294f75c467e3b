"""Safe reading of the LMDBs written by the released scripts, whose values are pickles.

A value is a pickled ``LMDB_Image`` with the attributes ``channels``, ``size`` (height, width), ``image``
(raw bytes, row-major) and ``id``. Since a pickle can call arbitrary functions, the unpickler resolves only
three names, to inert classes: the record class and, for numpy ids, ``scalar`` and ``dtype``.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from adapter4rec.data.images.database import examples, opened, reading, shown
from adapter4rec.data.images.decoding import BrokenImageError, in_colour, one_line
from adapter4rec.data.images.description import DESCRIPTION_KEY
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
        self.record: Any = type(_RECORD, (), {})
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


def released_images(path: Path, names: Sequence[bytes]) -> dict[bytes, Callable[[], Image.Image]]:
    """The images of the items ``names`` in an LMDB of the released scripts, as functions that load them.

    The functions are thread-safe. They return RGB, and raise a ``BrokenImageError`` if the record is damaged,
    and a ``UserError`` if the pickle refers to other code, which is not executed.

    Args:
        path: file or folder of the LMDB.
        names: item names. The key is the item name, or for an item ``v123`` the number.

    Raises:
        UserError: no such LMDB, damaged, or without an image of any item.
    """
    with reading(path) as transaction:
        if transaction.get(DESCRIPTION_KEY) is not None:
            raise UserError(f"{path}: built by this project; no conversion needed")
        found = {name: key for name in names for key in _keys(name) if transaction.get(key)}
        if not found:
            keys = map(bytes, transaction.cursor().iternext(keys=True, values=False))
            raise UserError(
                f"{path}: no image of any item; keys: "
                f"{examples(key for key in keys if key not in _LISTS)}; items: {examples(names)}"
            )
    return {name: partial(_load, path, key) for name, key in found.items()}


def _load(path: Path, key: bytes) -> Image.Image:
    with opened(path).begin() as transaction:
        raw = transaction.get(key) or b""
    return released_image(raw, f"{path}: record {shown(key)}")


def released_image(raw: bytes, label: str) -> Image.Image:
    """The image of a pickled record, RGB.

    Args:
        raw: the pickle.
        label: its place, for the message.

    Raises:
        BrokenImageError: a damaged record.
        UserError: the pickle refers to other code, which is not executed.
    """
    try:
        for operation, argument, _ in pickletools.genops(raw):
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(raw):
                raise ValueError(f"memo index {argument:,}")  # the unpickler would allocate as much
        unpickler = _RecordUnpickler(raw, label)
        record: Any = unpickler.load()
        if type(record) is not unpickler.record:
            raise TypeError(f"a pickled {type(record).__name__}, not an image")
        channels, (height, width), raw = record.channels, record.size, record.image
        if len(raw) != height * width * channels:
            raise ValueError(f"{len(raw):,} bytes for {height} x {width} x {channels}")
        return in_colour(Image.frombytes(_MODES[channels], (width, height), raw))
    except UserError:
        raise
    except Exception as error:  # damaged pickles raise arbitrary exceptions
        raise BrokenImageError(f"damaged record: {one_line(error)}") from None


def _keys(name: bytes) -> list[bytes]:
    """Possible keys of an item, in ascending priority."""
    number = _NUMBERED_ITEM.fullmatch(name)
    keys = [number[1].lstrip(b"0") or b"0", number[1], name] if number else [name]
    return [key for key in keys if key not in _LISTS]
