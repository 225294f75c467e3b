"""Library versions, recorded in run folders, checkpoints and adapter files."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import torch


def versions() -> dict[str, str]:
    """Versions of Python and of the main libraries, by name."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "numpy": np.__version__,
    }
