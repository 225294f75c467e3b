"""Readers of public data sets, one module each, and their registry."""

from __future__ import annotations

from adapter4rec.datasets.sources import amazon, hm, microlens, ninerec, recbole
from adapter4rec.datasets.sources.base import Source

SOURCES: dict[str, Source] = {
    "amazon": amazon.SOURCE,
    "hm": hm.SOURCE,
    "microlens": microlens.SOURCE,
    "ninerec": ninerec.SOURCE,
    "recbole": recbole.SOURCE,
}
"""Readers by the name of ``python -m Dataset.prepare NAME``."""
