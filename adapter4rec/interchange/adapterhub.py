"""Export and import of bottleneck adapters in the format of AdapterHub's library ``adapters``.

A folder contains ``adapter_config.json`` and ``pytorch_adapter.bin`` (or ``adapter.safetensors``, which the
library loads on request only). See ``adapterhub_options.py`` for the meaning of the options.

Only adapters of the item encoder are converted. Other parameters trained on the target domain (adapters of
the user encoder, the item head) are stored only in this project's adapter file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.config import ATTENTION, FEED_FORWARD
from adapter4rec.adapters.sites import Sites
from adapter4rec.interchange.adapterhub_options import checked_options, config_of, written_options
from adapter4rec.interchange.common import (
    OPTIONS,
    Model,
    add_imported,
    exported,
    item_half,
    item_sites,
    read_options,
    read_safetensors,
    refusal,
    within,
    write_adapter_folder,
)
from adapter4rec.utils.errors import UserError

WEIGHTS = "pytorch_adapter.bin"
SAFE_WEIGHTS = "adapter.safetensors"

_LIBRARY = "AdapterHub"
_VERSION = "adapters.1.3.0"
"""Version of the library whose format is written."""

_BERT = {ATTENTION: "encoder.layer.{}.attention.output", FEED_FORWARD: "encoder.layer.{}.output"}
_PLACES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "vit": {
        ATTENTION: "encoder.layer.{}.attention_adapters",
        FEED_FORWARD: "encoder.layer.{}.output.output_adapters",
    },
    "clip_vision_model": {
        ATTENTION: "vision_model.encoder.layers.{}.attention_adapters",
        FEED_FORWARD: "vision_model.encoder.layers.{}.output_adapters",
    },
}
"""Module of the adapters of layer N in the library, by model type of the encoder and sublayer."""

_FAMILIES = ("houlsby", "pfeiffer", "houlsby_parallel")
_REASONS = {
    "pfeiffer_after_layernorm": "its layer norm has epsilon 1e-6, that of the library 1e-5",
    "compacter": "its parametrisation differs from the library's PHM layers",
    "lora": "export it to PEFT instead",
}
"""Reasons why other families are not supported."""

_LINEAR = {"down": "adapter_down.0", "up": "adapter_up"}


def export_adapterhub(model: Model, folder: Path, name: str = "adapter4rec") -> list[str]:
    """Write the bottleneck adapters of the item encoder to a folder for the library's ``load_adapter``.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, with adapters attached.
        folder: output folder; must not exist.
        name: name of the adapter in the library; letters, digits, ``_`` and ``-``.

    Returns:
        Descriptions of trained parameters that are not exported.

    Raises:
        UserError: a family other than houlsby, pfeiffer and houlsby_parallel, trained layer norms, a model
            type that the library does not support, or an existing folder.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"invalid adapter name {name!r}: only letters, digits, _ and - are allowed")
    half = item_half(model, _LIBRARY, _FAMILIES, _REASONS)
    config: BottleneckConfig = half.config
    tensors = exported(half.adapter, _names(half.sites, config, name))
    backbone = half.sites.encoder
    options = {
        "config": written_options(config, half.sites),
        "hidden_size": half.sites.width,
        "model_class": type(backbone).__name__,
        "model_name": "",
        "model_type": backbone.config.model_type,
        "name": name,
        "version": _VERSION,
    }
    write_adapter_folder(folder, options, WEIGHTS, lambda path: torch.save(tensors, path))
    return half.left_out


def import_adapterhub(model: Model, folder: Path) -> None:
    """Add bottleneck adapters saved by the library's ``save_adapter`` to the item encoder.

    A constant ``scaling`` is multiplied into weight and bias of the up-projection.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, without adapters.
        folder: folder saved by the library for an encoder of the same model type.

    Raises:
        UserError: an unsupported option, another model type, missing tensors or tensors of the wrong shape,
            or a model that has adapters already. The model is then unchanged.
    """
    sites = item_sites(model)
    content = read_options(folder, _LIBRARY, ("config", "name", "model_type", "version"))
    source = folder / OPTIONS
    kind = sites.encoder.config.model_type
    if content["model_type"] != kind:
        raise refusal(source, "model_type", content["model_type"], f"the item encoder is {kind!r}")
    options = checked_options(content["config"], source)
    config = config_of(options, sites, source)
    start = _places(sites)[ATTENTION].partition("{")[0]
    tensors = {within(name, start): tensor for name, tensor in _read_tensors(folder).items()}
    scaled = {
        name: tensor * options["scaling"] if f".{_LINEAR['up']}." in name else tensor
        for name, tensor in tensors.items()
    }
    add_imported(model, config, _names(sites, config, content["name"]), scaled, folder)


def _places(sites: Sites) -> Mapping[str, str]:
    kind = sites.encoder.config.model_type
    if kind not in _PLACES:
        raise UserError(
            f"{_LIBRARY} does not support adapters of {kind!r} encoders, only of {', '.join(_PLACES)}"
        )
    return _PLACES[kind]


def _names(sites: Sites, config: BottleneckConfig, name: str) -> dict[str, str]:
    """Names of the tensors of an adapter in the library, by this project's names."""
    places = _places(sites)
    return {
        f"layers.{number}.{sublayer}.{ours}.{field}": (
            f"{places[sublayer].format(number)}.adapters.{name}.{theirs}.{field}"
        )
        for number in config.layers_of(sites)
        for sublayer in config.sublayers
        for ours, theirs in _LINEAR.items()
        for field in ("weight", "bias")
    }


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of a folder, without unpickling other objects.

    Raises:
        UserError: no weights file, two of them, or a damaged one.
    """
    files = [folder / name for name in (WEIGHTS, SAFE_WEIGHTS) if (folder / name).is_file()]
    if len(files) != 1:
        found = "found both" if files else "found neither"
        raise UserError(f"{folder}: expected {WEIGHTS} or {SAFE_WEIGHTS}, {found}")
    if files[0].name == SAFE_WEIGHTS:
        return read_safetensors(files[0])
    try:
        content = torch.load(files[0], map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{files[0]}: damaged, or contains objects other than tensors ({str(error).splitlines()[0]})"
        ) from None
    named = isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(one, Tensor) for name, one in content.items()
    )
    if not named:
        raise UserError(f"{files[0]}: expected a dict of named tensors")
    return content
