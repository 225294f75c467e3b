"""What a process has held, and what the machine can do."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_MATRIX = 4096
_TRIES = 5


def peak_memory(device: torch.device | None = None) -> int:
    """The most memory that this process has held, in bytes: of a GPU, or else of the machine.

    Where Linux tells it, it is this process's alone; ``getrusage`` would tell its parent's where that is
    larger.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():
        lines = _STATUS.read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matrix_rate(dtype: torch.dtype, device: torch.device | str = "cpu", size: int = _MATRIX) -> float:
    """Operations a second of a large matrix product, the best of five after one that does not count."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(_TRIES + 1):
        started = time.perf_counter()
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:])
