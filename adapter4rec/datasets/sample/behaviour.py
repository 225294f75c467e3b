"""Simulation of users: their clicks, given the topic and mood of each item.

A cell is a pair of a topic and a mood. Titles and images of the items are generated elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapter4rec.utils.errors import UserError

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
class SampleSettings:
    """Settings of a sample.

    Attributes:
        users: users in the source domain.
        target_users: users in the target domain.
        items: items in each domain.
        clicks: mean length of a user's sequence.
        seed: random seed.
    """

    users: int = 3000
    target_users: int = 3000
    items: int = 1000
    clicks: int = 13
    seed: int = 1

    def check(self, cells: int) -> None:
        """Check the settings.

        Args:
            cells: number of cells, the minimum number of items.

        Raises:
            UserError: a setting is out of range.
        """
        limits = {
            "users": (1, 1_000_000),
            "target_users": (1, 1_000_000),
            "items": (cells, 200_000),
            "clicks": (MINIMUM_CLICKS + 1, 50),
            "seed": (0, 2**32 - 1),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} {value}: must be between {lowest} and {highest}")


@dataclass(frozen=True)
class SampleDomain:
    """A domain of a sample: names and parameters of the user behaviour."""

    name: str
    number: int
    item_prefix: str
    user_prefix: str
    next_topic: tuple[int, ...]
    """The successor of each topic."""
    moods: int
    match_mood: int
    """Per cent of the clicks on items of the user's mood; other clicks ignore the mood."""

    @property
    def topics(self) -> int:
        """Number of topics."""
        return len(self.next_topic)

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

    def octets(self, count: int) -> NDArray[np.uint8]:
        """``count`` random bytes."""
        return self._bits.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]


class Catalogue:
    """Items of a domain, ordered by cell and within each cell by descending popularity."""

    def __init__(self, items: int, cells: int) -> None:
        sizes = items // cells + (np.arange(cells) < items % cells)
        self.cell = np.repeat(np.arange(cells), sizes)
        self.first = np.cumsum(sizes) - sizes
        rank = np.arange(items) - self.first[self.cell]
        self._weight_before = np.concatenate([[0], np.cumsum((1 << 20) // (rank + 3))])
        self._cell_weight = self._weight_before[np.append(self.first, items)]

    def draw(self, dice: Dice, first_cell: Integers, cells: Integers) -> Integers:
        """Sample items by popularity, one from each range ``[first_cell, first_cell + cells)`` of cells."""
        lowest = self._cell_weight[first_cell]
        ticket = lowest + dice.below(self._cell_weight[first_cell + cells] - lowest, len(lowest))
        return np.searchsorted(self._weight_before, ticket, side="right") - 1


def history_lengths(dice: Dice, users: int, mean: int) -> Integers:
    """Sequence lengths in descending order: ``MINIMUM_CLICKS`` plus a geometric variable, up to 6 means."""
    extra = mean - MINIMUM_CLICKS
    weights = [1 << 24]
    while len(weights) <= 6 * mean:
        weights.append(weights[-1] * extra // (extra + 1))
    return -np.sort(-(MINIMUM_CLICKS + dice.weighted(np.array(weights), users)))


class Crowd:
    """The users of a domain, simulated in parallel click by click."""

    def __init__(self, domain: SampleDomain, catalogue: Catalogue, dice: Dice, users: int) -> None:
        self._domain, self._catalogue, self._dice = domain, catalogue, dice
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


def histories(
    domain: SampleDomain, catalogue: Catalogue, dice: Dice, users: int, mean: int
) -> list[NDArray[np.int32]]:
    """Click sequences as indices into the catalogue, oldest click first; users by descending length."""
    lengths = history_lengths(dice, users, mean)
    clicks = np.zeros((users, lengths[0]), dtype=np.int32)
    crowd = Crowd(domain, catalogue, dice, users)
    for step in range(lengths[0]):
        active = np.searchsorted(-lengths, -step, side="left")
        clicks[:active, step] = crowd.click(clicks[:active, :step])
    return [row[:length] for row, length in zip(clicks, lengths, strict=True)]


def user_lines(
    domain: SampleDomain,
    catalogue: Catalogue,
    names: NDArray[np.object_],
    users: int,
    settings: SampleSettings,
) -> str:
    """Content of ``users.tsv``, users in random order; ``names`` are item names in catalogue order."""
    dice = Dice(settings.seed, domain.number, 1)
    clicks = histories(domain, catalogue, dice, users, settings.clicks)
    return "".join(
        f"{domain.user_prefix}{number}\t{' '.join(names[clicks[user]])}\n"
        for number, user in enumerate(dice.shuffled(users).tolist(), start=1)
    )
