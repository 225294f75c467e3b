"""GPU count, peak memory and matrix multiplication speed. PyTorch is imported only where needed."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")
_GPU_DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
_MATRIX = 4096
_TRIES = 5


def gpu_count() -> int:
    """Number of CUDA GPUs. On Linux without a GPU driver, PyTorch is not imported, which takes seconds."""
    if sys.platform == "linux" and not any(path.exists() for path in _GPU_DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def peak_memory(device: torch.device | None = None) -> int:
    """Peak memory of this process in bytes, on a GPU if ``device`` is one, else in main memory.

    On Linux, ``VmHWM`` is used: ``getrusage`` reports the parent's peak if that is larger.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    if _STATUS.is_file():
        lines = _STATUS.read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matmul_rate(dtype: torch.dtype, device: torch.device | str = "cpu", size: int = _MATRIX) -> float:
    """Matrix multiplication speed in FLOP/s: the best of five runs after one warm-up run."""
    import torch

    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(_TRIES + 1):
        started = time.perf_counter()
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[1:])
