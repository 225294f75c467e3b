"""One process or many: what a process is, and the few things that processes say to each other."""

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

from adapter4rec.utils.errors import UserError, file_trouble

T = TypeVar("T")
_DEALS = itertools.count()
_TROUBLE = "adapter4rec/trouble"
_MET = "adapter4rec/met"
_ADVICE = "start several processes with torchrun or a launcher, or unset RANK and WORLD_SIZE to run one"
_A_MOMENT = timedelta(seconds=3)
_MEETING = timedelta(minutes=5)
"""How long the processes wait for each other at the start."""
_PATIENCE = timedelta(hours=12)
"""A process that ends takes the others with it, so waiting long is safe; preparing data may take long."""


@dataclass(frozen=True)
class Process:
    """This process among those of a run.

    Attributes:
        rank: 0 for the first, which writes files and speaks.
        world_size: number of processes.
        device: where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_rank0(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def say(self, text: str) -> None:
        """Print, on the first process alone."""
        if self.is_rank0:
            print(text, flush=True)

    def barrier(self) -> None:
        """Go on when all processes have come here: what the first one wrote is there."""
        if self.world_size > 1:
            dist.barrier()

    def on_rank0(self, decide: Callable[[], T]) -> T:
        """What ``decide`` gives on the first process, on all of them; what it raises, all raise.

        Raises:
            UserError: ``decide`` did, or met trouble with a file.
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
                outcome[1] = file_trouble(error)
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise UserError(outcome[1])
        return outcome[0]

    def rank0_first(self, prepare: Callable[[], T]) -> T:
        """Run ``prepare`` on the first process, then on the others, which find what it left."""
        prepared: list[T] = []
        self.on_rank0(lambda: prepared.append(prepare()))
        return prepared[0] if prepared else prepare()

    def distribute(self, count: int) -> Iterator[int]:
        """Numbers from 0 up to ``count``, each given to the process that asks for it first.

        All processes must call this equally often, in the same order.
        """
        if self.world_size == 1:
            return iter(range(count))
        return _dealt_by_store(f"adapter4rec/deal/{next(_DEALS)}", count)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, number: int) -> int:
        """The largest of the numbers that the processes have."""
        if self.world_size == 1:
            return number
        largest = torch.tensor(number, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        """Arrays of all processes, one after the other, on every process."""
        if self.world_size == 1:
            return array
        arrays: list[np.ndarray | None] = [None] * self.world_size
        dist.all_gather_object(arrays, array)
        return np.concatenate(arrays)


def _dealt_by_store(deal: str, count: int) -> Iterator[int]:
    store = dist.distributed_c10d._get_default_store()
    while (number := store.add(deal, 1) - 1) < count:
        yield number


def single_process(device: str) -> Process:
    """This process as the only one, as in a notebook: nothing is joined, and nothing has to be left.

    Args:
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: the device is not there.
    """
    return Process(rank=0, world_size=1, device=_ready_device(device, local_rank=0))


@contextmanager
def process_group(device: str, threads: int = 0) -> Iterator[Process]:
    """Join the processes that torchrun started, or be the only one; leave them in good order at the end.

    Args:
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of this process; 0 leaves torch's choice.

    Raises:
        UserError: the device is not there, the processes do not meet within 5 minutes, or one of torchrun's
            environment variables is impossible.
    """
    count = _variable("WORLD_SIZE", "1", least=1)
    rank = _variable("RANK", "0", most=count - 1)
    where = _ready_device(device, _variable("LOCAL_RANK", "0"))
    if count > 1 and device.startswith("cuda:"):
        raise UserError(f"--device {device}: with several processes each takes a GPU of its own; give cuda")
    if threads:
        torch.set_num_threads(threads)
    if count > 1:
        _join("nccl" if where.type == "cuda" else "gloo", rank, count)
    try:
        with _shared_trouble() if count > 1 else nullcontext():
            process = Process(rank, count, where)
            yield process
            process.barrier()  # one that left early would take what the others still wait for
    finally:  # also after an error: a process that ends as a member of the group is aborted
        if count > 1:
            dist.destroy_process_group()


def _variable(name: str, default: str = "", *, least: int = 0, most: int = 65535) -> int:
    value = os.environ.get(name, default)
    if not value.isdecimal() or not least <= int(value) <= most:
        there = f"{name}={value}" if value else f"{name} is not set"
        raise UserError(f"environment variable {there}: expected a number from {least} to {most}; {_ADVICE}")
    return int(value)


def _join(backend: str, rank: int, count: int) -> None:
    """Join the process group once all of its processes are there.

    Raises:
        UserError: they are not there within ``_MEETING``.
    """
    host = os.environ.get("MASTER_ADDR")
    if not host:
        raise UserError(f"environment variable MASTER_ADDR is not set; {_ADVICE}")
    port = _variable("MASTER_PORT", least=1)
    whom = "1 other process" if count == 2 else f"{count - 1} other processes"
    others = f"{whom} of this run (RANK={rank}, WORLD_SIZE={count}) at {host}:{port}"
    meeting = _Meeting(others)
    hosts_store = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        if not hosts_store:
            meeting.wait_until(lambda: _accepts_connections(host, port))
        store = dist.TCPStore(host, port, count, hosts_store, _MEETING, wait_for_workers=False)
        store.set(f"{_MET}/{rank}", "")
        meeting.wait_until(lambda: store.check([f"{_MET}/{other}" for other in range(count)]))
        store.set_timeout(_PATIENCE)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, dist.DistError) as error:
        raise UserError(f"could not join {others}: {str(error).splitlines()[0]}") from None


class _Meeting:
    """The wait for other processes, in short steps: a signal has no effect inside a long call of torch."""

    def __init__(self, others: str) -> None:
        self._others = others
        self._began = time.monotonic()
        self._announced = False

    def wait_until(self, condition: Callable[[], bool]) -> None:
        limit = f"{_MEETING // timedelta(minutes=1)} minutes"
        while not condition():
            waited = timedelta(seconds=time.monotonic() - self._began)
            if waited > _MEETING:
                raise UserError(f"waited {limit} for {self._others}; {_ADVICE}")
            if waited > _A_MOMENT and not self._announced:
                print(f"waiting for {self._others}, at most {limit}", file=sys.stderr, flush=True)
                self._announced = True
            time.sleep(0.1)


def _accepts_connections(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


@contextmanager
def _shared_trouble() -> Iterator[None]:
    """Let all processes raise what one of them met alone; they would only see that it is gone."""
    store = dist.distributed_c10d._get_default_store()
    try:
        yield
    except (UserError, OSError) as error:
        message = file_trouble(error) if isinstance(error, OSError) else str(error)
        with suppress(RuntimeError):
            store.set(_TROUBLE, message)
        raise
    except RuntimeError:  # a lost connection, or trouble of this process's own
        with suppress(RuntimeError):
            store.wait([_TROUBLE], _A_MOMENT)
            raise UserError(store.get(_TROUBLE).decode()) from None
        raise


def _ready_device(name: str, local_rank: int) -> torch.device:
    device = _device(name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # float32 means float32, in convolutions, too
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
            raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} GPUs")
        return torch.device("cuda", index)
    return device
