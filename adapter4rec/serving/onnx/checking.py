"""Comparing written ONNX files with PyTorch: results, and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from onnxruntime import InferenceSession
from torch import Tensor

from adapter4rec.models.transrec import TransRec
from adapter4rec.serving.onnx.graphs import ItemGraph, UserGraph
from adapter4rec.serving.onnx.recommend import Arrays, Model
from adapter4rec.utils.errors import UserError

TOLERANCE = 1e-4
"""Largest difference from PyTorch, as a fraction of the largest value where that is above 1."""
_MANY = 32
_REPETITIONS, _MOST_SECONDS = 20, 2.0


@dataclass(frozen=True)
class Checked:
    """A written ONNX file that computes what PyTorch does.

    Attributes:
        file: its name.
        bytes: its size.
        difference: largest difference from PyTorch, see ``TOLERANCE``.
        milliseconds: shortest time for a batch, by the size of the batch: of PyTorch and of onnxruntime.
    """

    file: str
    bytes: int
    difference: float
    milliseconds: dict[int, tuple[float, float]]

    def __str__(self) -> str:
        times = ", ".join(
            f"batch of {size}: {ours:.2f} ms (PyTorch {theirs:.2f})"
            for size, (theirs, ours) in self.milliseconds.items()
        )
        return f"{self.file}: {self.bytes / 1e6:,.1f} MB, differs by {self.difference:.0e}, {times}"


class _Comparison:
    """Comparisons of one file with PyTorch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.difference = 0.0
        self.milliseconds: dict[int, tuple[float, float]] = {}

    def of(self, expected: Callable[[], Tensor], found: Callable[[], np.ndarray]) -> None:
        """Compare two ways to compute the vectors of a batch, and time them.

        Raises:
            UserError: the results differ.
        """
        want, have = expected().numpy(), found()
        largest = max(1.0, float(np.abs(want).max()))
        difference = float(np.abs(want - have).max()) / largest if want.shape == have.shape else np.inf
        if not difference <= TOLERANCE:  # as with NaN
            raise UserError(
                f"{self.path.name}: onnxruntime differs from PyTorch by {difference:.1e} for a batch of "
                f"{len(want)}, more than {TOLERANCE:.0e}; nothing was written"
            )
        self.difference = max(self.difference, difference)
        self.milliseconds[len(want)] = _milliseconds(expected), _milliseconds(found)

    @property
    def result(self) -> Checked:
        """The comparisons so far."""
        size = sum(path.stat().st_size for path in self.path.parent.glob(f"{self.path.name}*"))
        return Checked(self.path.name, size, self.difference, self.milliseconds)


def _milliseconds(compute: Callable[[], object]) -> float:
    """The shortest time of a computation, which other processes disturb the least."""
    taken: list[float] = []
    while len(taken) < _REPETITIONS and sum(taken) < _MOST_SECONDS:
        start = time.perf_counter()
        compute()
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken)


@torch.no_grad()
def check_items(graph: ItemGraph, written: Model) -> Checked:
    """Compare the embeddings of one item, of median length, and of many with those that the model computes.

    Raises:
        UserError: they differ.
    """
    comparison = _Comparison(written.folder / graph.file)
    numbers = np.arange(1, len(written.names) + 1)
    by_length = numbers[np.argsort(graph.run.domain.store.costs(numbers), kind="stable")]
    spread = np.linspace(0, len(by_length) - 1, min(_MANY, len(by_length))).astype(np.int64)
    middle = len(by_length) // 2
    for some in (by_length[middle : middle + 1], by_length[spread]):
        contents, content = graph.sample(some, written.folder)
        session, inputs = written.items, written.item_inputs(contents)
        assert session is not None
        comparison.of(partial(graph.model.encode_items, content), partial(_run, session, inputs))
    return comparison.result


@torch.no_grad()
def check_users(graph: UserGraph, written: Model) -> Checked:
    """Compare next-item vectors of one history and of many, of one click to more than the model reads.

    Raises:
        UserError: they differ.
    """
    comparison = _Comparison(written.folder / graph.file)
    chance, length = np.random.default_rng(0), graph.max_seq_len
    for lengths in ([1], np.linspace(1, length + 2, _MANY).astype(np.int64)):
        histories = [written.vectors[chance.integers(0, len(written.names), clicks)] for clicks in lengths]
        items = torch.zeros(len(histories), length, written.vectors.shape[1])
        log_mask = torch.zeros(len(histories), length, dtype=torch.bool)
        for row, history in enumerate(histories):
            recent = torch.from_numpy(history[-length:])
            items[row, length - len(recent) :], log_mask[row, length - len(recent) :] = recent, True
        inputs = written.user_inputs(histories)
        comparison.of(partial(_next, graph.model, items, log_mask), partial(_run, written.users, inputs))
    return comparison.result


def _run(session: InferenceSession, inputs: Arrays) -> np.ndarray:
    output: np.ndarray = session.run(None, inputs)[0]
    return output


def _next(model: TransRec, items: Tensor, log_mask: Tensor) -> Tensor:
    return model.encode_users(items, log_mask)[:, -1]
