"""GPU count, hardware and peak memory. PyTorch is imported only where needed."""

from __future__ import annotations

import platform
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_STATUS, _PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GPU_DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


def gpu_count() -> int:
    """Number of CUDA GPUs. On Linux without a GPU driver, PyTorch is not imported, which takes seconds."""
    if sys.platform == "linux" and not any(path.exists() for path in _GPU_DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def hardware(device: torch.device, processes: int) -> dict[str, str | int]:
    """Where a run is trained, for its records."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() or "cpu"
    threads = torch.get_num_threads()
    return {"device": name, "processes": processes, "threads": threads, "platform": sys.platform}


def reset_peak_memory(device: torch.device) -> None:
    """Count the peak memory from now on, where the system can: a notebook may run several trainings."""
    if device.type == "cuda":
        import torch

        # There are no statistics before. torch.cuda.init has no types.
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)
    elif _PEAK_RESET.exists():
        with suppress(OSError):
            _PEAK_RESET.write_text("5", "ascii")


def peak_memory(device: torch.device | None = None) -> int:
    """Peak memory of this process in bytes, on a GPU if ``device`` is one, else in main memory.

    On Linux, ``VmHWM`` is used where the kernel has it: ``getrusage`` reports the parent's peak if that is
    larger.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    lines = _STATUS.read_text("utf-8").splitlines() if _STATUS.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
