"""The text sample: titles express the topic and the mood, with different words in each domain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapter4rec.datasets.sample.behaviour import (
    Catalogue,
    Dice,
    Integers,
    SampleDomain,
    SampleSettings,
    user_lines,
)
from adapter4rec.datasets.sample.folder import Outcome, Recipe, keep_or_make
from adapter4rec.datasets.sample.words import SOURCE_WORDS, TARGET_WORDS, DomainWords
from adapter4rec.utils.files import REPOSITORY, atomic_file

VERSION = 1
DEFAULT_FOLDER = REPOSITORY / "Dataset" / "sample"
DATA_FILES = ("source/users.tsv", "source/items.tsv", "target/users.tsv", "target/items.tsv")

TOPICS = len(SOURCE_WORDS.topics)
MOODS = len(SOURCE_WORDS.moods)


@dataclass(frozen=True)
class TextDomain(SampleDomain):
    """A domain of the text sample."""

    words: DomainWords


# Even topics have the same successor in both domains, odd topics another one; successors are permutations of
# the topics. The mood matters little in the source, enough for a model to learn it, and more in the target.
SOURCE = TextDomain(
    "source",
    0,
    "news",
    "reader",
    tuple((topic + 9) % TOPICS for topic in range(TOPICS)),
    MOODS,
    match_mood=60,
    words=SOURCE_WORDS,
)
TARGET = TextDomain(
    "target",
    1,
    "show",
    "listener",
    tuple((topic + (9 if topic % 2 == 0 else 15)) % TOPICS for topic in range(TOPICS)),
    MOODS,
    match_mood=90,
    words=TARGET_WORDS,
)


def titles(words: DomainWords, cell: Integers, dice: Dice) -> list[str]:
    """Generate a title for each item from words of the topic and mood of its cell."""
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


def domain_files(domain: TextDomain, users: int, settings: SampleSettings) -> dict[str, bytes]:
    """Contents of the two files of a domain, by path relative to the sample folder."""
    catalogue = Catalogue(settings.items, domain.cells)
    dice = Dice(settings.seed, domain.number, 0)
    order = dice.shuffled(settings.items)
    names = np.empty(settings.items, dtype=object)
    names[order] = [f"{domain.item_prefix}{number}" for number in range(1, settings.items + 1)]
    titles_in_order = titles(domain.words, catalogue.cell[order], dice)
    item_lines = [f"{names[item]}\t{title}\n" for item, title in zip(order, titles_in_order, strict=True)]
    return {
        f"{domain.name}/users.tsv": user_lines(domain, catalogue, names, users, settings).encode(),
        f"{domain.name}/items.tsv": "".join(item_lines).encode(),
    }


def sample_files(settings: SampleSettings) -> dict[str, bytes]:
    """Contents of all four files, by relative path; they depend only on the settings."""
    source = domain_files(SOURCE, settings.users, settings)
    return source | domain_files(TARGET, settings.target_users, settings)


def _write(settings: SampleSettings, folder: Path) -> None:
    for name, data in sample_files(settings).items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(data)


RECIPE = Recipe(
    generator="Dataset.generate",
    version=VERSION,
    notice="Generated to try things out: the users, the items and the clicks are made up, not real data.",
    parts=DATA_FILES,
    write=_write,
)


def make_sample(folder: Path, settings: SampleSettings) -> Outcome:
    """Generate the text sample in ``folder`` unless it is up to date. An older, unmodified one is replaced.

    Raises:
        UserError: setting out of range, or the folder has other content.
    """
    settings.check(SOURCE.cells)
    return keep_or_make(folder, RECIPE, settings)
