"""The text sample: titles express the topic and the mood, with different words in each domain.

``words.json`` has the words of each topic and mood, and the title patterns. The words of a topic share only
their meaning: knowledge about a topic can be transferred only through the pretrained language model.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapter4rec.datasets.sample.behaviour import (
    Dice,
    Integers,
    SampleCatalogue,
    SampleDomain,
    SampleSettings,
    write_lists,
)
from adapter4rec.datasets.sample.folder import LISTS, Recipe, keep_or_make
from adapter4rec.utils.files import REPOSITORY


def read_words(domain: str) -> dict[str, NDArray[np.str_]]:
    """The vocabulary of a domain, ``source`` or ``target``, by place in a title.

    Topics and moods have the same order in both domains. Nouns, actions and adjectives are
    ``[topics, words]``, moods ``[moods, words]``, fillers ``[1, words]`` and patterns ``[1, patterns]``.
    """
    data = json.loads(files(__package__).joinpath("words.json").read_text(encoding="utf-8"))
    topics = [topic[domain] for topic in data["topics"].values()]
    lines = {place: [topic[f"{place}s"] for topic in topics] for place in ("noun", "action", "adjective")}
    lines |= {"mood": [mood[domain] for mood in data["moods"].values()], "filler": [data["fillers"][domain]]}
    words = {place: np.array([line.split() for line in rows]) for place, rows in lines.items()}
    return words | {"pattern": np.array([data["patterns"][domain]])}


WORDS = {domain: read_words(domain) for domain in ("source", "target")}
TOPICS, MOODS = len(WORDS["source"]["noun"]), len(WORDS["source"]["mood"])

# Even topics have the same successor in both domains, odd topics another one. The mood matters little in the
# source, enough for a model to learn it, and more in the target.
SOURCE = SampleDomain(0, "news", "reader", TOPICS, MOODS, steps=(9, 9))
TARGET = SampleDomain(1, "show", "listener", TOPICS, MOODS, steps=(9, 15))


def titles(words: dict[str, NDArray[np.str_]], cell: Integers, dice: Dice) -> list[str]:
    """Generate a title for each item from words of the topic and mood of its cell."""
    count = len(cell)
    topic, mood = np.divmod(cell, MOODS)
    nouns = words["noun"].shape[1]
    noun = dice.below(nouns, count)
    other = (noun + 1 + dice.below(nouns - 1, count)) % nouns
    chosen = {"noun": words["noun"][topic, noun], "other": words["noun"][topic, other]}
    rows: dict[str, Integers | int] = {"action": topic, "adjective": topic, "mood": mood}
    for place, row in (rows | {"filler": 0, "pattern": 0}).items():
        chosen[place] = words[place][row, dice.below(words[place].shape[1], count)]
    patterns = chosen.pop("pattern")
    filled = [
        pattern.format(**dict(zip(chosen, row, strict=True)))
        for pattern, *row in zip(patterns, *chosen.values(), strict=True)
    ]
    return [title[0].upper() + title[1:] for title in filled]


def write(settings: SampleSettings, folder: Path) -> None:
    """Write the files of both domains; they depend only on the settings."""
    for domain in (SOURCE, TARGET):
        catalogue = SampleCatalogue(domain, settings)
        of_items = titles(WORDS[domain.name], catalogue.listed_cells, catalogue.dice)
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
