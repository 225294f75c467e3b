"""Simulation of users: their clicks, given the topic and mood of each item.

A cell is a pair of a topic and a mood. Titles and images of the items are generated elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapter4rec.utils.settings import Settings, option

Integers = NDArray[np.int64]

MINIMUM_CLICKS = 5

# Transition probabilities, in per cent.
STAY_AFTER_FIRST = 80  # stay in the topic after one click in it
STAY_AFTER_MORE = 20  # stay in the topic after two or more clicks in it
FOLLOW_RULE = 85  # on leaving a topic: go to its successor, else to one of the user's interests
STRAY = 6  # click a random item
REPEAT = 4  # click an item of the history again
INTERESTS = 3  # topics of interest per user


@dataclass(frozen=True)
class SampleSettings(Settings):
    """Sample."""

    users: int = option(3000, "users in the source domain", least=1, most=1_000_000)
    target_users: int = option(3000, "users in the target domain; as --users if set", least=1, most=1_000_000)
    items: int = option(1000, "items in each domain; with --images, default 400", least=1, most=200_000)
    clicks: int = option(13, "mean clicks per user", least=MINIMUM_CLICKS + 1, most=50)
    seed: int = option(1, "random seed", least=0, most=2**32 - 1)


@dataclass(frozen=True)
class SampleDomain:
    """A domain of a sample: names and parameters of the user behaviour."""

    number: int
    """0 for the source, 1 for the target."""
    item_prefix: str
    user_prefix: str
    topics: int
    moods: int
    steps: tuple[int, int]
    """Distance from an even topic and from an odd topic to its successor."""

    @property
    def name(self) -> str:
        """``source`` or ``target``."""
        return ("source", "target")[self.number]

    @property
    def next_topic(self) -> tuple[int, ...]:
        """The successor of each topic; a permutation of the topics."""
        return tuple((topic + self.steps[topic % 2]) % self.topics for topic in range(self.topics))

    @property
    def match_mood(self) -> int:
        """Per cent of the clicks on items of the user's mood; other clicks ignore the mood."""
        return (60, 90)[self.number]

    @property
    def cells(self) -> int:
        """Number of pairs of a topic and a mood."""
        return self.topics * self.moods


class Dice:
    """A random number generator whose output depends only on the seed.

    It avoids floating point and numpy's distributions, which may differ between machines and versions.
    """

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def below(self, limit: int | Integers, count: int) -> Integers:
        """``count`` integers in ``[0, limit)``; ``limit`` (< 2³¹) is a scalar or an array ``[count]``."""
        high_bits = (self._bits.random_raw(count) >> np.uint64(33)).astype(np.int64)
        return (high_bits * limit) >> 31

    def happens(self, per_cent: int | Integers, count: int) -> NDArray[np.bool_]:
        """``count`` Bernoulli samples with a probability in per cent."""
        return self.below(100, count) < per_cent

    def weighted(self, weights: Integers, count: int) -> Integers:
        """``count`` indices with probabilities proportional to integer weights."""
        cumulated = np.cumsum(weights)
        return np.searchsorted(cumulated, self.below(int(cumulated[-1]), count), side="right")

    def shuffled(self, count: int) -> Integers:
        """A random permutation of 0 … ``count`` - 1."""
        return np.argsort(self._bits.random_raw(count), kind="stable")


class SampleCatalogue:
    """Items of a domain, ordered by cell and within each cell by descending popularity.

    Attributes:
        domain: the domain.
        dice: random number generator for the content of the items.
        listed: item names in the order of ``items.tsv``, which is random.
        listed_cells: cell of each listed item, int64 ``[items]``.
        names: item names in the order of the catalogue.
    """

    def __init__(self, domain: SampleDomain, settings: SampleSettings, digits: int = 0) -> None:
        self.domain = domain
        items, cells = settings.items, domain.cells
        sizes = items // cells + (np.arange(cells) < items % cells)
        cell = np.repeat(np.arange(cells), sizes)
        first = np.cumsum(sizes) - sizes
        rank = np.arange(items) - first[cell]
        self._weight_before = np.concatenate([[0], np.cumsum((1 << 20) // (rank + 3))])
        self._cell_weight = self._weight_before[np.append(first, items)]
        self.dice = Dice(settings.seed, domain.number, 0)
        order = self.dice.shuffled(items)
        self.listed = [f"{domain.item_prefix}{number:0{digits}}" for number in range(1, items + 1)]
        self.listed_cells: Integers = cell[order]
        self.names = np.empty(items, dtype=object)
        self.names[order] = self.listed

    def draw(self, dice: Dice, first_cell: Integers, cells: Integers) -> Integers:
        """Sample items by popularity, one from each range ``[first_cell, first_cell + cells)`` of cells."""
        lowest = self._cell_weight[first_cell]
        ticket = lowest + dice.below(self._cell_weight[first_cell + cells] - lowest, len(lowest))
        items: Integers = np.searchsorted(self._weight_before, ticket, side="right") - 1
        return items


def history_lengths(dice: Dice, users: int, mean: int) -> Integers:
    """Sequence lengths in descending order: ``MINIMUM_CLICKS`` plus a geometric variable, up to 6 means."""
    extra = mean - MINIMUM_CLICKS
    weights = [1 << 24]
    while len(weights) <= 6 * mean:
        weights.append(weights[-1] * extra // (extra + 1))
    return -np.sort(-(MINIMUM_CLICKS + dice.weighted(np.array(weights), users)))


class Crowd:
    """The users of a domain, simulated in parallel click by click."""

    def __init__(self, catalogue: SampleCatalogue, dice: Dice, users: int) -> None:
        self._catalogue, self._dice = catalogue, dice
        self._domain = domain = catalogue.domain
        self._next_topic = np.array(domain.next_topic)
        liking = 1000 // (np.arange(domain.topics) + 8)
        self._interests = dice.weighted(liking, users * INTERESTS).reshape(users, INTERESTS)
        self._mood = dice.below(domain.moods, users)
        self._topic = self._interests[:, 0].copy()
        self._run = np.zeros(users, dtype=np.int64)

    def _move_on(self, count: int) -> Integers:
        """Topics of the next click of the first ``count`` users."""
        dice, topic, run = self._dice, self._topic[:count], self._run[:count]
        stays = dice.happens(np.where(run == 1, STAY_AFTER_FIRST, STAY_AFTER_MORE), count) | (run == 0)
        follows = dice.happens(FOLLOW_RULE, count)
        own = self._interests[np.arange(count), dice.below(INTERESTS, count)]
        moved = np.where(stays, topic, np.where(follows, self._next_topic[topic], own))
        self._run[:count] = np.where(moved == topic, run + 1, 1)
        self._topic[:count] = moved
        return moved

    def _choose(self, users: Integers, topic: Integers, strays: NDArray[np.bool_]) -> Integers:
        """Sample an item of the topic for each user, of the user's mood with probability ``match_mood``."""
        count, moods = len(users), self._domain.moods
        matches = self._dice.happens(self._domain.match_mood, count)
        first_cell = topic * moods + np.where(matches, self._mood[users], 0)
        cells = np.where(matches, 1, moods)
        return self._catalogue.draw(
            self._dice, np.where(strays, 0, first_cell), np.where(strays, self._domain.cells, cells)
        )

    def click(self, before: NDArray[np.int32]) -> Integers:
        """The next click of the first n users, given their previous clicks, int32 ``[n, clicks]``."""
        count, done = before.shape
        topic = self._move_on(count)
        strays = self._dice.happens(STRAY, count)
        chosen = self._choose(np.arange(count), topic, strays)
        for _ in range(3):  # prefer items that are not in the history
            known = np.flatnonzero((before == chosen[:, None]).any(axis=1))
            chosen[known] = self._choose(known, topic[known], strays[known])
        if done:
            again = np.flatnonzero(self._dice.happens(REPEAT, count))
            chosen[again] = before[again, self._dice.below(done, len(again))]
        return chosen


def histories(catalogue: SampleCatalogue, dice: Dice, users: int, mean: int) -> list[NDArray[np.int32]]:
    """Click sequences as indices into the catalogue, oldest click first; users by descending length."""
    lengths = history_lengths(dice, users, mean)
    clicks = np.zeros((users, lengths[0]), dtype=np.int32)
    crowd = Crowd(catalogue, dice, users)
    for step in range(lengths[0]):
        active = np.searchsorted(-lengths, -step, side="left")
        clicks[:active, step] = crowd.click(clicks[:active, :step])
    return [row[:length] for row, length in zip(clicks, lengths, strict=True)]


def user_lines(catalogue: SampleCatalogue, settings: SampleSettings) -> list[str]:
    """Lines of ``users.tsv``, users in random order."""
    domain = catalogue.domain
    users = settings.target_users if domain.number else settings.users
    dice = Dice(settings.seed, domain.number, 1)
    clicks = histories(catalogue, dice, users, settings.clicks)
    return [
        f"{domain.user_prefix}{number}\t{' '.join(catalogue.names[clicks[user]])}"
        for number, user in enumerate(dice.shuffled(users).tolist(), start=1)
    ]


def write_lists(
    folder: Path, item_lines: list[str], catalogue: SampleCatalogue, settings: SampleSettings
) -> None:
    """Write ``items.tsv`` and ``users.tsv`` of a domain to a new folder."""
    folder.mkdir(parents=True)
    for name, lines in (("items.tsv", item_lines), ("users.tsv", user_lines(catalogue, settings))):
        text = "".join(f"{line}\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
