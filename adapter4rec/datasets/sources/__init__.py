"""Readers of public data sets, one module each, and their registry."""

from __future__ import annotations

from adapter4rec.datasets.sources.base import Source

SOURCES: dict[str, Source] = {}
"""Readers by the name of ``python -m Dataset.prepare NAME``."""
