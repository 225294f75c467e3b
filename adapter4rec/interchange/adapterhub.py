"""Export and import of bottleneck adapters in the format of AdapterHub's library ``adapters``.

A folder contains ``adapter_config.json`` and ``pytorch_adapter.bin`` (or ``adapter.safetensors``, which the
library loads on request only). The library does not have to be installed.

For a sublayer f of an encoder and a bottleneck a, the library computes:

- ``original_ln_before`` false: a reads y = f(x), and y + a(y) replaces y. This is houlsby and pfeiffer. True:
  a reads the sum x + y, after the layer norm in post-norm encoders.
- ``is_parallel``: a reads x, and y + scaling · a(x) replaces y. This is houlsby_parallel.
- ``original_ln_after`` true: the residual and the layer norm of the encoder follow, as without adapters.
- ``residual_before_ln`` and ``adapter_residual_before_ln`` have no effect if ``original_ln_before``,
  ``ln_before`` and ``ln_after`` are false.

Only adapters of the item encoder are converted. Other parameters trained on the target domain (adapters of
the user encoder, the item head) are stored only in this project's adapter file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapter4rec.adapters.config import ATTENTION, FEED_FORWARD, SUBLAYERS, LayerChoice
from adapter4rec.adapters.houlsby import HoulsbyConfig, HoulsbyParallelConfig
from adapter4rec.adapters.pfeiffer import PfeifferConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.interchange.common import Model, Names, add_imported, item_adapter, item_sites
from adapter4rec.models.weights import read_tensors
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import atomic_folder, write_json
from adapter4rec.utils.records import Object, read_record

OPTIONS = "adapter_config.json"
WEIGHTS = "pytorch_adapter.bin"
SAFE_WEIGHTS = "adapter.safetensors"

_BERT = ("encoder.layer.{}.attention.output", "encoder.layer.{}.output")
_PLACES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "vit": ("encoder.layer.{}.attention_adapters", "encoder.layer.{}.output.output_adapters"),
    "clip_vision_model": (
        "vision_model.encoder.layers.{}.attention_adapters",
        "vision_model.encoder.layers.{}.output_adapters",
    ),
}
"""Modules of the library with the attention and feed-forward adapters of layer N, by model type."""

_FAMILIES: dict[str, type[HoulsbyConfig]] = {
    "houlsby": HoulsbyConfig,
    "pfeiffer": PfeifferConfig,
    "houlsby_parallel": HoulsbyParallelConfig,
}

_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "swish": "silu",
    "silu": "silu",
    "tanh": "tanh",
    "linear": "none",
}
"""This project's name by the library's name. On export, the first of several names is written."""

_NEEDED = {
    "original_ln_after": True,
    "ln_before": False,
    "ln_after": False,
    "use_gating": False,
    "inv_adapter": None,
    "cross_adapter": False,
    "phm_layer": False,
    "stochastic_depth": 0.0,
}
"""Options with a required value, which is also the library's default; other options are ignored."""


@dataclass(frozen=True)
class _Description:
    """What of ``adapter_config.json`` is read."""

    config: Object | None
    name: str
    model_type: str


def export_adapterhub(model: Model, folder: Path, name: str = "adapter4rec") -> list[str]:
    """Write the bottleneck adapters of the item encoder to a folder for the library's ``load_adapter``.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, with adapters attached.
        folder: output folder; must not exist.
        name: name of the adapter in the library.

    Returns:
        Descriptions of trained parameters that are not exported.

    Raises:
        UserError: a family other than houlsby, pfeiffer and houlsby_parallel, trained layer norms, a model
            type that the library does not support, or an existing folder.
    """
    sites, encoder = item_sites(model)
    kind = encoder.config.model_type
    config, tensors, left_out = item_adapter(
        model, "AdapterHub", _FAMILIES, _names(sites, kind, name), folder
    )
    description = {
        "config": _options(config, sites),
        "hidden_size": sites.width,
        "model_class": type(encoder).__name__,
        "model_name": "",
        "model_type": kind,
        "name": name,
        "version": "adapters.1.3.0",  # the library whose format is written
    }
    with atomic_folder(folder) as aside:
        write_json(aside / OPTIONS, description)
        torch.save(tensors, aside / WEIGHTS)
    return left_out


def import_adapterhub(model: Model, folder: Path) -> None:
    """Add bottleneck adapters saved by the library's ``save_adapter`` to the item encoder.

    The tensors determine the layers, the sublayers and the bottleneck width. A constant ``scaling`` is
    multiplied into weight and bias of the up-projection.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, without adapters.
        folder: folder saved by the library for an encoder of the same model type.

    Raises:
        UserError: an unsupported option, another model type, missing tensors or tensors of the wrong shape,
            or a model that has adapters already. The model is then unchanged.
    """
    sites, encoder = item_sites(model)
    path = folder / OPTIONS
    if not path.exists():
        raise UserError(f"{folder}: not an adapter folder of AdapterHub ({OPTIONS} not found)")
    description = read_record(path, _Description)
    kind = encoder.config.model_type
    if description.model_type != kind:
        raise UserError(f"{path}: model_type is {description.model_type!r}; the item encoder is {kind!r}")
    options = _supported_options(description.config, path)
    weights = folder / (WEIGHTS if (folder / WEIGHTS).is_file() else SAFE_WEIGHTS)
    tensors = {
        name: tensor * options["scaling"] if ".adapter_up." in name else tensor
        for name, tensor in read_tensors(weights).items()
    }
    widths = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".adapter_down.0.weight")}
    if len(widths) != 1:
        raise UserError(f"{folder}: bottleneck widths {sorted(widths)}; only one width is supported")

    def config_for(layers: LayerChoice, sublayers: tuple[str, ...]) -> HoulsbyConfig:
        serial = "houlsby" if sublayers == SUBLAYERS else "pfeiffer"
        return _FAMILIES["houlsby_parallel" if options["is_parallel"] else serial](
            encoders=("item",),
            item_layers=layers,
            sublayers=sublayers,
            item_bottleneck=widths.pop(),
            adapter_activation=_ACTIVATIONS[options["non_linearity"]],
            adapter_dropout=options["dropout"],
        )

    add_imported(model, _names(sites, kind, description.name), tensors, config_for, folder)


def _names(sites: Sites, kind: str, name: str) -> Names:
    """The library's names of the tensors of adapter ``name`` in every sublayer."""
    if kind not in _PLACES:
        raise UserError(
            f"AdapterHub does not support adapters of {kind!r} encoders, only of {', '.join(_PLACES)}"
        )
    return {
        f"layers.{number}.{sublayer}.{ours}.{field}": (
            f"{place.format(number)}.adapters.{name}.{theirs}.{field}"
        )
        for number in range(len(sites.layers))
        for sublayer, place in zip(SUBLAYERS, _PLACES[kind], strict=True)
        for ours, theirs in (("down", "adapter_down.0"), ("up", "adapter_up"))
        for field in ("weight", "bias")
    }


def _options(config: HoulsbyConfig, sites: Sites) -> dict[str, Any]:
    """Options with which the library computes the same as an adapter config."""
    chosen = config.layers_of(sites)
    theirs = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}
    bottleneck = config.bottleneck_of(sites)
    factor = sites.width / bottleneck
    if int(sites.width // factor) != bottleneck:  # the library rounds h / factor down
        factor = sites.width / (bottleneck + 0.5)
    return {
        "mh_adapter": ATTENTION in config.sublayers,
        "output_adapter": FEED_FORWARD in config.sublayers,
        "reduction_factor": factor,
        "non_linearity": theirs[config.adapter_activation],
        "original_ln_before": False,
        "is_parallel": isinstance(config, HoulsbyParallelConfig),
        "dropout": config.adapter_dropout,
        "leave_out": [number for number in range(len(sites.layers)) if str(number) not in chosen],
        **_NEEDED,
    }


def _supported_options(options: Object | None, path: Path) -> dict[str, Any]:
    """The options of an adapter, with defaults.

    Raises:
        UserError: options of another method, or an unsupported one.
    """
    if options is None or options.get("architecture") is not None:
        raise UserError(f"{path}: only bottleneck adapters are supported")
    read = {**_NEEDED, "original_ln_before": False, "is_parallel": False, "dropout": 0.0, **options}
    needed = _NEEDED if read["is_parallel"] else {**_NEEDED, "original_ln_before": False}
    for name, value in needed.items():
        if read[name] != value and (read[name] or value):
            raise UserError(f"{path}: {name} is {read[name]!r}; only {value!r} is supported")
    if not isinstance(read.setdefault("scaling", 1.0), int | float):
        raise UserError(f"{path}: scaling is {read['scaling']!r}; only a number is supported")
    read["non_linearity"] = str(read.get("non_linearity")).lower()
    if read["non_linearity"] not in _ACTIVATIONS:
        raise UserError(f"{path}: non_linearity {nearest(read['non_linearity'], list(_ACTIVATIONS))}")
    return read
