"""Generated sample data: a source and a target domain that share meaning, but no item and no word of a topic.

    python -m adapter4rec.sample [--users N] [--target-users N] [--items N] [--clicks N] [--seed N]
                                 [--into FOLDER]

Every number is drawn as an integer from PCG64's raw stream, so that the same settings give the same bytes on
every machine and with every numpy. Dataset/sample/README.md tells what the data can and cannot show.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapter4rec.errors import UserError, run_main
from adapter4rec.files import REPOSITORY, file_hash, whole_file, write_json
from adapter4rec.sample_words import SOURCE_WORDS, TARGET_WORDS, DomainWords

Integers = NDArray[np.int64]

VERSION = 1
DEFAULT_FOLDER = REPOSITORY / "Dataset" / "sample"
GENERATOR = "adapter4rec.sample"
NOTICE = "Generated to try things out: the users, the items and the clicks are made up, not real data."
DESCRIPTION = "sample.json"
DATA_FILES = ("source/users.tsv", "source/items.tsv", "target/users.tsv", "target/items.tsv")

TOPICS = len(SOURCE_WORDS.topics)
MOODS = len(SOURCE_WORDS.moods)
MINIMUM_CLICKS = 5

# How a user goes on, in per cent of the clicks.
STAY_AFTER_FIRST = 80  # stay in the topic after one click in it ...
STAY_AFTER_MORE = 20  # ... and after two or more
FOLLOW_RULE = 85  # on leaving a topic: go to the next by the rule, else to one of the own interests
STRAY = 6  # a click that has nothing to do with the user
REPEAT = 4  # a click on something clicked before
INTERESTS = 3


class Outcome(Enum):
    """What became of a call to make a sample."""

    MADE = "made"
    MADE_ANEW = "made anew, in place of an older sample"
    KEPT = "there already, nothing done"


@dataclass(frozen=True)
class SampleSettings:
    """What a sample depends on; ``items`` are in each domain, ``clicks`` is a history's mean length."""

    users: int = 3000
    target_users: int = 3000
    items: int = 1000
    clicks: int = 13
    seed: int = 1

    def check(self) -> None:
        """Raise ``UserError`` on a size that the generator is not made for."""
        limits = {
            "users": (1, 1_000_000),
            "target_users": (1, 1_000_000),
            "items": (TOPICS * MOODS, 200_000),
            "clicks": (MINIMUM_CLICKS + 1, 50),
            "seed": (0, 2**32 - 1),
        }
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} is {value}; it can be {lowest} to {highest}")


@dataclass(frozen=True)
class Domain:
    """One side of the sample: its words and how its users behave."""

    name: str
    number: int
    item_prefix: str
    user_prefix: str
    words: DomainWords
    next_topic: tuple[int, ...]
    match_mood: int
    """Per cent of the clicks that go to the user's mood; the others go to any mood of the topic."""


# Even topics are followed by the same topic in both domains, odd ones by another; each rule is a permutation.
# The source minds the mood a little, so that a model learns to see it; the target minds it much.
SOURCE = Domain(
    "source",
    0,
    "news",
    "reader",
    SOURCE_WORDS,
    tuple((topic + 9) % TOPICS for topic in range(TOPICS)),
    match_mood=60,
)
TARGET = Domain(
    "target",
    1,
    "show",
    "listener",
    TARGET_WORDS,
    tuple((topic + (9 if topic % 2 == 0 else 15)) % TOPICS for topic in range(TOPICS)),
    match_mood=90,
)


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


class Catalogue:
    """A domain's items, lined up by (topic, mood), the popular ones first in each such cell."""

    def __init__(self, items: int) -> None:
        cells = TOPICS * MOODS
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

    def __init__(self, domain: Domain, catalogue: Catalogue, dice: Dice, users: int) -> None:
        self._domain, self._catalogue, self._dice = domain, catalogue, dice
        self._next_topic = np.array(domain.next_topic)
        liking = 1000 // (np.arange(TOPICS) + 8)
        self._interests = dice.weighted(liking, users * INTERESTS).reshape(users, INTERESTS)
        self._mood = dice.below(MOODS, users)
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
        count = len(users)
        matches = self._dice.happens(self._domain.match_mood, count)
        first_cell = topic * MOODS + np.where(matches, self._mood[users], 0)
        cells = np.where(matches, 1, MOODS)
        return self._catalogue.draw(
            self._dice, np.where(strays, 0, first_cell), np.where(strays, TOPICS * MOODS, cells)
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
    domain: Domain, catalogue: Catalogue, dice: Dice, users: int, mean: int
) -> list[NDArray[np.int32]]:
    """Each user's clicks, oldest first, as positions in the catalogue; the longest histories come first."""
    lengths = history_lengths(dice, users, mean)
    clicks = np.zeros((users, lengths[0]), dtype=np.int32)
    crowd = Crowd(domain, catalogue, dice, users)
    for step in range(lengths[0]):
        active = np.searchsorted(-lengths, -step, side="left")
        clicks[:active, step] = crowd.click(clicks[:active, :step])
    return [row[:length] for row, length in zip(clicks, lengths, strict=True)]


def titles(words: DomainWords, cell: Integers, dice: Dice) -> list[str]:
    """A title for each item, of words that stand for the topic and the mood of its cell."""
    count = len(cell)
    topic, mood = np.divmod(cell, MOODS)

    def pick(table: list[tuple[str, ...]], row: Integers | int) -> list[str]:
        words_of = np.array(table)
        return words_of[row, dice.below(words_of.shape[1], count)].tolist()

    nouns = np.array([one.nouns for one in words.topics])
    noun = dice.below(nouns.shape[1], count)
    other = (noun + 1 + dice.below(nouns.shape[1] - 1, count)) % nouns.shape[1]
    places = {
        "noun": nouns[topic, noun].tolist(),
        "other": nouns[topic, other].tolist(),
        "action": pick([one.actions for one in words.topics], topic),
        "adjective": pick([one.adjectives for one in words.topics], topic),
        "mood": pick(list(words.moods), mood),
        "filler": pick([words.fillers], 0),
    }
    patterns = pick([words.patterns], 0)
    rows = zip(*places.values(), strict=True)
    filled = (
        pattern.format(**dict(zip(places, row, strict=True)))
        for pattern, row in zip(patterns, rows, strict=True)
    )
    return [title[0].upper() + title[1:] for title in filled]


def domain_files(domain: Domain, users: int, settings: SampleSettings) -> dict[str, bytes]:
    """The bytes of a domain's two files, by their names below the sample's folder."""
    catalogue = Catalogue(settings.items)
    dice = Dice(settings.seed, domain.number, 0)
    order = dice.shuffled(settings.items)
    names = np.empty(settings.items, dtype=object)
    names[order] = [f"{domain.item_prefix}{number}" for number in range(1, settings.items + 1)]
    titles_in_order = titles(domain.words, catalogue.cell[order], dice)
    item_lines = [f"{names[item]}\t{title}\n" for item, title in zip(order, titles_in_order, strict=True)]

    dice = Dice(settings.seed, domain.number, 1)
    clicks = histories(domain, catalogue, dice, users, settings.clicks)
    user_lines = [
        f"{domain.user_prefix}{number}\t{' '.join(names[clicks[user]])}\n"
        for number, user in enumerate(dice.shuffled(users).tolist(), start=1)
    ]
    return {
        f"{domain.name}/users.tsv": "".join(user_lines).encode(),
        f"{domain.name}/items.tsv": "".join(item_lines).encode(),
    }


def sample_files(settings: SampleSettings) -> dict[str, bytes]:
    """The bytes of all four files; they depend on the settings alone."""
    source = domain_files(SOURCE, settings.users, settings)
    return source | domain_files(TARGET, settings.target_users, settings)


def _describes_a_sample(description: object) -> bool:
    return (
        isinstance(description, dict)
        and description.get("generator") == GENERATOR
        and isinstance(description.get("sha256"), dict)
    )


def _description_found(folder: Path) -> dict[str, Any] | None:
    """What a sample in ``folder`` says of itself, None if nothing is there.

    Raises ``UserError`` where anything but an untouched sample is. A sample's missing file is no objection: a
    sample that was interrupted lacks some.
    """
    foreign = UserError(
        f"{folder} holds something other than an untouched sample, and that is left alone; "
        "choose another folder with --into, or move away what is there"
    )
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists() and any(
            entry.name != "README.md" and not entry.name.startswith(".") for entry in folder.iterdir()
        ):
            raise foreign from None
        return None
    except (ValueError, NotADirectoryError):
        raise foreign from None
    if not _describes_a_sample(found):
        raise foreign
    there = [name for name in DATA_FILES if (folder / name).exists()]
    if any(file_hash(folder / name) != found["sha256"].get(name) for name in there):
        raise foreign
    return found


def make_sample(folder: Path, settings: SampleSettings) -> Outcome:
    """Make the sample in ``folder``, unless it is there already; an older untouched sample is replaced.

    Raises ``UserError`` on settings out of range and where the folder holds anything else.
    """
    settings.check()
    found = _description_found(folder)
    wanted = {"notice": NOTICE, "generator": GENERATOR, "version": VERSION, "settings": asdict(settings)}
    complete = all((folder / name).exists() for name in DATA_FILES)
    if found and complete and found == wanted | {"sha256": found["sha256"]}:
        return Outcome.KEPT
    files = sample_files(settings)
    for name in DATA_FILES:
        (folder / name).unlink(missing_ok=True)
    # The description goes first: a sample interrupted after it is recognised, and made anew.
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    write_json(folder / DESCRIPTION, wanted | {"sha256": hashes})
    for name, data in files.items():
        with whole_file(folder / name) as aside:
            aside.write_bytes(data)
    return Outcome.MADE_ANEW if found else Outcome.MADE


def _options(arguments: list[str] | None) -> argparse.Namespace:
    default = SampleSettings()
    parser = argparse.ArgumentParser(prog="python -m adapter4rec.sample", description=__doc__.splitlines()[0])
    count = {"type": int, "metavar": "N"}
    parser.add_argument("--users", **count, default=default.users, help="users in the source (%(default)s)")
    parser.add_argument("--target-users", **count, help="users in the target (as many as in the source)")
    parser.add_argument("--items", **count, default=default.items, help="items in each domain (%(default)s)")
    parser.add_argument(
        "--clicks", **count, default=default.clicks, help="a user's mean clicks (%(default)s)"
    )
    parser.add_argument(
        "--seed", **count, default=default.seed, help="another seed, other data (%(default)s)"
    )
    parser.add_argument("--into", type=Path, default=DEFAULT_FOLDER, help="folder (Dataset/sample)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = _options(arguments)
    target_users = options.users if options.target_users is None else options.target_users
    settings = SampleSettings(options.users, target_users, options.items, options.clicks, options.seed)
    try:
        outcome = make_sample(options.into, settings)
    except OSError as error:
        raise UserError(f"cannot make the sample in {options.into}: {error}") from None
    print(f"{options.into}: {outcome.value}")
    print(
        f"  source {settings.users} users, target {settings.target_users}, {settings.items} items each, "
        f"seed {settings.seed}; generated, not real"
    )


if __name__ == "__main__":
    run_main(main)
