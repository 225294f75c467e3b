"""The versions of what computes, which runs, checkpoints and adapter files name."""

from __future__ import annotations

import platform

import numpy as np
import torch
import transformers


def versions() -> dict[str, str]:
    """Version by name."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
