"""The text sample: titles express the topic and the mood, with different words in each domain.

``words.json`` has the words of each topic and mood, and the title patterns. The words of a topic share only
their meaning: knowledge about a topic can be transferred only through the pretrained language model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapter4rec.datasets.sample.behaviour import (
    Catalogue,
    Dice,
    Integers,
    SampleDomain,
    SampleSettings,
    write_lists,
)
from adapter4rec.datasets.sample.folder import LISTS, Recipe, keep_or_make
from adapter4rec.utils.files import REPOSITORY


@dataclass(frozen=True)
class Words:
    """Vocabulary of a domain, str arrays; topics and moods have the same order in both domains."""

    nouns: NDArray[np.str_]
    """``[topics, words]``, as are the next two."""
    actions: NDArray[np.str_]
    adjectives: NDArray[np.str_]
    moods: NDArray[np.str_]
    """``[moods, words]``."""
    fillers: NDArray[np.str_]
    """``[1, words]``."""
    patterns: NDArray[np.str_]
    """``[1, patterns]``."""


def read_words(domain: str) -> Words:
    """The vocabulary of a domain, ``source`` or ``target``."""
    data = json.loads(files(__package__).joinpath("words.json").read_text(encoding="utf-8"))
    topics = [topic[domain] for topic in data["topics"].values()]

    def table(lines: list[str]) -> NDArray[np.str_]:
        return np.array([line.split() for line in lines])

    return Words(
        nouns=table([topic["nouns"] for topic in topics]),
        actions=table([topic["actions"] for topic in topics]),
        adjectives=table([topic["adjectives"] for topic in topics]),
        moods=table([mood[domain] for mood in data["moods"].values()]),
        fillers=table([data["fillers"][domain]]),
        patterns=np.array([data["patterns"][domain]]),
    )


@dataclass(frozen=True)
class TextDomain(SampleDomain):
    """A domain of the text sample."""

    words: Words


SOURCE_WORDS = read_words("source")
TOPICS, MOODS = len(SOURCE_WORDS.nouns), len(SOURCE_WORDS.moods)

# Even topics have the same successor in both domains, odd topics another one. The mood matters little in the
# source, enough for a model to learn it, and more in the target.
SOURCE = TextDomain(0, "news", "reader", TOPICS, MOODS, steps=(9, 9), words=SOURCE_WORDS)
TARGET = TextDomain(1, "show", "listener", TOPICS, MOODS, steps=(9, 15), words=read_words("target"))


def titles(words: Words, cell: Integers, dice: Dice) -> list[str]:
    """Generate a title for each item from words of the topic and mood of its cell."""
    count = len(cell)
    topic, mood = np.divmod(cell, MOODS)

    def pick(table: NDArray[np.str_], row: Integers | int) -> list[str]:
        return list(map(str, table[row, dice.below(table.shape[1], count)]))

    nouns = words.nouns.shape[1]
    noun = dice.below(nouns, count)
    other = (noun + 1 + dice.below(nouns - 1, count)) % nouns
    places = {
        "noun": words.nouns[topic, noun].tolist(),
        "other": words.nouns[topic, other].tolist(),
        "action": pick(words.actions, topic),
        "adjective": pick(words.adjectives, topic),
        "mood": pick(words.moods, mood),
        "filler": pick(words.fillers, 0),
    }
    patterns = pick(words.patterns, 0)
    filled = [
        pattern.format(**dict(zip(places, row, strict=True)))
        for pattern, *row in zip(patterns, *places.values(), strict=True)
    ]
    return [title[0].upper() + title[1:] for title in filled]


def write(settings: SampleSettings, folder: Path) -> None:
    """Write the files of both domains; they depend only on the settings."""
    for domain in (SOURCE, TARGET):
        catalogue = Catalogue(domain, settings)
        of_items = titles(domain.words, catalogue.listed_cells, catalogue.dice)
        lines = [f"{name}\t{title}" for name, title in zip(catalogue.listed, of_items, strict=True)]
        write_lists(folder / domain.name, lines, catalogue, settings)


TEXT_SAMPLE = Recipe(
    generator="Dataset.generate",
    version=1,
    folder=REPOSITORY / "Dataset" / "sample",
    items=1000,
    least_items=SOURCE.cells,
    parts=LISTS,
    write=write,
)


def make_sample(folder: Path, settings: SampleSettings) -> bool:
    """Generate the text sample in ``folder`` unless it is up to date. An older, unmodified one is replaced.

    Returns:
        Whether the sample was generated.

    Raises:
        UserError: too few items, or the folder has other content.
    """
    return keep_or_make(folder, TEXT_SAMPLE, settings)
