"""What a trained model ranks: the items of its run's catalogue, and new ones beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.interactions import read_items
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.serving.given_items import GivenItems
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError

Encode = Callable[[ContentStore, int], Embeddings]
"""Gives the embeddings of a store's items, which are so many."""


@dataclass
class CandidatePart:
    """Some items, which are encoded when their embeddings are first asked for.

    Attributes:
        names: one an item.
        titles: one an item, or None where there are none.
        store: their content, under the numbers 1….
        encode: gives their embeddings.
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
    """Items of a run's catalogue and new ones, numbered 1… through all parts.

    Args:
        parts: the catalogue, and new items in the order in which they came.
    """

    def __init__(self, parts: Sequence[CandidatePart]) -> None:
        self.parts = tuple(parts)
        self.names = [name for part in parts for name in part.names]
        self.n_known = len(parts[0].names)
        self.has_titles = any(part.titles is not None for part in parts)
        self._before = np.cumsum([0, *(len(part.names) for part in parts)])

    @classmethod
    def of_run(cls, run: TrainedRun, encode: Encode) -> Candidates:
        """The catalogue of a run, with titles where its file of items has them."""
        titles = None
        with suppress(UserError):  # a list of bare names
            texts = read_items(Path(run.settings.items), ("title",), allow_empty_titles=True).texts["title"]
            titles = [texts[row].strip() for row in run.domain.interactions.item_rows]
        return cls([CandidatePart(run.domain.interactions.item_names, titles, run.domain.store, encode)])

    def beside(self, given: GivenItems, encode: Encode) -> Candidates:
        """These candidates with new ones behind them.

        An item whose name is here already must have the same content, and is the one that is here.

        Raises:
            UserError: it has other content.
        """
        fresh = []
        for row, name in enumerate(tqdm(given.names, unit="item", leave=False, delay=2, mininterval=2)):
            number = self.number_of.get(name)
            if number is None:
                fresh.append(row)
            elif not same(self.content_of(number), given.store.fetch(np.array([row + 1]))):
                raise UserError(
                    f"{given.labels[row]} is in the catalogue already, with other content: "
                    f"{self.shown(number)}. Give the new one another name"
                )
        if not fresh:
            return self
        part = CandidatePart(
            [given.names[row] for row in fresh],
            [given.titles[row] for row in fresh] if given.titles else None,
            _Some(given.store, np.array(fresh) + 1),
            encode,
        )
        return Candidates([*self.parts, part])

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Item numbers by name."""
        return {name: number for number, name in enumerate(self.names, 1)}

    def embeddings(self, *, only_new: bool = False) -> Embeddings:
        """Embeddings of all items, or of the new ones under the numbers 1…."""
        return JoinedEmbeddings([part.embeddings for part in self.parts[int(only_new) :]])

    def is_new(self, item: int) -> bool:
        """Whether an item is none of the run's catalogue."""
        return item > self.n_known

    def title(self, item: int) -> str:
        """An item's title; empty where there is none."""
        part, number = self._at(item)
        return part.titles[number - 1] if part.titles else ""

    def columns(self, item: int) -> list[str]:
        """The item's name, and its title where there are titles."""
        return [self.names[item - 1], *([self.title(item)] if self.has_titles else [])]

    def shown(self, item: int) -> str:
        """The same as a line for a person, which says of new items that they are."""
        mark = ["(new)"] if self.is_new(item) else []
        return "  ".join([word for word in self.columns(item) if word] + mark)

    def content_of(self, item: int) -> Content:
        """The content of one item."""
        part, number = self._at(item)
        return part.store.fetch(np.array([number]))

    def _at(self, item: int) -> tuple[CandidatePart, int]:
        """The part that an item is in, and its number there."""
        number = int(np.searchsorted(self._before, item)) - 1
        return self.parts[number], int(item - self._before[number])


class JoinedEmbeddings:
    """Embeddings of several sets of items, numbered one behind the other (see ``Embeddings``).

    Args:
        parts: one or more; on one device.
    """

    def __init__(self, parts: Sequence[Embeddings]) -> None:
        self.parts = parts
        before = np.cumsum([0, *(part.n_items for part in parts)])
        self._before, self.n_items = before[:-1], int(before[-1])

    def of(self, numbers: np.ndarray) -> Tensor:
        """Those of some items, int ``[...]`` → ``[..., d]``."""
        found = None
        for part, before in zip(self.parts, self._before, strict=True):
            own = (numbers > before) & (numbers <= before + part.n_items)
            rows = part.of(np.where(own, numbers - before, 0))  # 0, the number of padding, has a zero one
            found = rows if found is None else found + rows
        return found

    def stretch(self, first: int, last: int) -> Tensor:
        """Those of the items ``first``…``last - 1``, ``[last - first, d]``; ``first`` is at least 1."""
        found = []
        for part, before in zip(self.parts, self._before, strict=True):
            start, stop = max(first - before, 1), min(last - before, part.n_items + 1)
            if start < stop:
                found.append(part.stretch(int(start), int(stop)))
        return found[0] if len(found) == 1 else torch.cat(found)


class _Some:
    """Some items of a store, under the numbers 1…."""

    def __init__(self, store: ContentStore, items: np.ndarray) -> None:
        self.store = store
        self.items = items

    def fetch(self, items: np.ndarray) -> Content:
        return self.store.fetch(self.items[items - 1])

    def costs(self) -> np.ndarray:
        return self.store.costs()[self.items - 1]


def same(one: object, other: object) -> bool:
    """Whether two contents, or parts of them, hold the same."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Content):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
