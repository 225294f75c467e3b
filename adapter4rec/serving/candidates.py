"""The candidates that a trained model ranks: the items of its run's catalogue, and new items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.serving.new_items import NewItems, read_titled_items
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError

Encode = Callable[[ContentStore, int], Embeddings]
"""Encodes the items of a store: ``encode(store, n_items)``."""


@dataclass
class CandidatePart:
    """A group of items, encoded on first access to ``embeddings``. A :class:`ContentStore` of these items.

    Attributes:
        names: item names.
        titles: title of each item; empty if it has none.
        store: content of these and perhaps of other items.
        numbers: number of each item in the store.
        encode: computes embeddings.
    """

    names: Sequence[str]
    titles: Sequence[str]
    store: ContentStore
    numbers: NDArray[np.int64]
    encode: Encode

    @cached_property
    def embeddings(self) -> Embeddings:
        """Embeddings of the items."""
        return self.encode(self, len(self.names))

    def fetch(self, items: NDArray[np.int64]) -> Content:
        """See :meth:`ContentStore.fetch`."""
        return self.store.fetch(self.numbers[items - 1])

    def costs(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """See :meth:`ContentStore.costs`."""
        return self.store.costs(self.numbers[items - 1])


class Candidates:
    """The items of a run's catalogue followed by new items, numbered consecutively from 1.

    Args:
        parts: the catalogue, then new items in the order in which they were added.
    """

    def __init__(self, parts: Sequence[CandidatePart]) -> None:
        self.parts = tuple(parts)
        self.names = [name for part in parts for name in part.names]
        self.titles = [title for part in parts for title in part.titles]
        self.n_known = len(parts[0].names)
        self._before = np.cumsum([0, *(len(part.names) for part in parts)])

    @classmethod
    def of_run(cls, run: TrainedRun, encode: Encode) -> Candidates:
        """The catalogue of a run, with titles if its items file has them."""
        names, rows = run.domain.interactions.item_names, run.domain.interactions.item_rows
        texts = read_titled_items(run.settings.items).texts.get("title")
        titles = [texts[row].strip() if texts else "" for row in rows]
        numbers = np.arange(1, len(names) + 1)
        return cls([CandidatePart(names, titles, run.domain.store, numbers, encode)])

    @property
    def n_new(self) -> int:
        """Number of new items."""
        return len(self.names) - self.n_known

    def beside(self, given: NewItems, encode: Encode) -> Candidates:
        """These candidates followed by new ones. Items that are candidates already are not added again.

        Raises:
            UserError: a new item has the name of a candidate but different content.
        """
        fresh = []
        for row, name in enumerate(given.names):
            number = self.number_of.get(name)
            if number is None:
                fresh.append(row)
            elif not same(self.content_of(number), given.store.fetch(np.array([row + 1]))):
                raise UserError(
                    f"{given.labels[row]} is already in the catalogue with different content: "
                    f"{self.shown(number)}; rename the new item"
                )
        if not fresh:
            return self
        names, titles = [given.names[row] for row in fresh], [given.titles[row] for row in fresh]
        part = CandidatePart(names, titles, given.store, np.array(fresh) + 1, encode)
        return Candidates([*self.parts, part])

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Item numbers by name."""
        return {name: number for number, name in enumerate(self.names, 1)}

    def embeddings(self, *, only_new: bool = False) -> Embeddings:
        """Embeddings of all items, or of the new items only, numbered from 1."""
        first, *further = (part.embeddings.rows for part in self.parts[int(only_new) :])
        return Embeddings(torch.cat([first, *(rows[1:] for rows in further)]))

    def described(self, item: int) -> tuple[str, str]:
        """Name and title of an item."""
        return self.names[item - 1], self.titles[item - 1]

    def shown(self, item: int) -> str:
        """Name and title of an item on one line for the terminal; new items are marked."""
        mark = "(new)" if item > self.n_known else ""
        return "  ".join(word for word in (*self.described(item), mark) if word)

    def content_of(self, item: int) -> Content:
        """The content of one item."""
        part = int(np.searchsorted(self._before, item)) - 1
        return self.parts[part].fetch(np.array([item - self._before[part]]))


def same(one: object, other: object) -> bool:
    """Whether two contents, or fields of them, are equal."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Content) and isinstance(other, Content):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
