"""Export and import of LoRA in the format of Hugging Face PEFT.

Both implementations compute W x + b + (alpha / r) B A x, with A ``[r, in]`` and B ``[out, r]``, so their
outputs are equal. PEFT writes and reads its folders itself; it is an optional dependency.

Only adapters of the item encoder are converted. Other parameters trained on the target domain (adapters of
the user encoder, the item head) are stored only in this project's adapter file.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import PreTrainedModel

from adapter4rec.adapters.config import PROJECTIONS, LayerChoice
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.sites import Projection, Sites
from adapter4rec.interchange.common import Model, Names, add_imported, item_adapter, item_sites
from adapter4rec.models.weights import largest_size, read_tensors
from adapter4rec.utils.checkpoint_file import writing_tensors
from adapter4rec.utils.errors import UserError, reason_of
from adapter4rec.utils.files import atomic_folder

try:
    import peft
    from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
except ImportError:
    raise UserError("PEFT is not installed; install it with: pip install peft") from None

_PREFIX = "base_model.model."
_SUPPORTED = {
    *("r", "lora_alpha", "lora_dropout"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "peft_version"),
    *("megatron_core", "qalora_group_size", "revision", "runtime_config", "task_type"),
}
"""Options that are read or have no effect; others must have their default value."""
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
    sites, encoder = item_sites(model)
    names = _names(sites, encoder)
    config, tensors, left_out = item_adapter(model, "PEFT", {"lora": LoraConfig}, names, folder)
    options = peft.LoraConfig(
        r=config.item_rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # PEFT divides it by r: any number will do
        lora_dropout=config.lora_dropout,
        target_modules=sorted({name.removeprefix(_PREFIX).rsplit(".", 2)[0] for name in tensors}),
    )
    plain = deepcopy(encoder.config)
    plain.name_or_path = ""
    with torch.device("meta"):  # the encoder without adapters; its weights are not saved
        bare = type(encoder)(plain).to_empty(device="cpu")
    wrapped = peft.get_peft_model(bare, options)
    peft.set_peft_model_state_dict(wrapped, tensors)
    with atomic_folder(folder) as aside, writing_tensors(aside):
        wrapped.save_pretrained(str(aside), save_embedding_layers=False)
    return left_out


def import_peft(model: Model, folder: Path) -> None:
    """Add LoRA saved by PEFT to the item encoder.

    Args:
        model: a :class:`TransRec` or a Hugging Face encoder, without adapters.
        folder: folder saved by PEFT for an encoder of the same model type.

    Raises:
        UserError: an unsupported option or target module, missing tensors or tensors of the wrong shape, or a
            model that has adapters already. The model is then unchanged.
    """
    names = _names(*item_sites(model))
    try:
        options = peft.PeftConfig.from_pretrained(str(folder.resolve()))
    except Exception as error:  # damaged files raise exceptions of any type
        raise UserError(f"{folder}: PEFT cannot read the adapter: {reason_of(error)}") from None
    weights = [folder / name for name in (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)]
    tensors = read_tensors(next((path for path in weights if path.exists()), weights[0]))
    if options.peft_type != "LORA":
        raise UserError(f"{folder}: peft_type is {options.peft_type}; only LORA is supported")
    if options.init_lora_weights not in _SUPPORTED_INIT:
        raise UserError(
            f"{folder}: init_lora_weights is {options.init_lora_weights!r}, which changes the weights of the "
            "encoder; not supported"
        )
    most = largest_size({name: one for name, one in tensors.items() if ".lora_" in name})
    if most and isinstance(options.r, int) and options.r > most:
        raise UserError(f"{folder}: r is {options.r}; its tensors have at most {most} rows or columns")
    usual = asdict(peft.LoraConfig())
    for name, value in asdict(options).items():
        if name not in _SUPPORTED and value != usual[name]:
            raise UserError(f"{folder}: {name} is {value!r}; only {usual[name]!r} is supported")

    def config_for(layers: LayerChoice, projections: tuple[str, ...]) -> LoraConfig:
        return LoraConfig(
            encoders=("item",),
            item_layers=layers,
            projections=projections,
            item_rank=options.r,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
        )

    add_imported(model, names, tensors, config_for, folder)


def _names(sites: Sites, encoder: PreTrainedModel) -> Names:
    """PEFT's names of the factors of every query and value projection.

    Raises:
        UserError: a linear layer computes several projections.
    """
    modules = {id(module): name for name, module in encoder.named_modules()}
    names: Names = {}
    for number, layer in enumerate(sites.layers):
        for kind in PROJECTIONS:
            projection: Projection = getattr(layer, kind)
            path = f"{modules[id(projection.owner)]}.{projection.name}"
            if projection.fused:
                raise UserError(
                    f"{path} computes query, key and value together; PEFT adapts whole linear layers only"
                )
            for factor in ("lora_A", "lora_B"):
                names[f"layers.{number}.{kind}.{factor}"] = f"{_PREFIX}{path}.{factor}.weight"
    return names
