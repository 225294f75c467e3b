"""Registries of training objectives, losses and user encoders.

A class is registered as itself, or as a string ``module:Class`` that is imported when the name is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from adapter4rec.utils.errors import UserError, nearest

OBJECTIVES: dict[str, slice] = {"sasrec": slice(None), "cpc": slice(-1, None)}
"""Training objectives: the positions of a sequence whose next item is predicted. ``sasrec`` predicts at every
position (Kang & McAuley 2018), ``cpc`` at the last one: the whole history predicts one item."""

LOSSES: dict[str, type | str] = {
    "bce": "adapter4rec.models.losses.bce:BceLoss",
    "gbce": "adapter4rec.models.losses.gbce:GbceLoss",
    "in_batch": "adapter4rec.models.losses.in_batch:InBatchLoss",
    "mixed": "adapter4rec.models.losses.mixed:MixedLoss",
    "sampled_softmax": "adapter4rec.models.losses.sampled_softmax:SampledSoftmaxLoss",
    "full": "adapter4rec.models.losses.full:FullLoss",
}

USER_ENCODERS: dict[str, type | str] = {
    "transformer": "adapter4rec.models.user_encoders.transformer:TransformerUserEncoder",
    "ligr": "adapter4rec.models.user_encoders.ligr:LigrUserEncoder",
    "gru4rec": "adapter4rec.models.user_encoders.gru4rec:Gru4RecUserEncoder",
    "hstu": "adapter4rec.models.user_encoders.hstu:HstuUserEncoder",
    "mean": "adapter4rec.models.user_encoders.mean:MeanUserEncoder",
}


def registered(registry: Mapping[str, type | str], name: str) -> Any:
    """The class registered under ``name``.

    Raises:
        UserError: no class is registered under it.
    """
    if name not in registry:
        raise UserError(f"{name!r} is unknown; {nearest(name, list(registry))}")
    found = registry[name]
    return resolve_name(found) if isinstance(found, str) else found
