"""Registries of training objectives and user encoders.

A value is a class, or a string ``module:Class`` that is imported when the name is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

LOSSES: dict[str, type | str] = {
    "sasrec": "adapter4rec.models.losses:SasRecLoss",
    "cpc": "adapter4rec.models.losses:CpcLoss",
}
"""Training objectives."""

USER_ENCODERS: dict[str, type | str] = {
    "transformer": "adapter4rec.models.user_encoder:UserEncoder",
}


def registered(registry: Mapping[str, type | str], name: str) -> Any:
    """The class registered under ``name``."""
    found = registry[name]
    return resolve_name(found) if isinstance(found, str) else found
