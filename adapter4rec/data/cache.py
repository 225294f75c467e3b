"""On-disk cache of arrays, keyed by the hash of their inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from adapter4rec.utils.files import atomic_file

Arrays = dict[str, np.ndarray]


def cached_arrays(path: Path, compute: Callable[[], Arrays], log: Callable[[str], None] = print) -> Arrays:
    """Load arrays from a safetensors file, or compute and write them. A damaged file is computed again.

    Args:
        path: the file; its name is the hash of the inputs.
        compute: computes the arrays, by name.
        log: prints messages.
    """
    if path.exists():
        try:
            return load_file(path)
        except SafetensorError as error:
            log(f"warning: {path}: damaged cache entry ({error}); computing it again")
    arrays = compute()
    with atomic_file(path) as temporary:
        save_file(arrays, temporary)
    return arrays
