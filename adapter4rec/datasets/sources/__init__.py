"""Readers of public data sets, one module each, and their registry."""

from __future__ import annotations

from adapter4rec.datasets.sources import (
    adressa,
    amazon,
    hm,
    iisan,
    microlens,
    mind,
    movielens,
    ninerec,
    paper,
    recbole,
)
from adapter4rec.datasets.sources.base import Source

SOURCES: dict[str, Source] = {
    "mind": mind.SOURCE,
    "adressa": adressa.SOURCE,
    "hm": hm.SOURCE,
    "amazon": amazon.SOURCE,
    "movielens": movielens.SOURCE,
    "microlens": microlens.SOURCE,
    "ninerec": ninerec.SOURCE,
    **iisan.SOURCES,
    "recbole": recbole.SOURCE,
    "paper": paper.SOURCE,
}
"""Readers by the name of ``python -m Dataset.prepare NAME``."""
