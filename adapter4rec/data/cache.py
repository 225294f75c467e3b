"""Arrays computed once and kept on disk, found by the hash of what they were computed from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adapter4rec.utils.files import file_hash, whole_folder, write_json

_DESCRIPTION = "cache.json"

Arrays = dict[str, np.ndarray]


def cached_arrays(
    folder: Path, key: str, compute: Callable[[], Arrays], say: Callable[[str], None] = print
) -> Arrays:
    """Memory-mapped arrays from ``folder / key``, computed and written there where they are not.

    Each array lies in a file of its own beside a description with its checksum. A cache that is damaged
    is computed anew, and ``say`` is told; a key that no longer fits is simply never asked for again.
    """
    place = folder / key
    if place.exists():
        trouble = _trouble(place)
        if not trouble:
            return _mapped(place)
        say(f"the cache {place} is damaged ({trouble}): it is made anew")
        shutil.rmtree(place)
    arrays = compute()
    with whole_folder(place) as aside:
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        checksums = {name: file_hash(aside / f"{name}.npy") for name in arrays}
        write_json(aside / _DESCRIPTION, {"arrays": checksums})
    return _mapped(place)


def _mapped(place: Path) -> Arrays:
    checksums = json.loads((place / _DESCRIPTION).read_text(encoding="utf-8"))["arrays"]
    return {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in checksums}


def _trouble(place: Path) -> str:
    try:
        checksums = json.loads((place / _DESCRIPTION).read_text(encoding="utf-8"))["arrays"]
        for name, checksum in checksums.items():
            if file_hash(place / f"{name}.npy") != checksum:
                return f"{name}.npy has other bytes than were written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
