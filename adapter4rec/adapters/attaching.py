"""Adding adapters to a TransRec model and taking them off again."""

from __future__ import annotations

from torch import nn

from adapter4rec.adapters.base import AdapterConfig
from adapter4rec.adapters.registry import family_of
from adapter4rec.adapters.sites import LAYOUTS, USER_ENCODER, Sites, find_sites
from adapter4rec.errors import UserError
from adapter4rec.models.transrec import TransRec


def encoder_sites(model: TransRec) -> dict[str, Sites]:
    """The sites of a model's encoders, by ``item`` and ``user``; the id tower has none."""
    sites = {"user": find_sites(model.user_encoder, USER_ENCODER, model.user_encoder.width, "user")}
    backbone = getattr(model.item_encoder, "backbone", None)
    if backbone is not None:
        layout = LAYOUTS[backbone.config.model_type]
        sites["item"] = find_sites(backbone, layout, backbone.config.hidden_size, "item")
    return sites


def add_adapters(model: TransRec, config: AdapterConfig) -> None:
    """Build the adapters that ``config`` describes and attach them; they stand in ``model.adapters``.

    Raises:
        UserError: the model has adapters already, or lacks an encoder that is to be adapted.
    """
    if len(model.adapters):
        raise UserError("the model has adapters already; detach them first")
    sites = encoder_sites(model)
    build = family_of(config).build
    for encoder in config.encoders:
        if encoder not in sites:
            raise UserError(f"the {encoder} encoder has no backbone to adapt")
        model.adapters[encoder] = build(config, sites[encoder])
    model.adapters.to(next(model.user_encoder.parameters()).device)


def detach_adapters(model: TransRec) -> nn.ModuleDict:
    """Take the adapters off; the model is bit for bit what it was without them.

    Returns:
        The detached adapters.
    """
    detached = model.adapters
    for adapter in detached.values():
        adapter.detach()
    model.adapters = nn.ModuleDict()
    return detached
