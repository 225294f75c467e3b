"""Merging adapters into the weights, for serving without them, and taking the merge back.

LoRA's updates W + (alpha / r) B A and the trained copies of biases, layer norms and item head can be written
into the encoder's own weights; other families compute something that no weights of the encoder do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapter4rec.adapters.attaching import add_adapters, copied_parameters, detach_adapters
from adapter4rec.adapters.base import Adapter, AdapterSet, adapters_of
from adapter4rec.adapters.config import RELEASE, AdapterConfig
from adapter4rec.adapters.files import adapter_tensors
from adapter4rec.adapters.lora_layers import Lora
from adapter4rec.adapters.registry import name_of
from adapter4rec.models.backbones import quiet_transformers
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import whole_folder

_MERGEABLE = (Lora, Adapter)
"""A plain :class:`Adapter`, that of bitfit and layernorm, has only copies of parameters."""
_READER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "preprocessor_config.json"),
)


@dataclass(frozen=True)
class Merged:
    """What takes a merge back: the weights that it changed, as they were, and the adapters."""

    config: AdapterConfig
    tensors: dict[str, Tensor]
    weights: dict[str, Tensor]
    merged: dict[str, Tensor]


@torch.no_grad()
def merge_adapters(model: TransRec | PreTrainedModel) -> Merged:
    """Write the adapters into the model's weights and take them off.

    Returns:
        What :func:`unmerge_adapters` needs.

    Raises:
        UserError: the model has no adapters, or some that no weights of the model can stand for.
    """
    adapters = adapters_of(model)
    if adapters is None:
        raise UserError("the model has no adapters to merge")
    if not all(type(adapter) in _MERGEABLE for adapter in adapters.values()):
        released = " with --semantics release" if adapters.config.semantics == RELEASE else ""
        raise UserError(
            f"{name_of(adapters.config)}{released} cannot be merged; lora, bitfit and layernorm can, where "
            "they compute what weights of the encoder do"
        )
    parameters = adapters.base
    new = _new_weights(model)
    tensors = {name: tensor.clone() for name, tensor in adapter_tensors(model).items()}
    merged = Merged(adapters.config, tensors, {name: parameters[name].clone() for name in new}, new)
    detach_adapters(model)
    for name, value in new.items():
        parameters[name].copy_(value)
    return merged


@torch.no_grad()
def unmerge_adapters(model: TransRec | PreTrainedModel, merged: Merged) -> AdapterSet:
    """Give the model its weights back, bit for bit, and put the adapters on again.

    Returns:
        ``model.adapters``.

    Raises:
        UserError: the model has adapters, or its merged weights have changed since. It is then left alone.
    """
    parameters = dict(model.named_parameters())
    if adapters_of(model) is not None:
        raise UserError("the model has adapters; detach them before the merge is taken back")
    changed = [
        name
        for name, value in merged.merged.items()
        if name not in parameters or not torch.equal(parameters[name], value.to(parameters[name].device))
    ]
    if changed:
        raise UserError(f"{changed[0]} is no longer what the merge wrote, so that it cannot be taken back")
    for name, value in merged.weights.items():
        parameters[name].copy_(value)
    adapters = add_adapters(model, merged.config)
    load_into(model, merged.tensors, Path("the merged adapters"), adapter_tensors(model))
    return adapters


def _new_weights(model: TransRec | PreTrainedModel) -> dict[str, Tensor]:
    """The merged values of the parameters that merging changes, by name."""
    names = {id(parameter): name for name, parameter in model.adapters.base.items()}
    own = dict(model.named_parameters())
    new = {name: own[copy].clone() for name, copy in copied_parameters(model).items()}
    for adapter in model.adapters.values():
        if isinstance(adapter, Lora):
            new |= {names[id(weight)]: value for weight, value in adapter.merged_weights()}
    return new


def save_encoder(model: TransRec | PreTrainedModel, folder: Path | str) -> None:
    """Write the item encoder as a plain Hugging Face folder, which ``AutoModel`` loads without this project.

    The tokenizer's or image processor's files come along where the backbone's folder has them; of a TransRec
    the item head goes to ``item_head.safetensors`` in it: ``weight [d, h]`` and ``bias [d]`` of
    GELU(weight · [CLS] + bias).

    Raises:
        UserError: the model still has adapters, or no encoder, or something is in the folder.
    """
    folder = Path(folder)
    if adapters_of(model) is not None:
        raise UserError(f"{folder}: merge or detach the adapters first; a plain folder cannot hold them")
    if isinstance(model, TransRec) and not isinstance(model.item_encoder, ContentItemEncoder):
        raise UserError(f"{folder}: an id tower has no encoder to save")
    if folder.exists():
        raise UserError(f"{folder}: is there already")
    encoder = model.item_encoder.backbone if isinstance(model, TransRec) else model
    came_from = Path(encoder.config._name_or_path or "nowhere")
    with whole_folder(folder) as aside, quiet_transformers():
        encoder.save_pretrained(aside)
        for name in _READER_FILES:
            if (came_from / "config.json").is_file() and (came_from / name).is_file():
                (aside / name).write_bytes((came_from / name).read_bytes())
        if isinstance(model, TransRec):
            head: nn.Module = model.item_encoder.head
            save_file(
                {name: tensor.contiguous() for name, tensor in head.state_dict().items()},
                aside / "item_head.safetensors",
            )
