"""Bottleneck adapters of the item encoder to and from the folders of AdapterHub's library ``adapters``.

A folder is ``adapter_config.json`` and ``pytorch_adapter.bin`` (or ``adapter.safetensors``, which the library
loads on request only). ``adapterhub_options.py`` tells what its options mean.

Only the item encoder has a counterpart there. What else was trained on the target (the user encoder's
adapters, the item head) stays in this project's adapter file.
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
"""Whose format is written."""

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
"""Where the library keeps the adapters of layer N, by kind of encoder; it knows no other kinds."""

_FAMILIES = ("houlsby", "pfeiffer", "houlsby_parallel")
_REASONS = {
    "pfeiffer_after_layernorm": "the adapter's own layer norm adds 1e-6 to the variance here and 1e-5 there",
    "compacter": "the matrices here are not those of the library's PHM layers",
    "lora": "export it for PEFT",
}
"""Why the likeliest others are not among them."""

_LINEAR = {"down": "adapter_down.0", "up": "adapter_up"}


def export_adapterhub(model: Model, folder: Path, name: str = "adapter4rec") -> list[str]:
    """Write the bottleneck adapters of a model's item encoder as a folder for ``load_adapter``.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, with adapters attached.
        folder: is not there yet.
        name: by which the library knows the adapter; letters, digits, ``_`` and ``-``.

    Returns:
        What was trained besides and is not in the folder, in sentences.

    Raises:
        UserError: another family than houlsby, pfeiffer and houlsby_parallel, trained layer norms, a kind of
            encoder that the library does not know, or the folder is there.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"{name!r}: an adapter's name is letters, digits, _ and -")
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
    """Add the bottleneck adapters that a folder of ``save_adapter`` holds to a model's item encoder.

    A constant ``scaling`` goes into the upper projection's weight and bias.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, without adapters.
        folder: as the library saved it, for an encoder of the same kind.

    Raises:
        UserError: an option that has no counterpart here, an encoder of another kind, tensors that lack or do
            not fit, or adapters in the model. The model is then left as it was.
    """
    sites = item_sites(model)
    content = read_options(folder, _LIBRARY, ("config", "name", "model_type", "version"))
    source = folder / OPTIONS
    kind = sites.encoder.config.model_type
    if content["model_type"] != kind:
        raise refusal(source, "model_type", content["model_type"], f"the item encoder is a {kind!r}")
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
            f"{_LIBRARY} knows no adapters of a {kind!r} encoder; it knows those of {', '.join(_PLACES)}"
        )
    return _PLACES[kind]


def _names(sites: Sites, config: BottleneckConfig, name: str) -> dict[str, str]:
    """The library's names of the tensors of an adapter called ``name``, by ours."""
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
    """The folder's tensors; nothing but tensors is unpickled.

    Raises:
        UserError: no file of weights, two, or a damaged one.
    """
    there = [folder / name for name in (WEIGHTS, SAFE_WEIGHTS) if (folder / name).is_file()]
    if len(there) != 1:
        found = "both are there, and may differ" if there else "neither is there"
        raise UserError(f"{folder}: expected {WEIGHTS} or {SAFE_WEIGHTS}; {found}")
    if there[0].name == SAFE_WEIGHTS:
        return read_safetensors(there[0])
    try:
        content = torch.load(there[0], map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{there[0]}: no file that holds tensors alone ({str(error).splitlines()[0]})"
        ) from None
    named = isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(one, Tensor) for name, one in content.items()
    )
    if not named:
        raise UserError(f"{there[0]}: holds something else than named tensors")
    return content
