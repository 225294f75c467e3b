"""Parameter groups: each is trained or frozen as a whole and has its own learning rate.

Encoders, losses and adapters declare the groups of their parameters (``parameter_groups()``). This module
has the names of the groups and combines those of submodules. It does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import nn

ParameterGroups: TypeAlias = "dict[str, dict[str, nn.Parameter]]"
"""Parameters by group and name."""


BACKBONE, ITEM_HEAD, USER_ENCODER = "backbone", "item_head", "user_encoder"
PARTS = (BACKBONE, ITEM_HEAD, USER_ENCODER)
"""Groups of a source model."""

FIXED = "fixed"
"""Parameters of a backbone that are never trained."""

ADAPTER, SHARED, ADAPTED_HEAD, ADAPTED_USER = "adapter", "shared", "adapted_head", "adapted_user_encoder"
ADAPTER_PARTS = (
    ADAPTER,
    SHARED,
    "item_join",
    "user_join",
    "item_layer_norms",
    "user_layer_norms",
    ADAPTED_HEAD,
    ADAPTED_USER,
)
"""Groups of adapters and of the parameters trained with them."""


def merge_groups(groups: Mapping[str, ParameterGroups]) -> ParameterGroups:
    """The parameter groups of a module, from those of its submodules.

    Args:
        groups: parameter groups by name of the submodule.

    Returns:
        The groups, with parameter names as in the parent module. Groups of this file come first, in the order
        of ``PARTS`` and ``ADAPTER_PARTS``, then groups that custom adapter families add.
    """
    whole: ParameterGroups = {group: {} for group in (*PARTS, FIXED, *ADAPTER_PARTS)}
    for module, own in groups.items():
        for group, parameters in own.items():
            named = {f"{module}.{name}": parameter for name, parameter in parameters.items()}
            whole.setdefault(group, {}).update(named)
    return {group: parameters for group, parameters in whole.items() if parameters}
