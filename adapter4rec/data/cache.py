"""On-disk cache of arrays, keyed by the hash of their inputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from adapter4rec.utils.files import atomic_folder, file_hash, write_json

_DESCRIPTION = "cache.json"

Arrays = dict[str, np.ndarray]


def cached_arrays(
    folder: Path, key: str, compute: Callable[[], Arrays], log: Callable[[str], None] = print
) -> Arrays:
    """Load arrays from the cache, or compute and cache them.

    An entry is the folder ``folder / key`` with one ``.npy`` file per array and a JSON file with their
    SHA-256. A damaged entry is computed again.

    Args:
        folder: cache folder.
        key: hash of the inputs.
        compute: computes the arrays, by name.
        log: prints messages.

    Returns:
        Memory-mapped arrays, by name.
    """
    entry = folder / key
    if entry.exists():
        damage = _damage(entry)
        if not damage:
            return _mapped(entry)
        log(f"warning: {entry}: damaged cache entry ({damage}); computing it again")
        shutil.rmtree(entry)
    arrays = compute()
    with atomic_folder(entry) as temporary:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array)
        checksums = {name: file_hash(temporary / f"{name}.npy") for name in arrays}
        write_json(temporary / _DESCRIPTION, {"arrays": checksums})
    return _mapped(entry)


def _mapped(entry: Path) -> Arrays:
    checksums = json.loads((entry / _DESCRIPTION).read_text(encoding="utf-8"))["arrays"]
    return {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in checksums}


def _damage(entry: Path) -> str:
    try:
        checksums = json.loads((entry / _DESCRIPTION).read_text(encoding="utf-8"))["arrays"]
        for name, checksum in checksums.items():
            if file_hash(entry / f"{name}.npy") != checksum:
                return f"{name}.npy: checksum mismatch"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
