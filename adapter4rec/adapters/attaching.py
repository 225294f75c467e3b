"""Adding adapters to a model and detaching them.

A model is a :class:`TransRec`, or a Hugging Face encoder of a kind that ``layouts.py`` supports.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from adapter4rec.adapters.base import AdapterSet, adapters_of
from adapter4rec.adapters.config import RELEASE, AdapterConfig
from adapter4rec.adapters.registry import name_of
from adapter4rec.adapters.released import as_released, change_as_released
from adapter4rec.adapters.sites import Sites, find_sites
from adapter4rec.models.image_encoder import ImageItemEncoder
from adapter4rec.models.layouts import LAYOUTS, UNREAD
from adapter4rec.models.parts import ADAPTED_HEAD, ADAPTED_USER, ADAPTER_PARTS, ParameterGroups
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def encoder_sites(model: TransRec | PreTrainedModel) -> dict[str, Sites]:
    """The sites of a model's encoders, by ``item`` and ``user``.

    The id tower has none, nor has a user encoder without a layout. A Hugging Face encoder is an item encoder.

    Raises:
        UserError: the kind of encoder is not supported.
    """
    sites: dict[str, Sites] = {}
    backbone = getattr(model.item_encoder, "backbone", None) if isinstance(model, TransRec) else model
    if isinstance(model, TransRec) and (layout := model.user_encoder.layout) is not None:
        sites["user"] = find_sites(model.user_encoder, layout, model.user_encoder.width, "user")
    if backbone is None:
        return sites
    kind = getattr(getattr(backbone, "config", None), "model_type", type(backbone).__name__)
    if kind not in LAYOUTS:
        raise UserError(
            f"adapters do not support a {kind!r} encoder; supported model types: {', '.join(LAYOUTS)}"
        )
    try:
        sites["item"] = find_sites(backbone, LAYOUTS[kind], backbone.config.hidden_size, "item")
    except AttributeError:
        raise UserError(
            f"a {type(backbone).__name__} has a head on top of the encoder; add adapters to its base model"
        ) from None
    return sites


def add_adapters(
    model: TransRec | PreTrainedModel, config: AdapterConfig, *, seed: int | None = None
) -> AdapterSet:
    """Build the adapters that ``config`` describes and attach them; all other parameters are frozen.

    They become the submodule ``model.adapters``, with the model's dtype and device. For a Hugging Face
    encoder, the options of the user encoder are ignored.

    Args:
        model: without adapters.
        config: of the adapters.
        seed: fixes their initial weights; default: torch's current random state.

    Returns:
        ``model.adapters``.

    Raises:
        UserError: the model has adapters already, lacks an encoder that the config adapts, or does not
            support the config. The model does not change then.
    """
    if any(isinstance(part, AdapterSet) for part in model.modules()):
        raise UserError("the model has adapters already; detach them first")
    if (
        config.semantics == RELEASE
        and isinstance(model, TransRec)
        and not isinstance(model.user_encoder, TransformerUserEncoder)
    ):
        raise UserError("--semantics release: the released code has --user_encoder transformer only")
    name_of(config)  # raises for a family that is not registered, whose adapters could not be saved
    config.check()
    if seed is not None:
        torch.manual_seed(seed)
    found = encoder_sites(model)
    alone = not isinstance(model, TransRec) and "item" in config.encoders
    encoders = ("item",) if alone else config.encoders
    if missing := [encoder for encoder in encoders if encoder not in found]:
        raise UserError(_unsupported(model, missing[0], found, config))
    if config.train_user_encoder and ("user" in encoders or not isinstance(model, TransRec)):
        only = config.only(("item",))
        raise UserError(f"--train_user_encoder true: needs a user encoder that is not adapted: {only}")
    sites = {encoder: found[encoder] for encoder in encoders}
    adapters = model.adapters = AdapterSet(config, base_groups_of(model))
    try:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                adapters.attach(partial(parameter.requires_grad_, True))
        _build(model, adapters, sites)
    except BaseException:
        detach_adapters(model)
        raise
    like = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    return adapters.to(device=like.device, dtype=like.dtype).train(model.training)


def _unsupported(
    model: TransRec | PreTrainedModel, role: str, found: Collection[str], config: AdapterConfig
) -> str:
    """Why an encoder cannot be adapted, and what to do."""
    reason = ""
    if isinstance(model, TransRec) and role == "user":
        reason = f" ({model.user_encoder.describe()}), which has no attention or feed-forward sublayers"
    way = f"use {config.only(found)}" if found else "the model has no other"
    return f"adapters do not support the model's {role} encoder{reason}; {way}"


def base_groups_of(model: TransRec | PreTrainedModel) -> ParameterGroups:
    """The parameter groups of a model without its adapters; of an encoder alone, one group ``encoder``."""
    adapters = adapters_of(model)
    if adapters is not None:
        return adapters.base_groups
    if isinstance(model, TransRec):
        return model.parameter_groups()
    return {"encoder": {name: one for name, one in model.named_parameters() if not name.startswith(UNREAD)}}


def _build(model: TransRec | PreTrainedModel, adapters: AdapterSet, sites: dict[str, Sites]) -> None:
    builder = config = adapters.config
    items = model.item_encoder if isinstance(model, TransRec) else None
    if config.semantics == RELEASE:
        builder, sites = as_released(config, sites, images=isinstance(items, ImageItemEncoder))
        for undo in change_as_released(model, config):
            adapters.attach(undo)
    for name, adapter in builder.build_all(sites):
        adapters[name] = adapter
        adapters.attach(adapter.detach)
        if name in sites and config.trains_layer_norms_of(name):
            own = sites[name]
            norms = own.layer_norms_of(list(config.layers_of(own).values()))
            adapter.train_copies("layer_norms", own.encoder, norms, f"{name}_layer_norms")
        for group in adapter.parameter_groups():
            if group not in (*ADAPTER_PARTS, *config.learning_rates()):
                raise UserError(
                    f"{type(config).__name__}: no learning rate for its parameter group {group!r}; return it "
                    "from learning_rates()"
                )
    if config.train_head:
        if items is None:
            raise UserError("--train_head true: an encoder alone has no item head")
        head, owner = items.get_submodule("head"), adapters.by_name["item" if "item" in sites else "user"]
        owner.train_copies("head", head, [name for name, _ in head.named_parameters()], ADAPTED_HEAD)
    if config.train_user_encoder and isinstance(model, TransRec):
        users = model.user_encoder
        names = [name for name, _ in users.named_parameters()]
        adapters.by_name["item"].train_copies("user_encoder", users, names, ADAPTED_USER)


def copied_parameters(model: TransRec | PreTrainedModel) -> dict[str, str]:
    """Names of parameters of the model that copies in its adapters replace, with the names of the copies."""
    paths = {id(module): name for name, module in model.named_modules()}
    adapters = adapters_of(model)
    return {
        f"{paths[id(module)]}.{name}".lstrip("."): f"adapters.{role}.{copy}"
        for role, adapter in (adapters.by_name if adapters else {}).items()
        for copy, (module, name) in adapter.copies.items()
    }


def detach_adapters(model: TransRec | PreTrainedModel) -> nn.ModuleDict:
    """Detach the adapters. The model is then bit for bit what it was without them.

    Returns:
        The detached adapters; empty if there were none.
    """
    detached = adapters_of(model)
    if detached is None:
        return nn.ModuleDict()
    detached.detach()
    if isinstance(model, TransRec):
        model.adapters = nn.ModuleDict()
    else:
        del model.adapters
    return detached
