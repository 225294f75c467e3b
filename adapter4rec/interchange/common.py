"""Helpers shared by the formats: adapters of the item encoder, and reading and writing adapter folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from adapter4rec.adapters.attaching import add_adapters, detach_adapters, encoder_sites
from adapter4rec.adapters.base import Adapter, adapters_of
from adapter4rec.adapters.config import PAPER, AdapterConfig, LayerChoice
from adapter4rec.adapters.registry import name_of
from adapter4rec.adapters.sites import Sites
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import mismatches
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_folder, read_json, write_json

Model = TransRec | PreTrainedModel
OPTIONS = "adapter_config.json"
"""File name of the options, in both libraries."""


@dataclass(frozen=True)
class ItemHalf:
    """The adapters of a model's item encoder.

    Attributes:
        adapter: the attached adapter.
        config: its config.
        sites: adapter sites of the encoder.
        left_out: descriptions of trained parameters outside the item encoder.
    """

    adapter: Adapter
    config: AdapterConfig
    sites: Sites
    left_out: list[str]


def item_half(
    model: Model, library: str, families: tuple[str, ...], reasons: Mapping[str, str] | None = None
) -> ItemHalf:
    """The part of a model's adapters that can be exported to another library.

    Args:
        model: a model with adapters.
        library: name of the library, for messages.
        families: supported adapter families.
        reasons: reasons why other families are not supported.

    Raises:
        UserError: the item encoder has no adapters, their family is not supported, or layer norms were
            trained.
    """
    adapters = adapters_of(model)
    if adapters is None or "item" not in adapters:
        raise UserError("the item encoder has no adapters to export")
    config = adapters.config
    name = name_of(config)
    if name not in families:
        why = f": {reasons[name]}" if reasons and name in reasons else ""
        supported = ", ".join(families)
        raise UserError(f"cannot export {name} adapters to {library}{why}; supported families: {supported}")
    if config.semantics != PAPER:
        raise UserError(f"cannot export adapters with --semantics {config.semantics} to {library}")
    if config.train_layer_norms:
        raise UserError(
            f"cannot export to {library}: layer norms were trained along with the adapters, and the format "
            "does not include them"
        )
    left_out = ["the item head, which is not part of the encoder"] if config.train_head else []
    if "user" in adapters:
        left_out.append("the user encoder's adapters, since it is not a Hugging Face encoder")
    return ItemHalf(adapters["item"], config, encoder_sites(model)["item"], left_out)


def item_sites(model: Model) -> Sites:
    """Adapter sites of the item encoder.

    Raises:
        UserError: the item encoder has no backbone, or an unsupported one.
    """
    sites = encoder_sites(model)
    if "item" not in sites:
        raise UserError("the item encoder has no backbone to add adapters to")
    return sites["item"]


def chosen_layers(numbers: list[int], count: int) -> LayerChoice:
    """A layer choice from ascending layer numbers, for an encoder with ``count`` layers."""
    return LayerChoice("all" if numbers == list(range(count)) else ",".join(map(str, numbers)))


def within(name: str, start: str) -> str:
    """Remove the prefix of an enclosing model from a module name.

    For example, adapters saved from ``BertForMaskedLM`` have the prefix ``bert.``.

    Args:
        name: the module name.
        start: how names within the encoder start.
    """
    _, _, rest = name.partition(".")
    return rest if rest.startswith(start) and not name.startswith(start) else name


def exported(adapter: Adapter, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors of an adapter on the CPU, by their names in another library.

    Args:
        adapter: adapter of the item encoder.
        names: the library's names by this project's names.
    """
    own = adapter.state_dict()
    return {theirs: own[ours].detach().cpu().contiguous() for ours, theirs in names.items()}


def add_imported(
    model: Model, config: AdapterConfig, names: Mapping[str, str], tensors: Mapping[str, Tensor], source: Path
) -> None:
    """Add adapters with tensors from another library.

    Args:
        model: a model without adapters.
        config: config of the adapters.
        names: the library's names by this project's names.
        tensors: tensors by the library's names.
        source: path of the tensors, for error messages.

    Raises:
        UserError: the adapters cannot be added, or the tensors do not match. The model is then unchanged.
    """
    own = add_adapters(model, config)["item"].state_dict()
    expected = {theirs: own[ours] for ours, theirs in names.items()}
    if problems := mismatches(expected, tensors):
        detach_adapters(model)
        raise UserError(f"{source}: {len(problems)} tensors do not match; first: {problems[0]}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)


def write_adapter_folder(
    folder: Path, options: Mapping[str, Any], weights: str, save: Callable[[Path], None]
) -> None:
    """Write a folder of options and weights atomically.

    Args:
        folder: output folder; must not exist.
        options: content of ``adapter_config.json``.
        weights: file name of the weights.
        save: writes the weights to a path.

    Raises:
        UserError: the folder exists already.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists; choose another folder")
    with atomic_folder(folder) as aside:
        write_json(aside / OPTIONS, options)
        save(aside / weights)


def read_options(folder: Path, library: str, required: tuple[str, ...]) -> dict[str, Any]:
    """Read ``adapter_config.json``.

    Raises:
        UserError: the file is missing, damaged, or lacks a required key.
    """
    path = folder / OPTIONS
    if not path.is_file():
        raise UserError(f"{folder}: not an adapter folder saved by {library} ({OPTIONS} not found)")
    return read_json(path, required)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        UserError: the file is not a complete safetensors file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a complete safetensors file ({error})") from None


def refusal(path: Path, option: str, value: Any, why: str) -> UserError:
    """The error for an unsupported option of another library."""
    return UserError(f"{path}: {option} is {value!r}: {why}")
