"""The groups that the parameters of a model form: each is trained or frozen, with a learning rate of its own.

Encoders and adapters name the groups of their own parameters (``parameter_groups()``); here are the names,
and how groups of submodules become those of the whole. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import nn

ParameterGroups: TypeAlias = "dict[str, dict[str, nn.Parameter]]"
"""For each group, its parameters by name."""

BACKBONE, ITEM_HEAD, USER_ENCODER = "backbone", "item_head", "user_encoder"
PARTS = (BACKBONE, ITEM_HEAD, USER_ENCODER)
"""Groups of a source model."""

FIXED = "fixed"
"""Parameters of a backbone that are never trained."""

ADAPTER, SHARED, ADAPTED_HEAD = "adapter", "shared", "adapted_head"
ADAPTER_PARTS = (
    ADAPTER,
    SHARED,
    "item_join",
    "user_join",
    "item_layer_norms",
    "user_layer_norms",
    ADAPTED_HEAD,
)
"""Groups of adapters and of what is trained with them."""


def combined(groups: Mapping[str, ParameterGroups]) -> ParameterGroups:
    """The parameter groups of a module, from those of its submodules.

    Args:
        groups: parameter groups by the name of the submodule.

    Returns:
        The groups, with the names that parameters have in the module. Those named here come in the order of
        ``PARTS`` and ``ADAPTER_PARTS``, before those that an own family has named.
    """
    whole: ParameterGroups = {group: {} for group in (*PARTS, FIXED, *ADAPTER_PARTS)}
    for module, own in groups.items():
        for group, parameters in own.items():
            named = {f"{module}.{name}": parameter for name, parameter in parameters.items()}
            whole.setdefault(group, {}).update(named)
    return {group: parameters for group, parameters in whole.items() if parameters}
