"""Replacing attributes of PyTorch modules for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def shadow(module: nn.Module, name: str, value: Any) -> Callable[[], None]:
    """Make ``module.name`` return ``value`` without registering it.

    Python finds an attribute of the object itself before torch looks up registered parameters and before the
    methods of the class. ``state_dict`` and ``parameters`` do not change.

    Returns:
        A function that removes the attribute, so that the parameter or method is used again.

    Raises:
        ValueError: the attribute is shadowed already.
    """
    if name in vars(module):
        raise ValueError(f"{name} is replaced already")
    object.__setattr__(module, name, value)
    return lambda: object.__delattr__(module, name)
