"""How the users of a generated domain behave: what they click, given each item's topic and mood.

A topic and a mood make a cell. What a cell looks like, as a title or as a picture, is no matter here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapter4rec.utils.errors import UserError

Integers = NDArray[np.int64]

MINIMUM_CLICKS = 5

# How a user goes on, in per cent of the clicks.
STAY_AFTER_FIRST = 80  # stay in the topic after one click in it ...
STAY_AFTER_MORE = 20  # ... and after two or more
FOLLOW_RULE = 85  # on leaving a topic: go to the next by the rule, else to one of the own interests
STRAY = 6  # a click that has nothing to do with the user
REPEAT = 4  # a click on something clicked before
INTERESTS = 3


@dataclass(frozen=True)
class SampleSettings:
    """What a sample depends on; ``items`` are in each domain, ``clicks`` is a history's mean length."""

    users: int = 3000
    target_users: int = 3000
    items: int = 1000
    clicks: int = 13
    seed: int = 1

    def check(self, cells: int) -> None:
        """Raise ``UserError`` on a size that the generator is not made for, as fewer items than cells."""
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
                raise UserError(f"{option} is {value}; it can be {lowest} to {highest}")


@dataclass(frozen=True)
class SampleDomain:
    """One side of a sample: its names and how its users behave."""

    name: str
    number: int
    item_prefix: str
    user_prefix: str
    next_topic: tuple[int, ...]
    """The topic that follows each topic by the rule."""
    moods: int
    match_mood: int
    """Per cent of the clicks that go to the user's mood; the others go to any mood of the topic."""

    @property
    def topics(self) -> int:
        """How many topics there are."""
        return len(self.next_topic)

    @property
    def cells(self) -> int:
        """How many pairs of a topic and a mood there are."""
        return self.topics * self.moods


class Dice:
    """Integer draws that depend on the seed alone: no floating point, no numpy distribution."""

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def below(self, limit: int | Integers, count: int) -> Integers:
        """``count`` whole numbers from 0 to ``limit`` - 1, with one limit (< 2³¹) for all or one for each."""
        high_bits = (self._bits.random_raw(count) >> np.uint64(33)).astype(np.int64)
        return (high_bits * limit) >> 31

    def happens(self, per_cent: int | Integers, count: int) -> NDArray[np.bool_]:
        """``count`` events of that probability."""
        return self.below(100, count) < per_cent

    def weighted(self, weights: Integers, count: int) -> Integers:
        """``count`` indices, each as likely as its whole-number weight."""
        cumulated = np.cumsum(weights)
        return np.searchsorted(cumulated, self.below(int(cumulated[-1]), count), side="right")

    def shuffled(self, count: int) -> Integers:
        """The numbers 0 … ``count`` - 1 in random order."""
        return np.argsort(self._bits.random_raw(count), kind="stable")

    def octets(self, count: int) -> NDArray[np.uint8]:
        """``count`` whole numbers from 0 to 255, eight from each raw draw."""
        return self._bits.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]


class Catalogue:
    """A domain's items, lined up by cell, the popular ones first in each cell."""

    def __init__(self, items: int, cells: int) -> None:
        sizes = items // cells + (np.arange(cells) < items % cells)
        self.cell = np.repeat(np.arange(cells), sizes)
        self.first = np.cumsum(sizes) - sizes
        rank = np.arange(items) - self.first[self.cell]
        self._weight_before = np.concatenate([[0], np.cumsum((1 << 20) // (rank + 3))])
        self._cell_weight = self._weight_before[np.append(self.first, items)]

    def draw(self, dice: Dice, first_cell: Integers, cells: Integers) -> Integers:
        """One item from each range of ``cells`` cells that begins at ``first_cell``, by popularity."""
        lowest = self._cell_weight[first_cell]
        ticket = lowest + dice.below(self._cell_weight[first_cell + cells] - lowest, len(lowest))
        return np.searchsorted(self._weight_before, ticket, side="right") - 1


def history_lengths(dice: Dice, users: int, mean: int) -> Integers:
    """Lengths, longest first: at least ``MINIMUM_CLICKS``, geometric above, the tail cut at six means."""
    extra = mean - MINIMUM_CLICKS
    weights = [1 << 24]
    while len(weights) <= 6 * mean:
        weights.append(weights[-1] * extra // (extra + 1))
    return -np.sort(-(MINIMUM_CLICKS + dice.weighted(np.array(weights), users)))


class Crowd:
    """The users of a domain, all moved on by one click at a time."""

    def __init__(self, domain: SampleDomain, catalogue: Catalogue, dice: Dice, users: int) -> None:
        self._domain, self._catalogue, self._dice = domain, catalogue, dice
        self._next_topic = np.array(domain.next_topic)
        liking = 1000 // (np.arange(domain.topics) + 8)
        self._interests = dice.weighted(liking, users * INTERESTS).reshape(users, INTERESTS)
        self._mood = dice.below(domain.moods, users)
        self._topic = self._interests[:, 0].copy()
        self._run = np.zeros(users, dtype=np.int64)

    def _move_on(self, count: int) -> Integers:
        """The topic of the first ``count`` users' next click."""
        dice, topic, run = self._dice, self._topic[:count], self._run[:count]
        stays = dice.happens(np.where(run == 1, STAY_AFTER_FIRST, STAY_AFTER_MORE), count) | (run == 0)
        follows = dice.happens(FOLLOW_RULE, count)
        own = self._interests[np.arange(count), dice.below(INTERESTS, count)]
        moved = np.where(stays, topic, np.where(follows, self._next_topic[topic], own))
        self._run[:count] = np.where(moved == topic, run + 1, 1)
        self._topic[:count] = moved
        return moved

    def _choose(self, users: Integers, topic: Integers, strays: NDArray[np.bool_]) -> Integers:
        """An item of the topic for each of ``users``, of the user's mood as far as the domain minds it."""
        count, moods = len(users), self._domain.moods
        matches = self._dice.happens(self._domain.match_mood, count)
        first_cell = topic * moods + np.where(matches, self._mood[users], 0)
        cells = np.where(matches, 1, moods)
        return self._catalogue.draw(
            self._dice, np.where(strays, 0, first_cell), np.where(strays, self._domain.cells, cells)
        )

    def click(self, before: NDArray[np.int32]) -> Integers:
        """The next click of the first users, given all their clicks ``before`` (users × clicks)."""
        count, done = before.shape
        topic = self._move_on(count)
        strays = self._dice.happens(STRAY, count)
        chosen = self._choose(np.arange(count), topic, strays)
        for _ in range(3):  # rather something new
            known = np.flatnonzero((before == chosen[:, None]).any(axis=1))
            chosen[known] = self._choose(known, topic[known], strays[known])
        if done:
            again = np.flatnonzero(self._dice.happens(REPEAT, count))
            chosen[again] = before[again, self._dice.below(done, len(again))]
        return chosen


def histories(
    domain: SampleDomain, catalogue: Catalogue, dice: Dice, users: int, mean: int
) -> list[NDArray[np.int32]]:
    """Each user's clicks, oldest first, as positions in the catalogue; the longest histories come first."""
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
    """The text of ``users.tsv``: a line a user, in random order; ``names`` are in the catalogue's order."""
    dice = Dice(settings.seed, domain.number, 1)
    clicks = histories(domain, catalogue, dice, users, settings.clicks)
    return "".join(
        f"{domain.user_prefix}{number}\t{' '.join(names[clicks[user]])}\n"
        for number, user in enumerate(dice.shuffled(users).tolist(), start=1)
    )
