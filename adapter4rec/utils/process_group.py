"""Distributed processes: rank, world size and collective operations, for one process or many."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import (  # type: ignore[attr-defined]  # missing in the stubs
    PrefixStore,
    Store,
    TCPStore,
)

from adapter4rec.utils.errors import UserError, message_of
from adapter4rec.utils.machine import reset_peak_memory
from adapter4rec.utils.processes import RESTARTED, signals_deferred

T = TypeVar("T")
S = TypeVar("S", bound=np.generic)
_ERROR_KEY = "adapter4rec/error"
_ADVICE = "start several processes with torchrun or a launcher, or unset RANK and WORLD_SIZE to run one"
_LOST = re.compile("gloo|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe")
"""In messages of torch's collective operations about a lost connection."""
_NO_MEMORY = re.compile(f"out of memory|ALLOC_FAILED|DefaultCPUAllocator|{os.strerror(errno.ENOMEM)}")
"""In messages of torch, of CUDA's libraries, and of the system."""
_SHORT_WAIT = timedelta(seconds=3)
_JOIN_TIMEOUT = timedelta(minutes=5)
"""Timeout for all processes to join the group."""
_TIMEOUT = timedelta(hours=12)
"""Timeout of collective operations. Preparing data on rank 0 may take hours; if a process dies, torchrun
ends the others."""


@dataclass(frozen=True)
class Process:
    """This process in its process group.

    Attributes:
        rank: rank of this process; rank 0 prints and writes files.
        world_size: number of processes.
        device: device of this process.
        restarted: whether torchrun has restarted the processes, which then resume from the last checkpoint.
    """

    rank: int
    world_size: int
    device: torch.device
    restarted: bool = False

    @property
    def is_rank0(self) -> bool:
        """Whether this is rank 0, which prints and writes files."""
        return self.rank == 0

    def log(self, text: str) -> None:
        """Print on rank 0 only."""
        if self.is_rank0:
            print(text, flush=True)

    def barrier(self) -> None:
        """Wait until all processes have reached this point."""
        if self.world_size > 1:
            dist.barrier()

    def on_rank0(self, decide: Callable[[], T]) -> T:
        """Call ``decide`` on rank 0 and broadcast the result to all processes.

        Raises:
            UserError: on all processes, if ``decide`` raised a UserError or an OSError.
        """
        if self.world_size == 1:
            return decide()
        outcome: list[Any] = [None, None]
        if self.is_rank0:
            try:
                outcome[0] = decide()
            except (UserError, OSError) as error:
                outcome[1] = message_of(error)
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise UserError(outcome[1])
        result: T = outcome[0]
        return result

    def rank0_first(self, prepare: Callable[[], T]) -> T:
        """Call ``prepare`` on rank 0 first, then on the other processes, which can use what it cached."""
        prepared: list[T] = []
        self.on_rank0(lambda: prepared.append(prepare()))
        return prepared[0] if prepared else prepare()

    def distribute(self, count: int) -> range:
        """The share of this process of the numbers 0 … ``count - 1``: every ``world_size``-th."""
        return range(self.rank, count, self.world_size)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, number: int) -> int:
        """The largest of the numbers of all processes."""
        if self.world_size == 1:
            return number
        found = torch.tensor(number, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def all_gather(self, array: NDArray[S]) -> NDArray[S]:
        """Concatenate the arrays of all processes along the first axis, in rank order."""
        if self.world_size == 1:
            return array
        arrays = [array] * self.world_size
        dist.all_gather_object(arrays, array)
        return np.concatenate(arrays)


def single_process(device: str) -> Process:
    """A single process without a process group, for example in a notebook.

    Args:
        device: ``auto`` (a GPU if available), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: the device is not available.
    """
    return Process(rank=0, world_size=1, device=_ready_device(device, local_rank=0))


@contextmanager
def process_group(device: str, threads: int = 0) -> Iterator[Process]:
    """Initialise the process group if started by torchrun, and destroy it on exit.

    Args:
        device: ``auto`` (a GPU if available), ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of this process; 0 for PyTorch's default.

    Raises:
        UserError: the device is not available, not all processes joined within 5 minutes, or one of
            torchrun's environment variables is invalid.
    """
    count = _variable("WORLD_SIZE", "1", least=1)
    rank = _variable("RANK", "0", most=count - 1)
    where = _ready_device(device, _variable("LOCAL_RANK", "0"))
    reset_peak_memory(where)
    if count > 1 and device.startswith("cuda:"):
        raise UserError(f"--device {device}: each process uses its own GPU; use --device cuda")
    if threads:
        torch.set_num_threads(threads)
    restarted = any(_variable(name, "0") > 0 for name in ("TORCHELASTIC_RESTART_COUNT", RESTARTED))
    with _joined(Process(rank, count, where, restarted)) as process, _named_memory_errors(where):
        yield process


@contextmanager
def _joined(process: Process) -> Iterator[Process]:
    """Join the process group, share errors, and leave it at the end; nothing of this for a single process."""
    if process.world_size == 1:
        yield process
        return
    backend = "nccl" if process.device.type == "cuda" else "gloo"
    store = _join(backend, process.rank, process.world_size)
    whole = False
    try:
        with _shared_error(store):
            # A launcher that was started again has not counted the restarts of the others.
            yield replace(process, restarted=process.largest(int(process.restarted)) > 0)
            process.barrier()  # rank 0 hosts the store and must not exit before the others
        whole = True
    finally:
        # With gloo also after an error or a signal: a process that exits without this is aborted. With NCCL
        # it would wait for the other processes, which may wait for this one.
        if whole or backend == "gloo":
            with signals_deferred():
                dist.destroy_process_group()


def _variable(name: str, default: str = "", *, least: int = 0, most: int = 65535) -> int:
    value = os.environ.get(name, default)
    if not value.isdecimal() or not least <= int(value) <= most:
        found = f"{name}={value}" if value else f"{name} is not set"
        raise UserError(f"environment variable {found}: expected a number from {least} to {most}; {_ADVICE}")
    return int(value)


def _join(backend: str, rank: int, count: int) -> Store:
    """Wait for all processes, initialise the process group, and return its store.

    Raises:
        UserError: not all processes joined within ``_JOIN_TIMEOUT``.
    """
    host = os.environ.get("MASTER_ADDR")
    if not host:
        raise UserError(f"environment variable MASTER_ADDR is not set; {_ADVICE}")
    port = _variable("MASTER_PORT", least=1)
    agents_store = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    hosts_store = rank == 0 and not agents_store
    others = f"the other processes of this run (RANK={rank}, WORLD_SIZE={count}) at {host}:{port}"
    joined: Future[TCPStore] = Future()

    def join() -> None:
        try:
            while not hosts_store and not _accepts_connections(host, port):  # torch logs each failed attempt
                time.sleep(0.1)
            joined.set_result(TCPStore(host, port, count, hosts_store, _JOIN_TIMEOUT))
        except Exception as error:
            joined.set_exception(error)

    # In a thread: a signal cannot interrupt a blocking call of torch.
    threading.Thread(target=join, daemon=True).start()
    limit = f"{_JOIN_TIMEOUT // timedelta(minutes=1)} minutes"
    if wait([joined], _SHORT_WAIT.total_seconds()).not_done:
        print(f"waiting for {others}, at most {limit}", file=sys.stderr, flush=True)
    if wait([joined], _JOIN_TIMEOUT.total_seconds()).not_done:
        raise UserError(f"timed out after {limit} waiting for {others}; {_ADVICE}")
    try:
        store: Store = joined.result()
        if agents_store:  # torchrun hosts it, and keeps it when it restarts the processes
            store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        store.set_timeout(_TIMEOUT)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    except (RuntimeError, dist.DistError) as error:
        raise UserError(f"could not join {others}: {str(error).splitlines()[0]}") from None
    return store


def _accepts_connections(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


@contextmanager
def _shared_error(store: Store) -> Iterator[None]:
    """Share an error of one process with all: the others would only report a lost connection."""
    try:
        yield
    except (UserError, OSError) as error:
        with suppress(RuntimeError):
            store.set(_ERROR_KEY, message_of(error))
        raise
    except RuntimeError as error:  # a lost connection, or an error of this process
        with suppress(RuntimeError):
            store.wait([_ERROR_KEY], _SHORT_WAIT)
            raise UserError(store.get(_ERROR_KEY).decode()) from None
        if isinstance(error, dist.DistError) or _LOST.search(str(error)):
            raise UserError(
                "another process of this run has ended; its output, or that of its launcher, says why. To "
                "resume from the last checkpoint, repeat the command with --resume"
            ) from None
        raise


@contextmanager
def _named_memory_errors(device: torch.device) -> Iterator[None]:
    """Name the settings that lower the use of memory when it runs out.

    Raises:
        UserError: out of memory, on the device or on the host.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        on_device = isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error)
        place, reason = device if on_device else "the host", (str(error) or "no details").splitlines()[0]
        raise UserError(
            f"out of memory on {place}: {reason}\nlower --batch_size{'' if on_device else ' or --workers'}, "
            "raise --accumulation_steps, or use --recompute true or --precision bf16; in evaluation, lower "
            "--tokens_at_once (texts) or --images_at_once (images)"
        ) from None


def _ready_device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d\d?)?", name):
        raise UserError(f"--device {name}: expected auto, cpu, cuda, or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if device.index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: {torch.cuda.device_count()} GPUs available")
        prepare_cuda(device)
    return device


def prepare_cuda(device: torch.device) -> None:
    """Make a GPU the current one, without TF32, and without cuDNN's attention.

    That compiles a plan for each shape, and nearly every pack of texts has another one.
    """
    torch.cuda.set_device(device)
    torch.backends.cuda.enable_cudnn_sdp(False)
    for kind in ("conv", "rnn"):
        getattr(torch.backends.cudnn, kind).fp32_precision = "ieee"
