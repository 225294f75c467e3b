"""Merging adapters into the model's weights for inference without adapters, and undoing the merge.

LoRA, W + (alpha / r) B A (Hu et al. 2021), methods of PEFT that PEFT can merge, and trained copies of biases,
layer norms, the item head and the user encoder can be merged into the model's weights. Other adapter families
add operations and cannot be merged.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from adapter4rec.adapters.attaching import add_adapters, copied_parameters, detach_adapters
from adapter4rec.adapters.base import Adapter, AdapterSet, adapters_of
from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.files import adapter_tensors
from adapter4rec.adapters.lora_layers import Lora
from adapter4rec.adapters.peft_layers import PeftAdapter
from adapter4rec.adapters.registry import name_of
from adapter4rec.models.backbone_folders import record_pooling
from adapter4rec.models.backbones import quiet_transformers
from adapter4rec.models.image_encoder import ImageItemEncoder, record_normalisation
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into
from adapter4rec.utils.checkpoint_file import writing_tensors
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MERGEABLE = (Lora, PeftAdapter, Adapter)
"""A plain :class:`Adapter`, as of bitfit and layernorm, consists of copies of parameters only."""
_PREPROCESSOR_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "bpe.codes"),
    "preprocessor_config.json",
)


@dataclass(frozen=True)
class Merged:
    """State for undoing a merge.

    Attributes:
        config: of the adapters.
        tensors: weights of the adapters.
        weights: original values of the merged parameters, by name.
    """

    config: AdapterConfig
    tensors: dict[str, Tensor]
    weights: dict[str, Tensor]


@torch.no_grad()
def merge_adapters(model: TransRec | PreTrainedModel) -> Merged:
    """Merge the adapters into the model's weights and detach them.

    Returns:
        State for :func:`unmerge_adapters`.

    Raises:
        UserError: the model has no adapters, or adapters of a family that cannot be merged.
    """
    adapters = adapters_of(model)
    if adapters is None:
        raise UserError("the model has no adapters to merge")
    if not all(type(adapter) in _MERGEABLE for adapter in adapters.values()):
        raise UserError(
            f"{name_of(adapters.config)} (--semantics {adapters.config.semantics}) cannot be merged into the "
            "weights; only lora, bitfit, layernorm and peft can (not with all options)"
        )
    parameters = adapters.base
    own = dict(model.named_parameters())
    new = {name: own[copy].clone() for name, copy in copied_parameters(model).items()}
    names = {parameter: name for name, parameter in parameters.items()}
    for adapter in adapters.values():
        if isinstance(adapter, Lora | PeftAdapter):
            new |= {names[weight]: value for weight, value in adapter.merged_weights()}
    tensors = {name: tensor.clone() for name, tensor in adapter_tensors(model).items()}
    merged = Merged(adapters.config, tensors, {name: parameters[name].clone() for name in new})
    detach_adapters(model)
    for name, value in new.items():
        parameters[name].copy_(value)
    return merged


@torch.no_grad()
def unmerge_adapters(model: TransRec | PreTrainedModel, merged: Merged) -> AdapterSet:
    """Attach the adapters again and restore the original weights, bit for bit.

    Args:
        model: as :func:`merge_adapters` left it; later changes of the merged weights are lost.
        merged: the result of that call.

    Returns:
        ``model.adapters``.

    Raises:
        UserError: the model has adapters. It is not modified.
    """
    adapters = add_adapters(model, merged.config)
    for name, value in merged.weights.items():
        adapters.base[name].copy_(value)
    load_into(model, merged.tensors, Path("the merged adapters"), adapter_tensors(model))
    return adapters


def save_encoder(model: TransRec | PreTrainedModel, folder: Path | str) -> None:
    """Save the item encoder as a Hugging Face folder, which ``AutoModel`` loads without this project.

    Files of the tokenizer or image processor are copied from the backbone's folder. The item head of a
    TransRec is saved as ``item_head.safetensors``: ``weight [d, h]`` and ``bias [d]`` of
    GELU(weight · state + bias). The pooling of texts to a state is recorded as in sentence-transformers, the
    normalisation of images in ``preprocessor_config.json``.

    Raises:
        UserError: the model has adapters or no backbone, or the folder exists.
    """
    folder = Path(folder)
    if adapters_of(model) is not None:
        raise UserError(f"{folder}: the model has adapters; merge or detach them before saving")
    if folder.exists():
        raise UserError(f"{folder}: already exists")
    head: dict[str, Tensor] | None = None
    if not isinstance(model, TransRec):
        encoder = model
    elif isinstance(model.item_encoder, ContentItemEncoder):
        encoder, head = model.item_encoder.backbone, model.item_encoder.head.state_dict()
    else:
        raise UserError(f"{folder}: an id tower has no encoder to save")
    original = Path(encoder.name_or_path or "nowhere")
    with atomic_folder(folder) as aside, writing_tensors(aside), quiet_transformers():
        encoder.save_pretrained(aside)
        for name in _PREPROCESSOR_FILES:
            if (original / name).is_file():
                shutil.copy(original / name, aside / name)
        if isinstance(model, TransRec) and isinstance(model.item_encoder, TextItemEncoder):
            record_pooling(aside, model.item_encoder.pooling, encoder.config.hidden_size)
        if isinstance(model, TransRec) and isinstance(model.item_encoder, ImageItemEncoder):
            record_normalisation(aside, model.item_encoder.normalisation)
        if head is not None:
            save_file(head, aside / "item_head.safetensors")
