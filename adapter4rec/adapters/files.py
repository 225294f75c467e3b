"""Adapter files: everything that was trained on a target, without the source model.

``NAME.safetensors`` holds the tensors. Its header, and ``NAME.json`` in the same folder, describe them: the
family, its config, the identity of the source model, and versions of libraries. Any number of adapter files
can share one source model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor

from adapter4rec.adapters.attaching import (
    add_adapters,
    base_groups_of,
    copied_parameters,
    detach_adapters,
)
from adapter4rec.adapters.base import AdapterSet, adapters_of
from adapter4rec.adapters.config import ENCODERS, AdapterConfig
from adapter4rec.adapters.registry import FAMILIES, name_of
from adapter4rec.models.backbones import describe_config
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.parts import BACKBONE, FIXED, USER_ENCODER
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import largest_size, load_into
from adapter4rec.utils.checkpoint_file import Checkpoint, read_checkpoint, weights_hash, write_checkpoint
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.records import Object, checked_in, read_record
from adapter4rec.utils.settings import options_of
from adapter4rec.utils.versions import versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WHAT = "adapter"


_SMALL = 1024
"""Integers of a config that need no check, as they allocate little; some are no sizes."""
_REPLACED = ""
"""The hash of a part of which the adapters replace all parameters."""


class _Part(TypedDict):
    kind: str
    weights: str


@dataclass(frozen=True)
class _Description:
    """What of an adapter file's description is read."""

    family: str
    config: Object
    base: dict[str, _Part]


class OtherModelError(UserError):
    """Adapters were trained on another model than the one that they are loaded on.

    Attributes:
        differences: the parts that differ, one line each.
    """

    def __init__(self, path: Path | str, differences: list[str]) -> None:
        listed = "\n  ".join(["these adapters were trained on another model:", *differences])
        super().__init__(f"{path}: {listed}\n--force (force=True) loads them anyway")
        self.differences = differences


def save_adapter(
    model: TransRec | PreTrainedModel, path: Path | str, about: Mapping[str, Any] | None = None
) -> None:
    """Write the model's adapters, with everything else that was trained with them.

    Args:
        model: with adapters.
        path: a ``.safetensors`` file; a ``.json`` file of the same name is written next to it, and for a
            method of PEFT a folder ``NAME_peft`` that PEFT loads.
        about: further entries of the description.

    Raises:
        UserError: the model has no adapters, the file name does not end in ``.safetensors``, or the ``.json``
            file is not that of a checkpoint.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: the name of an adapter file ends in .safetensors")
    adapters = adapters_of(model)
    if adapters is None:
        raise UserError(f"{path}: the model has no adapters to save")
    beside = path.with_suffix(".json")
    if beside.exists() and "what" not in read_record(beside, Object):
        raise UserError(
            f"{path}: would overwrite {beside.name}, which describes no checkpoint; choose another"
        )
    tensors = adapter_tensors(model)
    description = {
        "what": WHAT,
        "family": name_of(adapters.config),
        "config": adapters.config.plain(),
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "base": _required_base(model),
        "versions": versions(),
    }
    write_checkpoint(path, tensors, description | dict(about or {}))
    for adapter in adapters.by_name.values():
        adapter.save_native(path.with_name(f"{path.stem}_peft"))


def load_adapter(model: TransRec | PreTrainedModel, path: Path | str, *, force: bool = False) -> AdapterSet:
    """Add the adapters of a file to the model that they were trained on.

    Adapters that the model has are detached first, so this switches between adapters on one model. The
    model's own weights are neither read nor changed.

    Args:
        model: the model that the adapters were saved from, or an equal one. Parts that they replace, such
            as a head that was trained with them, may have other weights.
        path: the adapter file.
        force: load them on another model, too, if all shapes match.

    Returns:
        ``model.adapters``.

    Raises:
        UserError: not an adapter file, or one of another model; the message lists the differences. The model
            keeps the adapters that it has, unless the config or the tensors do not fit: then it has none.
    """
    checkpoint = read_adapter(Path(path))
    description = checked_in(Path(path), checkpoint.description, _Description)
    family = description.family
    if family not in FAMILIES:
        raise UserError(
            f"{path}: unknown adapter family {family!r}; known are {', '.join(FAMILIES)} "
            "(register an own family before loading its files)"
        )
    try:
        config = FAMILIES[family].from_values(description.config)
    except UserError as error:
        raise UserError(f"{path}: the config of its adapters is not valid: {error}") from None
    _require_sizes(config, checkpoint)
    trouble = _differences(description.base, base_identity(model))
    if trouble and not force:
        raise OtherModelError(path, trouble)
    detach_adapters(model)
    try:
        adapters = add_adapters(model, config)
        load_into(model, checkpoint.tensors, Path("the adapter"), adapter_tensors(model))
    except UserError as error:
        detach_adapters(model)
        raise UserError(f"{path}: {error}") from None
    return adapters


def _require_sizes(config: AdapterConfig, checkpoint: Checkpoint) -> None:
    """Refuse a width or rank that no tensor of the file has, before memory is allocated for it.

    Raises:
        UserError: an integer of the config is larger than all dimensions and than 1,024, and not its default.
    """
    usual, most = options_of(type(config)), max(largest_size(checkpoint.tensors), _SMALL)
    unused = tuple(f"{role}_" for role in ENCODERS if role not in config.encoders)
    for name, value in config.plain().items():
        if name.startswith(unused):
            continue
        if isinstance(value, int) and value > most and value != usual[name].default:
            raise UserError(
                f"{checkpoint.path}: {name} is {value}; its tensors have at most {most} rows or columns"
            )


def adapter_tensors(model: TransRec | PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers of a model's adapters, by their names in the model."""
    adapters = adapters_of(model)
    return {} if adapters is None else adapters.state_dict(prefix="adapters.")


def read_adapter(path: Path) -> Checkpoint:
    """Read an adapter file.

    Raises:
        UserError: missing, damaged, or not an adapter file.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.description["what"] != WHAT:
        raise UserError(f"{path}: holds {checkpoint.description['what']!r}, not an {WHAT}")
    return checkpoint


def base_identity(model: TransRec | PreTrainedModel) -> dict[str, _Part]:
    """Identity of a model without its adapters: kind and hash of the weights of each part."""
    parts = _base_of(model)
    parts.get(BACKBONE, {}).update(parts.pop(FIXED, {}))
    kinds = _kinds(model)
    identity: dict[str, _Part] = {}
    for part, tensors in parts.items():
        types = " and ".join(sorted({str(one.dtype).removeprefix("torch.") for one in tensors.values()}))
        identity[part] = {"kind": f"{kinds[part]}, {types}", "weights": weights_hash(tensors)}
    return identity


def _base_of(model: TransRec | PreTrainedModel) -> dict[str, dict[str, Tensor]]:
    """The parameters of a model without its adapters and its loss, which may be another one."""
    return {
        group: {name: one for name, one in parameters.items() if not name.startswith("loss.")}
        for group, parameters in base_groups_of(model).items()
    }


def _required_base(model: TransRec | PreTrainedModel) -> dict[str, _Part]:
    """The identity of the model that the adapters need: of parts that they replace, only the kind.

    Buffers are not replaced, so a user encoder of one's own that has some is needed as it is.
    """
    identity, copied = base_identity(model), copied_parameters(model)
    buffers = [*model.user_encoder.buffers()] if isinstance(model, TransRec) else []
    needed = {USER_ENCODER} if buffers else set()
    for part, tensors in _base_of(model).items():
        if part in identity and part not in needed and tensors.keys() <= copied.keys():
            identity[part]["weights"] = _REPLACED
    return identity


def _kinds(model: TransRec | PreTrainedModel) -> dict[str, str]:
    if not isinstance(model, TransRec):
        return {"encoder": describe_config(model.config)}
    kinds = {
        "user_encoder": f"{model.user_encoder.describe()}, {model.objective}{', cosine' * model.cosine}",
        "item_head": type(model.item_encoder.head).__name__.lower(),
    }
    if isinstance(model.item_encoder, ContentItemEncoder):
        kinds["backbone"] = model.item_encoder.describe()
    return kinds


def _differences(there: Mapping[str, _Part], here: Mapping[str, _Part]) -> list[str]:
    """The parts in which the model of a file differs from this one, one line each."""
    lines, none = [], _Part(kind="none", weights="")
    for part in dict.fromkeys([*there, *here]):
        theirs, ours = there.get(part, none), here.get(part, none)
        if theirs["kind"] != ours["kind"]:
            lines.append(f"{part}: {theirs['kind']} in the file, {ours['kind']} in the model")
        elif theirs["weights"] not in (_REPLACED, ours["weights"]):
            lines.append(f"{part}: same kind ({ours['kind']}), different weights")
    return lines
