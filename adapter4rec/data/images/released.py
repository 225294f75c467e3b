"""Reading the LMDBs that the released scripts wrote: pickled records, admitted in one form and never run.

A record is a pickled ``LMDB_Image`` with the attributes ``channels``, ``size`` (height, width), ``image``
(the raw bytes, row by row) and ``id``. A pickle can name any function and have it called, so the unpickler
here knows three names only, and what it gives for them does nothing: the record itself and, for ids that are
numpy numbers, ``scalar`` and ``dtype``.
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
from adapter4rec.data.images.opening import SharedEnvironment, lmdb_words, opened
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
    """A pickle asks for something that no record of an image needs."""


class _Ignored:
    """Stands for numpy's numbers and types: takes whatever comes with them and keeps nothing."""

    def __init__(self, *values: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _RecordUnpickler(pickle.Unpickler):
    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw))
        # A class of its own for each pickle, so that none can leave something behind for the next.
        self._record = type(_RECORD, (), {})
        self._ignored = type("Ignored", (_Ignored,), {})

    def find_class(self, module: str, name: str) -> Any:
        if name == _RECORD:  # in whatever module: builder and reader of the released code disagree on it
            return self._record
        if module in _NUMPY_MODULES and name in _NUMPY_NAMES:
            return self._ignored
        raise _RefusedError(f"{module}.{name}")

    def attributes(self) -> dict[str, Any]:
        """The record's attributes.

        Raises:
            BrokenImageError: the pickle is damaged, or holds something else.
            _RefusedError: it asks for another function or class.
        """
        try:
            found = self.load()
        except _RefusedError:
            raise
        except Exception as error:  # damaged pickles raise anything
            raise BrokenImageError(f"the record is damaged ({type(error).__name__})") from None
        if type(found) is not self._record:
            raise BrokenImageError(f"the record is a pickled {type(found).__name__}, not an image")
        return vars(found)


class ReleasedSource:
    """An LMDB of the released scripts, opened at first use. Threads may read from it at once.

    Args:
        path: a file or a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shared: SharedEnvironment | None = None

    @property
    def origin(self) -> Origin:
        """An LMDB of the released scripts."""
        return Origin.RELEASED

    def find(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Keys of the images of ``names``: the name or, of an item ``v123``, its number.

        Raises:
            UserError: no such LMDB, or one without an image for any of the items.
        """
        try:
            with self._environment().begin(buffers=True) as transaction:
                if transaction.get(DESCRIPTION_KEY) is not None:
                    raise UserError(f"{self.path}: it was made by this project and needs no conversion")
                found = {name: key for name in names for key in _keys(name) if transaction.get(key)}
                if not found:
                    raise self._nothing_fits(names, transaction)
        except lmdb.Error as error:
            raise UserError(f"{self.path}: the LMDB is damaged ({lmdb_words(error)})") from None
        return found

    def load(self, place: Place) -> tuple[bytes, DecodedImage]:
        """No bytes of a file, and the image.

        Raises:
            BrokenImageError: the record is damaged.
            UserError: it is no image but a program to be run; it was not.
        """
        key = place.encode() if isinstance(place, str) else place
        try:
            with self._environment().begin() as transaction:
                raw = transaction.get(key)
        except lmdb.Error as error:
            raise BrokenImageError(f"the LMDB is damaged there ({lmdb_words(error)})") from None
        try:
            return b"", _picture(_RecordUnpickler(raw or b"").attributes())
        except _RefusedError as refused:
            raise UserError(
                f"{self.path}: the record {shown(key)} asks for {refused}, which no image needs and which "
                "could run a program; nothing of it was run. The file is not what the released scripts write"
            ) from None

    def looked_for(self) -> str:
        """The LMDB and its keys."""
        return f"in {self.path}. Its keys are item names or, for an item v123, the number."

    def _environment(self) -> lmdb.Environment:
        if self._shared is None:
            self._shared = opened(self.path)
        return self._shared.env

    def _nothing_fits(self, names: Sequence[bytes], transaction: lmdb.Transaction) -> UserError:
        keys = (bytes(key) for key in transaction.cursor().iternext(keys=True, values=False))
        there = ", ".join(shown(key) for key in islice((k for k in keys if k not in _LISTS), _EXAMPLES))
        wanted = ", ".join(map(shown, names[:_EXAMPLES]))
        return UserError(
            f"{self.path}: it has no image of any item: its keys are like {there or 'nothing at all'}, and "
            f"the items like {wanted}"
        )


def _keys(name: bytes) -> list[bytes]:
    """The keys that an item may have, the best one last."""
    number = _NUMBERED_ITEM.fullmatch(name)
    keys = [number[1].lstrip(b"0") or b"0", number[1], name] if number else [name]
    return [key for key in keys if len(key) <= LONGEST_NAME and key not in _LISTS]


def _picture(attributes: dict[str, Any]) -> DecodedImage:
    try:
        channels, (height, width), raw = attributes["channels"], attributes["size"], attributes["image"]
    except (KeyError, TypeError, ValueError):
        raise BrokenImageError("the record lacks the image's channels, size or bytes") from None
    numbers = (channels, height, width)
    if not all(type(number) is int and number > 0 for number in numbers) or type(raw) is not bytes:
        raise BrokenImageError("the record's channels, size or bytes are of another kind")
    if channels not in _MODES:
        raise BrokenImageError(f"the record has {channels} channels; 1, 3 and 4 are known")
    if len(raw) != height * width * channels:
        raise BrokenImageError(f"the record has {len(raw):,} bytes for {height} x {width} x {channels}")
    return in_colour(Image.frombytes(_MODES[channels], (width, height), raw))
