"""The adapter families, by name: one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.houlsby import Houlsby, HoulsbyConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.errors import UserError


@dataclass(frozen=True)
class Family:
    """A kind of adapter: its config class, and what builds and attaches it to one encoder."""

    config: type[AdapterConfig]
    build: Callable[[AdapterConfig, Sites], Adapter]


FAMILIES: dict[str, Family] = {
    "houlsby": Family(HoulsbyConfig, Houlsby),
}


def family_of(config: AdapterConfig) -> Family:
    """The family that a config belongs to.

    Raises:
        UserError: no registered family has this class of config.
    """
    for family in FAMILIES.values():
        if family.config is type(config):
            return family
    raise UserError(
        f"no adapter family has the config {type(config).__name__}; known are {', '.join(FAMILIES)}"
    )
