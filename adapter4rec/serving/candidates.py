"""The candidates that a trained model ranks: the items of its run's catalogue, and new items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.interactions import ItemTable, read_items
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import name_fault


@dataclass
class Items:
    """Items with their content. A :class:`ContentStore` of these items.

    Attributes:
        names: item names, all different.
        titles: title of each item; empty if it has none.
        labels: origin of each item for error messages, such as ``new_items.tsv:3: item 'x'``.
        store: content of these and perhaps of other items.
        numbers: number of each item in the store.
        rows: embeddings, float32 ``[n, d]``; None until they are computed.
    """

    names: Sequence[str]
    titles: Sequence[str]
    labels: Sequence[str]
    store: ContentStore
    numbers: np.ndarray
    rows: Tensor | None = None

    def fetch(self, items: np.ndarray) -> Content:
        """See :meth:`ContentStore.fetch`."""
        return self.store.fetch(self.numbers[items - 1])

    def costs(self, items: np.ndarray) -> np.ndarray:
        """See :meth:`ContentStore.costs`."""
        return self.store.costs(self.numbers[items - 1])

    def subset(self, rows: Sequence[int]) -> Items:
        """The items at these indices."""
        names, titles, labels = (
            [column[row] for row in rows] for column in (self.names, self.titles, self.labels)
        )
        return Items(names, titles, labels, self.store, self.numbers[np.array(rows, np.int64)])


class RankedItem(NamedTuple):
    """A recommended item. ``title`` is empty if there is none; ``new``: not in the run's catalogue."""

    item: str
    title: str
    score: float
    new: bool


class RankedItems(list[RankedItem]):
    """Recommended items, best first. Prints one item per line; ``pandas.DataFrame(items)`` works too."""

    def __repr__(self) -> str:
        return "\n".join(
            f"{rank:>3}. {one.score:8.3f}  {shown(one.item, one.title, new=one.new)}"
            for rank, one in enumerate(self, 1)
        )


def shown(name: str, title: str, *, new: bool) -> str:
    """Name and title of an item on one line for the terminal; new items are marked."""
    return "  ".join(filter(None, (name, title, "(new)" if new else "")))


def read_titled_items(path: Path, attributes: tuple[str, ...] = (), encoding: str = "utf-8") -> ItemTable:
    """Read an items file in an encoding: the given text columns, and the titles if it has any.

    Raises:
        UserError: see :func:`read_items`.
    """
    try:
        titled = tuple(dict.fromkeys(("title", *attributes)))
        return read_items(path, titled, allow_empty_titles=True, encoding=encoding)
    except UserError:
        return read_items(path, attributes, allow_empty_titles=True, encoding=encoding)


def catalogue_of(run: TrainedRun) -> Items:
    """The catalogue of a run, with titles if its items file has them."""
    names, rows = run.domain.interactions.item_names, run.domain.interactions.item_rows
    texts = read_titled_items(run.settings.items, encoding=run.settings.encoding).texts.get("title")
    titles = [texts[row].strip() if texts else "" for row in rows]
    return Items(names, titles, names, run.domain.store, np.arange(1, len(names) + 1))


class Candidates:
    """The items of a run's catalogue followed by new items, numbered consecutively from 1.

    Attributes:
        parts: the catalogue, then new items in the order in which they were added.
        names: item names.
        titles: item titles.
        n_known: number of items of the catalogue.
        n_new: number of new items.
        number_of: item numbers by name.
    """

    def __init__(self, parts: Sequence[Items]) -> None:
        self.parts = parts
        self.names = [name for part in parts for name in part.names]
        self.titles = [title for part in parts for title in part.titles]
        self.n_known = len(parts[0].names)
        self.n_new = len(self.names) - self.n_known
        self.number_of = {name: number for number, name in enumerate(self.names, 1)}

    def with_items(self, given: Items) -> Candidates:
        """These candidates followed by new ones. Items that are candidates already are not added again.

        Raises:
            UserError: a name is not accepted (see :func:`name_fault`), or is the name of a candidate with
                different content.
        """
        for row, name in enumerate(given.names):
            if not isinstance(name, str):
                raise UserError(f"{given.labels[row]}: an item name must be a string, not {name!r}")
            if fault := name_fault(name, "item"):
                raise UserError(f"{given.labels[row]}: {fault}")
            number = self.number_of.get(name)
            if number is None:
                continue
            known, new = self.content_of(number), given.fetch(np.array([row + 1]))
            if known.changed(Tensor.tolist) != new.changed(Tensor.tolist):
                raise UserError(
                    f"{given.labels[row]} is already in the catalogue with different content: "
                    f"{self.shown(number)}; rename the new item"
                )
        fresh = [row for row, name in enumerate(given.names) if name not in self.number_of]
        return Candidates([*self.parts, given.subset(fresh)]) if fresh else self

    def ranked(self, item: int, score: float) -> RankedItem:
        """An item with its score."""
        return RankedItem(self.names[item - 1], self.titles[item - 1], score, item > self.n_known)

    def shown(self, item: int) -> str:
        """Name and title of an item on one line for the terminal; new items are marked."""
        return shown(self.names[item - 1], self.titles[item - 1], new=item > self.n_known)

    def content_of(self, item: int) -> Content:
        """The content of one item."""
        for part in self.parts:
            if item <= len(part.names):
                break
            item -= len(part.names)
        return part.fetch(np.array([item]))
