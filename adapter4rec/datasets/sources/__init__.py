"""Readers of public data sets, one module each, and their registry."""

from __future__ import annotations

from adapter4rec.datasets.sources import adressa, iisan, mind, movielens, paper
from adapter4rec.datasets.sources.base import Source

SOURCES: dict[str, Source] = {
    "mind": mind.SOURCE,
    "adressa": adressa.SOURCE,
    "movielens": movielens.SOURCE,
    **iisan.SOURCES,
    "paper": paper.SOURCE,
}
"""Readers by the name of ``python -m Dataset.prepare NAME``."""
