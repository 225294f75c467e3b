"""Adding adapters to a TransRec model and taking them off again."""

from __future__ import annotations

from torch import nn

from adapter4rec.adapters.base import Adapter, AdapterConfig
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
        UserError: the model has adapters already, lacks an encoder that is to be adapted, or the config means
            nothing for it. The model is then left as it was.
    """
    if len(model.adapters):
        raise UserError("the model has adapters already; detach them first")
    config.check()
    sites = encoder_sites(model)
    for encoder in config.encoders:
        if encoder not in sites:
            raise UserError(f"the {encoder} encoder has no backbone to adapt")
    try:
        _build(model, config, {encoder: sites[encoder] for encoder in config.encoders})
    except BaseException:
        detach_adapters(model)
        raise
    model.adapters.to(next(model.user_encoder.parameters()).device).train(model.training)


def _build(model: TransRec, config: AdapterConfig, sites: dict[str, Sites]) -> None:
    family = family_of(config)
    shared = () if family.shared is None else (family.shared(config),)
    for module in shared:
        model.adapters["shared"] = module
    for encoder, places in sites.items():
        adapter = model.adapters[encoder] = family.build(config, places, *shared)
        if config.train_layer_norms:
            adapter.train_copies("layer_norms", places.encoder, config.layer_norms_of(places))
        if config.train_head and encoder == "item":
            head = model.item_encoder.head
            adapter.train_copies("head", head, [name for name, _ in head.named_parameters()])


def copied_parameters(model: TransRec) -> dict[str, str]:
    """Parameters of the model that parameters of its adapters stand in for, by name, with theirs."""
    encoders = {"item": "item_encoder.backbone", "user": "user_encoder"}
    copies = {}
    for role, adapter in model.adapters.items():
        for own, name in adapter.copies.items() if isinstance(adapter, Adapter) else ():
            place = "item_encoder.head" if own.startswith("head.") else encoders[role]
            copies[f"{place}.{name}"] = f"adapters.{role}.{own}"
    return copies


def detach_adapters(model: TransRec) -> nn.ModuleDict:
    """Take the adapters off; the model is bit for bit what it was without them.

    Returns:
        The detached adapters.
    """
    detached = model.adapters
    for adapter in detached.values():
        if isinstance(adapter, Adapter):
            adapter.detach()
    model.adapters = nn.ModuleDict()
    return detached
