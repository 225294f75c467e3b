"""What the formats share: the item encoder's half of a model's adapters, and folders of them."""

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
from adapter4rec.models.weights import misfits
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import read_json, whole_folder, write_json

Model = TransRec | PreTrainedModel
OPTIONS = "adapter_config.json"
"""Both neighbours call the file of options so."""


@dataclass(frozen=True)
class ItemHalf:
    """The adapters of a model's item encoder.

    Attributes:
        adapter: the attached adapter.
        config: that it was built by.
        sites: the places of its encoder.
        left_out: what else was trained with it and is no part of the item encoder, in sentences.
    """

    adapter: Adapter
    config: AdapterConfig
    sites: Sites
    left_out: list[str]


def item_half(
    model: Model, library: str, families: tuple[str, ...], reasons: Mapping[str, str] | None = None
) -> ItemHalf:
    """The half of a model's adapters that ``library`` can hold.

    Args:
        model: with adapters.
        library: its name, for messages.
        families: the families of adapters that it has a counterpart of.
        reasons: why it has none of another, for some.

    Raises:
        UserError: the item encoder has no adapters, they are of another family, or layer norms are trained.
    """
    adapters = adapters_of(model)
    if adapters is None or "item" not in adapters:
        raise UserError("the item encoder has no adapters to export")
    config = adapters.config
    name = name_of(config)
    if name not in families:
        why = f": {reasons[name]}" if reasons and name in reasons else ""
        held = ", ".join(families)
        raise UserError(f"{library} has no counterpart of {name} adapters{why}; it can hold {held}")
    if config.semantics != PAPER:
        raise UserError(f"{library} computes what the adapter's paper describes, not --semantics release")
    if config.train_layer_norms:
        raise UserError(
            f"layer norms were trained with the adapters, and the adapters of {library} hold none: "
            "the encoder would not compute the same without them"
        )
    left_out = ["the item head is trained, and no part of the encoder"] if config.train_head else []
    if "user" in adapters:
        left_out.append("the user encoder has adapters, and is no Hugging Face encoder")
    return ItemHalf(adapters["item"], config, encoder_sites(model)["item"], left_out)


def item_sites(model: Model) -> Sites:
    """The places of the item encoder.

    Raises:
        UserError: it has no backbone, or one whose places are not known.
    """
    sites = encoder_sites(model)
    if "item" not in sites:
        raise UserError("the item encoder has no backbone to adapt")
    return sites["item"]


def chosen_layers(numbers: list[int], count: int) -> LayerChoice:
    """Layers by their ascending numbers, as an option's value."""
    return LayerChoice("all" if numbers == list(range(count)) else ",".join(map(str, numbers)))


def within(name: str, start: str) -> str:
    """A module's name without the one model around the encoder, whose own names begin with ``start``.

    A library that saw the encoder inside ``BertForMaskedLM`` puts ``bert.`` before its names.
    """
    _, _, rest = name.partition(".")
    return rest if rest.startswith(start) and not name.startswith(start) else name


def exported(adapter: Adapter, names: Mapping[str, str]) -> dict[str, Tensor]:
    """An adapter's tensors, on the CPU, by their names in the other library.

    Args:
        adapter: the item encoder's.
        names: theirs by ours.
    """
    own = adapter.state_dict()
    return {theirs: own[ours].detach().cpu().contiguous() for ours, theirs in names.items()}


def add_imported(
    model: Model, config: AdapterConfig, names: Mapping[str, str], tensors: Mapping[str, Tensor], source: Path
) -> None:
    """Add adapters whose tensors come from another library.

    Args:
        model: without adapters.
        config: of the adapters.
        names: theirs by ours.
        tensors: by their names.
        source: where the tensors are from, for messages.

    Raises:
        UserError: the adapters cannot be added, or the tensors are not theirs; the model is then left as it
            was.
    """
    own = add_adapters(model, config)["item"].state_dict()
    expected = {theirs: own[ours] for ours, theirs in names.items()}
    if trouble := misfits(expected, tensors):
        detach_adapters(model)
        raise UserError(f"{source}: {len(trouble)} tensors do not fit, the first is {trouble[0]}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)


def write_adapter_folder(
    folder: Path, options: Mapping[str, Any], weights: str, save: Callable[[Path], None]
) -> None:
    """Write a folder of options and tensors, whole or not at all.

    Args:
        folder: is not there yet.
        options: go to ``adapter_config.json``.
        weights: name of the other file.
        save: writes it at the path that it is given.

    Raises:
        UserError: the folder is there.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already; name a folder that is not")
    with whole_folder(folder) as aside:
        write_json(aside / OPTIONS, options)
        save(aside / weights)


def read_options(folder: Path, library: str, required: tuple[str, ...]) -> dict[str, Any]:
    """What ``adapter_config.json`` says.

    Raises:
        UserError: it is missing, damaged, or lacks one of the ``required`` keys.
    """
    path = folder / OPTIONS
    if not path.is_file():
        raise UserError(f"{folder}: no folder of adapters that {library} saved ({OPTIONS} is not there)")
    return read_json(path, required)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        UserError: it is no whole safetensors file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error})") from None


def refusal(path: Path, option: str, value: Any, why: str) -> UserError:
    """The error for an option of the other library that has no counterpart here."""
    return UserError(f"{path}: {option} is {value!r}: {why}")
