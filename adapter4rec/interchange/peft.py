"""Export and import of LoRA in the format of Hugging Face PEFT.

A folder contains ``adapter_config.json`` and ``adapter_model.safetensors``. Both implementations compute
W x + b + (alpha / r) B A x, with A ``[r, in]`` and B ``[out, r]``, so their outputs are equal. PEFT does not
have to be installed.

Only adapters of the item encoder are converted. Other parameters trained on the target domain (adapters of
the user encoder, the item head) are stored only in this project's adapter file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from adapter4rec.adapters.config import PROJECTIONS
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.sites import Projection, Sites
from adapter4rec.interchange.common import (
    OPTIONS,
    Model,
    add_imported,
    chosen_layers,
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

WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_READ = ("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "init_lora_weights")
_READ_LAYERS = ("layers_to_transform", "layers_pattern")
_NO_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
)
_SUPPORTED_INIT = (None, True, False, "gaussian", "orthogonal")
"""Initialisations that do not change the weights of the encoder."""


def export_peft(model: Model, folder: Path) -> list[str]:
    """Write the LoRA of the item encoder to a folder for ``PeftModel.from_pretrained``.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, with LoRA attached.
        folder: output folder; must not exist.

    Returns:
        Descriptions of trained parameters that are not exported.

    Raises:
        UserError: adapters other than LoRA, trained layer norms, query and value in a single linear layer, or
            an existing folder.
    """
    half = item_half(model, "PEFT", ("lora",))
    config: LoraConfig = half.config
    paths = _projection_paths(half.sites)
    chosen = [
        paths[int(number), kind] for number in config.layers_of(half.sites) for kind in config.projections
    ]
    tensors = exported(half.adapter, _names(half.sites, config))
    options = _options(config, _targets(chosen, _module_names(half.sites)))
    write_adapter_folder(folder, options, WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
    return half.left_out


def import_peft(model: Model, folder: Path) -> None:
    """Add LoRA saved by PEFT to the item encoder.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, without adapters.
        folder: folder saved by PEFT for an encoder of the same model type.

    Raises:
        UserError: an unsupported option or target module, missing tensors or tensors of the wrong shape, or a
            model that has adapters already. The model is then unchanged.
    """
    sites = item_sites(model)
    options = read_options(folder, "PEFT", ("peft_type",))
    source = folder / OPTIONS
    _check(options, source)
    config = _config(options, _adapted(options, sites, source), len(sites.layers), source)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: {WEIGHTS} not found; save with PEFT's default safe_serialization=True")
    start = _layer_path(sites)
    tensors = {
        _PREFIX + within(name.removeprefix(_PREFIX), start): tensor
        for name, tensor in read_safetensors(folder / WEIGHTS).items()
    }
    add_imported(model, config, _names(sites, config), tensors, folder / WEIGHTS)


def _module_names(sites: Sites) -> dict[int, str]:
    """Names of the encoder's modules by ``id``, without attached adapters."""
    own = {id(module): name for name, module in sites.encoder.named_modules()}
    return {key: name for key, name in own.items() if not f"{name}.".startswith("adapters.")}


def _layer_path(sites: Sites) -> str:
    """Prefix of layer modules, such as ``encoder.layer.``."""
    return _module_names(sites)[id(sites.layers[0].module)].removesuffix("0")


def _projection_paths(sites: Sites) -> dict[tuple[int, str], str]:
    """Names of the linear layers that LoRA can adapt, by layer number and ``query`` or ``value``.

    Raises:
        UserError: a linear layer computes several projections.
    """
    names = _module_names(sites)
    paths = {}
    for number, layer in enumerate(sites.layers):
        for kind in PROJECTIONS:
            projection: Projection = getattr(layer, kind)
            path = f"{names[id(projection.owner)]}.{projection.name}"
            if projection.parts > 1:
                raise UserError(
                    f"{path} computes query, key and value together, but PEFT adapts whole linear layers: "
                    f"LoRA of {sites.encoder.config.model_type} encoders cannot be converted"
                )
            paths[number, kind] = path
    return paths


def _names(sites: Sites, config: LoraConfig) -> dict[str, str]:
    """PEFT's names of an adapter's tensors, by this project's names."""
    paths = _projection_paths(sites)
    return {
        f"layers.{number}.{kind}.{factor}": f"{_PREFIX}{paths[int(number), kind]}.{factor}.weight"
        for number in config.layers_of(sites)
        for kind in config.projections
        for factor in ("lora_A", "lora_B")
    }


def _targets(chosen: list[str], modules: Mapping[int, str]) -> list[str]:
    """PEFT's ``target_modules``: the last parts of module names if unambiguous, else full names."""
    short = sorted({path.rpartition(".")[2] for path in chosen})
    found = {name for name in modules.values() if name.rpartition(".")[2] in short}
    return short if found == set(chosen) else sorted(chosen)


def _options(config: LoraConfig, targets: list[str]) -> dict[str, Any]:
    alpha = config.lora_alpha
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": config.item_rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }


def _check(options: Mapping[str, Any], source: Path) -> None:
    """Raise a UserError for missing or unsupported options."""
    if options["peft_type"] != "LORA":
        raise refusal(source, "peft_type", options["peft_type"], "only LORA is supported")
    if missing := [name for name in ("r", "lora_alpha", "target_modules") if name not in options]:
        raise UserError(f"{source}: damaged ({', '.join(missing)} missing)")
    if options.get("bias", "none") != "none":
        raise refusal(source, "bias", options["bias"], "training of biases is not supported")
    if options.get("init_lora_weights") not in _SUPPORTED_INIT:
        init = options["init_lora_weights"]
        raise refusal(source, "init_lora_weights", init, "it may change the weights of the encoder")
    for name, value in options.items():
        if value and name not in (*_READ, *_READ_LAYERS, *_NO_EFFECT):
            raise refusal(source, name, value, "not supported")


def _adapted(options: Mapping[str, Any], sites: Sites, source: Path) -> list[tuple[int, str]]:
    """The projections that PEFT's options select, as layer number and ``query`` or ``value``.

    Raises:
        UserError: the options select nothing, or other modules.
    """
    paths = _projection_paths(sites)
    keys = {path: key for key, path in paths.items()}
    found = list(_targeted(options, sites, source))
    last = " and ".join(dict.fromkeys(path.rpartition(".")[2] for path in paths.values()))
    supported = f"only query and value projections are supported ({last} in this encoder)"
    if not found or (others := [path for path in found if path not in keys]):
        why = f"selects {others[0]}" if found else "selects no module"
        raise refusal(source, "target_modules", options["target_modules"], f"{why}; {supported}")
    return sorted(keys[path] for path in found)


def _targeted(options: Mapping[str, Any], sites: Sites, source: Path) -> Iterator[str]:
    """Names of the encoder's modules that PEFT adapts with these options."""
    targets, start = options["target_modules"], _layer_path(sites)
    chosen = _numbers(options, start, source)
    if isinstance(targets, str):
        try:
            yield from (name for name in _module_names(sites).values() if re.fullmatch(targets, name))
        except re.error:
            raise refusal(source, "target_modules", targets, "not a regular expression") from None
        return
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise refusal(source, "target_modules", targets, "expected module names or a regular expression")
    in_full = {within(target, start) for target in targets}
    endings = tuple(f".{target}" for target in targets)
    for name in _module_names(sites).values():
        number = re.match(re.escape(start) + r"(\d+)\.", name)
        if name in in_full or (
            name.endswith(endings) and (chosen is None or (number and int(number[1]) in chosen))
        ):
            yield name


def _numbers(options: Mapping[str, Any], start: str, source: Path) -> list[int] | None:
    """Layer numbers in ``layers_to_transform``; None for all."""
    chosen, patterns = options.get("layers_to_transform"), options.get("layers_pattern")
    if patterns and start.split(".")[-2] not in ([patterns] if isinstance(patterns, str) else patterns):
        raise refusal(
            source, "layers_pattern", patterns, f"the layers of this encoder are {start}0, {start}1, …"
        )
    if chosen is None or chosen == []:
        return None
    numbers = chosen if isinstance(chosen, list) else [chosen]
    if not all(isinstance(number, int) for number in numbers):
        raise refusal(source, "layers_to_transform", chosen, "expected layer numbers")
    return numbers


def _config(
    options: Mapping[str, Any], adapted: list[tuple[int, str]], count: int, source: Path
) -> LoraConfig:
    """The LoRA config equivalent to PEFT's options.

    Args:
        options: PEFT's options.
        adapted: adapted projections, as layer number and ``query`` or ``value``.
        count: number of layers of the encoder.
        source: path of the options, for error messages.

    Raises:
        UserError: the adapted projections differ between layers, or a value is invalid.
    """
    numbers = sorted({number for number, _ in adapted})
    projections = tuple(kind for kind in PROJECTIONS if (numbers[0], kind) in adapted)
    if set(adapted) != {(number, kind) for number in numbers for kind in projections}:
        raise UserError(f"{source}: adapting different projections in different layers is not supported")
    return LoraConfig(
        encoders=("item",),
        item_layers=chosen_layers(numbers, count),
        projections=projections,
        item_rank=options["r"],
        lora_alpha=options["lora_alpha"],
        lora_dropout=options.get("lora_dropout", 0.0),
    )
