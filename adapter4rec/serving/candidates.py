"""The candidates that a trained model ranks: the items of its run's catalogue, and new items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.interactions import read_items
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.serving.new_items import NewItems
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.terminal import progress_bar

Encode = Callable[[ContentStore, int], Embeddings]
"""Encodes the items of a store: ``encode(store, n_items)``."""


@dataclass
class CandidatePart:
    """A group of items, encoded on first access to ``embeddings``.

    Attributes:
        names: item names.
        titles: title of each item, or None if the items have no titles.
        store: content of the items, numbered from 1.
        encode: computes their embeddings.
    """

    names: list[str]
    titles: list[str] | None
    store: ContentStore
    encode: Encode

    @cached_property
    def embeddings(self) -> Embeddings:
        """Embeddings of the items."""
        return self.encode(self.store, len(self.names))


class Candidates:
    """The items of a run's catalogue followed by new items, numbered consecutively from 1.

    Args:
        parts: the catalogue, then new items in the order in which they were added.
    """

    def __init__(self, parts: Sequence[CandidatePart]) -> None:
        self.parts = tuple(parts)
        self.names = [name for part in parts for name in part.names]
        self.n_known = len(parts[0].names)
        self.has_titles = any(part.titles is not None for part in parts)
        self._before = np.cumsum([0, *(len(part.names) for part in parts)])

    @classmethod
    def of_run(cls, run: TrainedRun, encode: Encode) -> Candidates:
        """The catalogue of a run, with titles if its items file has them."""
        titles = None
        with suppress(UserError):  # the file has no title column
            texts = read_items(Path(run.settings.items), ("title",), allow_empty_titles=True).texts["title"]
            titles = [texts[row].strip() for row in run.domain.interactions.item_rows]
        return cls([CandidatePart(run.domain.interactions.item_names, titles, run.domain.store, encode)])

    def beside(self, given: NewItems, encode: Encode) -> Candidates:
        """These candidates followed by new ones. Items that are candidates already are not added again.

        Raises:
            UserError: a new item has the name of a candidate but different content.
        """
        fresh = []
        with progress_bar("new items", len(given.names), unit="item") as bar:
            for row, name in enumerate(given.names):
                number = self.number_of.get(name)
                if number is None:
                    fresh.append(row)
                elif not same(self.content_of(number), given.store.fetch(np.array([row + 1]))):
                    raise UserError(
                        f"{given.labels[row]} is already in the catalogue with different content: "
                        f"{self.shown(number)}; rename the new item"
                    )
                bar.update()
        if not fresh:
            return self
        part = CandidatePart(
            [given.names[row] for row in fresh],
            [given.titles[row] for row in fresh] if given.titles else None,
            _Subset(given.store, np.array(fresh) + 1),
            encode,
        )
        return Candidates([*self.parts, part])

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Item numbers by name."""
        return {name: number for number, name in enumerate(self.names, 1)}

    def embeddings(self, *, only_new: bool = False) -> Embeddings:
        """Embeddings of all items, or of the new items only, numbered from 1."""
        first, *further = (part.embeddings.rows for part in self.parts[int(only_new) :])
        return Embeddings(torch.cat([first, *(rows[1:] for rows in further)]))

    def is_new(self, item: int) -> bool:
        """Whether an item is not in the run's catalogue."""
        return item > self.n_known

    def title(self, item: int) -> str:
        """The title of an item; empty if it has none."""
        part, number = self._at(item)
        return part.titles[number - 1] if part.titles else ""

    def columns(self, item: int) -> list[str]:
        """Name of an item and, if the candidates have titles, its title."""
        return [self.names[item - 1], *([self.title(item)] if self.has_titles else [])]

    def shown(self, item: int) -> str:
        """Name and title of an item on one line for the terminal; new items are marked."""
        mark = ["(new)"] if self.is_new(item) else []
        return "  ".join([word for word in self.columns(item) if word] + mark)

    def content_of(self, item: int) -> Content:
        """The content of one item."""
        part, number = self._at(item)
        return part.store.fetch(np.array([number]))

    def _at(self, item: int) -> tuple[CandidatePart, int]:
        """The part that contains an item, and the item's number within it."""
        number = int(np.searchsorted(self._before, item)) - 1
        return self.parts[number], int(item - self._before[number])


class _Subset:
    """Selected items of a store, numbered from 1."""

    def __init__(self, store: ContentStore, items: np.ndarray) -> None:
        self.store = store
        self.items = items

    def fetch(self, items: np.ndarray) -> Content:
        return self.store.fetch(self.items[items - 1])

    def costs(self) -> np.ndarray:
        return self.store.costs()[self.items - 1]


def same(one: object, other: object) -> bool:
    """Whether two contents, or fields of them, are equal."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Content):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
