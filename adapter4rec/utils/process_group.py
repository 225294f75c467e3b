"""Distributed processes: rank, world size and collective operations, for one process or many."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from adapter4rec.utils.errors import UserError, os_error_message

T = TypeVar("T")
_DISTRIBUTIONS = itertools.count()
_ERROR_KEY = "adapter4rec/error"
_JOINED_KEY = "adapter4rec/joined"
_ADVICE = "start several processes with torchrun or a launcher, or unset RANK and WORLD_SIZE to run one"
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
    """

    rank: int
    world_size: int
    device: torch.device

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
            except UserError as error:
                outcome[1] = str(error)
            except OSError as error:
                outcome[1] = os_error_message(error)
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise UserError(outcome[1])
        return outcome[0]

    def rank0_first(self, prepare: Callable[[], T]) -> T:
        """Call ``prepare`` on rank 0 first, then on the other processes, which can use what it cached."""
        prepared: list[T] = []
        self.on_rank0(lambda: prepared.append(prepare()))
        return prepared[0] if prepared else prepare()

    def distribute(self, count: int) -> Iterator[int]:
        """Distribute the numbers 0 … ``count - 1`` dynamically: each goes to the next free process.

        Collective: all processes must make the same calls in the same order.
        """
        if self.world_size == 1:
            return iter(range(count))
        return _numbers_from_store(f"adapter4rec/distribute/{next(_DISTRIBUTIONS)}", count)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """Concatenate the arrays of all processes along the first axis, in rank order."""
        if self.world_size == 1:
            return array
        arrays: list[np.ndarray | None] = [None] * self.world_size
        dist.all_gather_object(arrays, array)
        return np.concatenate(arrays)


def _numbers_from_store(key: str, count: int) -> Iterator[int]:
    store = dist.distributed_c10d._get_default_store()
    while (number := store.add(key, 1) - 1) < count:
        yield number


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
    if count > 1 and device.startswith("cuda:"):
        raise UserError(f"--device {device}: each process uses its own GPU; use --device cuda")
    if threads:
        torch.set_num_threads(threads)
    if count > 1:
        _join("nccl" if where.type == "cuda" else "gloo", rank, count)
    try:
        with _shared_error() if count > 1 else nullcontext():
            process = Process(rank, count, where)
            yield process
            process.barrier()  # rank 0 hosts the store and must not exit before the others
    finally:  # also after an error: a process that exits without this is aborted
        if count > 1:
            dist.destroy_process_group()


def _variable(name: str, default: str = "", *, least: int = 0, most: int = 65535) -> int:
    value = os.environ.get(name, default)
    if not value.isdecimal() or not least <= int(value) <= most:
        found = f"{name}={value}" if value else f"{name} is not set"
        raise UserError(f"environment variable {found}: expected a number from {least} to {most}; {_ADVICE}")
    return int(value)


def _join(backend: str, rank: int, count: int) -> None:
    """Wait for all processes and initialise the process group.

    Raises:
        UserError: not all processes joined within ``_JOIN_TIMEOUT``.
    """
    host = os.environ.get("MASTER_ADDR")
    if not host:
        raise UserError(f"environment variable MASTER_ADDR is not set; {_ADVICE}")
    port = _variable("MASTER_PORT", least=1)
    processes = "1 other process" if count == 2 else f"{count - 1} other processes"
    others = f"{processes} of this run (RANK={rank}, WORLD_SIZE={count}) at {host}:{port}"
    wait = _JoinWait(others)
    hosts_store = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        if not hosts_store:
            wait.wait_until(lambda: _accepts_connections(host, port))
        store = dist.TCPStore(host, port, count, hosts_store, _JOIN_TIMEOUT, wait_for_workers=False)
        store.set(f"{_JOINED_KEY}/{rank}", "")
        wait.wait_until(lambda: store.check([f"{_JOINED_KEY}/{other}" for other in range(count)]))
        store.set_timeout(_TIMEOUT)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
    except (RuntimeError, dist.DistError) as error:
        raise UserError(f"could not join {others}: {str(error).splitlines()[0]}") from None


class _JoinWait:
    """Waits for other processes by polling: a blocking call of torch cannot be interrupted by a signal."""

    def __init__(self, others: str) -> None:
        self._others = others
        self._began = time.monotonic()
        self._announced = False

    def wait_until(self, condition: Callable[[], bool]) -> None:
        limit = f"{_JOIN_TIMEOUT // timedelta(minutes=1)} minutes"
        while not condition():
            waited = timedelta(seconds=time.monotonic() - self._began)
            if waited > _JOIN_TIMEOUT:
                raise UserError(f"timed out after {limit} waiting for {self._others}; {_ADVICE}")
            if waited > _SHORT_WAIT and not self._announced:
                print(f"waiting for {self._others}, at most {limit}", file=sys.stderr, flush=True)
                self._announced = True
            time.sleep(0.1)


def _accepts_connections(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


@contextmanager
def _shared_error() -> Iterator[None]:
    """Share an error of one process with all: the others would only report a lost connection."""
    store = dist.distributed_c10d._get_default_store()
    try:
        yield
    except (UserError, OSError) as error:
        message = os_error_message(error) if isinstance(error, OSError) else str(error)
        with suppress(RuntimeError):
            store.set(_ERROR_KEY, message)
        raise
    except RuntimeError:  # a lost connection, or an error of this process
        with suppress(RuntimeError):
            store.wait([_ERROR_KEY], _SHORT_WAIT)
            raise UserError(store.get(_ERROR_KEY).decode()) from None
        raise


def _ready_device(name: str, local_rank: int) -> torch.device:
    device = _device(name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # no TF32 in convolutions
    return device


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: expected auto, cpu, cuda, or cuda:N")
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: {torch.cuda.device_count()} GPUs available")
        return torch.device("cuda", index)
    return device
