"""What the formats share: the adapters of the item encoder, and their tensors by the names of a library."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapter4rec.adapters.attaching import add_adapters, detach_adapters, encoder_sites
from adapter4rec.adapters.base import adapters_of
from adapter4rec.adapters.config import PAPER, AdapterConfig, LayerChoice
from adapter4rec.adapters.registry import name_of
from adapter4rec.adapters.sites import Sites
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import mismatches
from adapter4rec.utils.errors import UserError

Model: TypeAlias = TransRec | PreTrainedModel
Names: TypeAlias = dict[str, str]
"""A library's names of tensors by this project's names, such as ``layers.0.query.lora_A``."""


C = TypeVar("C", bound=AdapterConfig)


def item_adapter(
    model: Model, library: str, families: Mapping[str, type[C]], names: Names, folder: Path
) -> tuple[C, dict[str, Tensor], list[str]]:
    """The part of a model's adapters that can be exported to another library.

    Args:
        model: a model with adapters.
        library: name of the library, for messages.
        families: configs of the supported adapter families, by name.
        names: names of the library's tensors.
        folder: output folder.

    Returns:
        The config of the item encoder's adapter, its tensors on the CPU by the library's names, and
        descriptions of trained parameters outside the item encoder.

    Raises:
        UserError: the item encoder has no adapters, their family or semantics is not supported, layer norms
            were trained, or the folder exists.
    """
    if folder.exists():
        raise UserError(f"{folder}: already exists")
    adapters = adapters_of(model)
    if adapters is None or "item" not in adapters:
        raise UserError("the item encoder has no adapters to export")
    config = adapters.config
    family = families.get(name_of(config))
    if family is None or not isinstance(config, family) or config.semantics != PAPER:
        raise UserError(
            f"cannot export {name_of(config)} adapters (--semantics {config.semantics}) to {library}; "
            f"supported families: {', '.join(families)}, with --semantics {PAPER}"
        )
    if config.train_layer_norms:
        raise UserError(f"cannot export trained layer norms: the format of {library} does not include them")
    left_out = ["the item head, which is not part of the encoder"] if config.train_head else []
    if config.train_user_encoder:
        left_out.append("the user encoder, which was trained as a whole")
    if "user" in adapters:
        left_out.append("the user encoder's adapters, since it is not a Hugging Face encoder")
    state = adapters["item"].state_dict()
    tensors = {theirs: state[ours].cpu().contiguous() for ours, theirs in names.items() if ours in state}
    return config, tensors, left_out


def item_sites(model: Model) -> tuple[Sites, PreTrainedModel]:
    """Adapter sites of the item encoder, and the encoder.

    Raises:
        UserError: the item encoder has no backbone.
    """
    sites = encoder_sites(model)
    if "item" not in sites:
        raise UserError("the item encoder has no backbone to add adapters to")
    encoder = sites["item"].encoder
    assert isinstance(encoder, PreTrainedModel)  # the kinds of encoders that have sites
    return sites["item"], encoder


def add_imported(
    model: Model,
    names: Names,
    tensors: Mapping[str, Tensor],
    config_for: Callable[[LayerChoice, tuple[str, ...]], AdapterConfig],
    source: Path,
) -> None:
    """Add adapters with tensors from another library.

    Tensors saved from an enclosing model have its name for the encoder, such as ``bert.``, in their names.

    Args:
        model: a model without adapters.
        names: names of all tensors that adapters of this encoder can have.
        tensors: tensors by the library's names.
        config_for: builds the config from the adapted layers and kinds of sites.
        source: the folder, for error messages.

    Raises:
        UserError: the adapters cannot be added, or the tensors do not match. The model is then unchanged.
    """
    sites, encoder = item_sites(model)
    enclosing = re.compile(rf"\b({encoder.base_model_prefix}|vision_model)\.")
    tensors = {
        name if name in names.values() else enclosing.sub("", name, count=1): tensor
        for name, tensor in tensors.items()
    }
    adapted = [ours.split(".") for ours, theirs in names.items() if theirs in tensors]
    if not adapted:
        raise UserError(f"{source}: no supported adapters; first tensor: {next(iter(tensors), 'none')}")
    numbers = dict.fromkeys(number for _, number, *_ in adapted)
    layers = LayerChoice("all" if len(numbers) == len(sites.layers) else ",".join(numbers))
    kinds = tuple(dict.fromkeys(kind for _, _, kind, *_ in adapted))
    own = add_adapters(model, config_for(layers, kinds))["item"].state_dict()
    expected = {theirs: own[ours] for ours, theirs in names.items() if ours in own}
    if problems := mismatches(expected, tensors):
        detach_adapters(model)
        raise UserError(f"{source}: {len(problems)} tensors do not match; first: {problems[0]}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)
