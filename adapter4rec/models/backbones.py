"""Pretrained encoders from ordinary Hugging Face folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    CLIPVisionModel,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging as transformers_logging

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY

PRETRAINED_MODELS = REPOSITORY / "pretrained_models"


@dataclass(frozen=True)
class Kinds:
    """Which encoders encode one kind of content.

    Attributes:
        what: the content, in a word.
        model_types: ``model_type`` of their Hugging Face configurations.
    """

    what: str
    model_types: tuple[str, ...]


TEXT_ENCODERS = Kinds("text", ("bert", "roberta", "xlm-roberta", "modernbert"))
IMAGE_ENCODERS = Kinds("image", ("vit", "vit_mae", "dinov2", "clip_vision_model"))

_WITHOUT_POOLER = {kind: {"add_pooling_layer": False} for kind in ("bert", "roberta", "xlm-roberta", "vit")}
_COUNTS_FROM_PADDING = ("roberta", "xlm-roberta")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_PIXEL_STATISTICS = {"dinov2": _IMAGENET, "clip_vision_model": _CLIP}
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)


def backbone_folder(name: str) -> Path:
    """The folder of a backbone: a path that exists, or a name under ``pretrained_models/``.

    Raises:
        UserError: neither is there.
    """
    for folder in (Path(name), REPOSITORY / name, PRETRAINED_MODELS / name):
        if (folder / "config.json").is_file():
            return folder.resolve()
    raise UserError(
        f"backbone {name!r}: no Hugging Face folder (with a config.json) at {PRETRAINED_MODELS / name}; "
        f"fetch it with `python -m adapter4rec.download {name}`, or name a folder of your own"
    )


def backbone_config(folder: Path, kinds: Kinds, layers: int | None = None) -> PretrainedConfig:
    """The configuration of a backbone, cut to its first ``layers`` layers.

    Args:
        folder: a Hugging Face folder.
        kinds: which kinds of encoder will do.
        layers: how many layers are kept; None for all.

    Raises:
        UserError: unreadable, of another kind, or with fewer layers.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}/config.json: {str(error).splitlines()[0]}") from None
    if config.model_type == "clip":  # both towers in one folder; ours is the one for images
        config = config.vision_config
    if config.model_type not in kinds.model_types:
        raise UserError(
            f"{folder}: a {config.model_type!r} model; {kinds.what} encoders are of kind "
            + " or ".join(kinds.model_types)
        )
    if layers is not None:
        if not 1 <= layers <= config.num_hidden_layers:
            raise UserError(f"--layers {layers}: {folder} has {config.num_hidden_layers} layers")
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None) is not None:  # ModernBERT's, one a layer
            config.layer_types = config.layer_types[:layers]
    return config


def described(config: PretrainedConfig) -> str:
    """What kind of encoder, of which size, in a few words."""
    return (
        f"{config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.num_attention_heads} heads"
    )


def first_position(config: PretrainedConfig) -> int:
    """The position of a text's first token: RoBERTa counts from behind the padding token's number."""
    return config.pad_token_id + 1 if config.model_type in _COUNTS_FROM_PADDING else 0


def pixel_statistics(config: PretrainedConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel by which an image encoder's pixels (0 to 1) are scaled.

    DINOv2's and CLIP's are those of their pretraining; ViT and ViTMAE have 0.5 throughout, as in the paper.
    """
    return _PIXEL_STATISTICS.get(config.model_type, _HALF)


def image_size(config: PretrainedConfig, asked: int | None = None) -> int:
    """The height and width of the images that an image encoder is given, in pixels.

    Args:
        config: of the encoder.
        asked: another size than the configuration's; only DINOv2 interpolates its positions.

    Raises:
        UserError: it takes images that are not square, or not of three channels, or not of the asked size.
    """
    sizes = config.image_size if isinstance(config.image_size, list | tuple) else [config.image_size]
    if not 1 <= len(sizes) <= 2 or len(set(sizes)) > 1 or not isinstance(sizes[0], int):
        raise UserError(f"the backbone takes images of size {config.image_size}; square ones are supported")
    if config.num_channels != 3:
        raise UserError(f"the backbone takes images of {config.num_channels} channels; RGB has 3")
    if asked in (None, sizes[0]):
        return sizes[0]
    if config.model_type != "dinov2":
        raise UserError(
            f"--image_size {asked}: this backbone takes images of {sizes[0]}; DINOv2 takes others"
        )
    if asked % config.patch_size:
        raise UserError(f"--image_size {asked}: must be a multiple of {config.patch_size}, the patches' size")
    return asked


def load_backbone(folder: Path, kinds: Kinds, layers: int | None = None) -> PreTrainedModel:
    """A pretrained encoder in float32, without pooler, attention by torch's fused kernel.

    Args:
        folder: a Hugging Face folder.
        kinds: which kinds of encoder will do.
        layers: how many layers are kept; None for all.

    Raises:
        UserError: no weights, weights that lack some of the model's, or another kind of model.
    """
    config = backbone_config(folder, kinds, layers)
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise UserError(f"{folder}: no weights there (model.safetensors)")
    with quiet_transformers():
        try:
            model, report = _model_class(config).from_pretrained(
                folder,
                config=config,
                **_WITHOUT_POOLER.get(config.model_type, {}),
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, with names
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder}: the weights cannot be read: {str(error).splitlines()[0]}") from None
    trouble = [f"{name}: not in the file" for name in sorted(report["missing_keys"])]
    trouble += [
        f"{name}: {list(there)} in the file, {list(wanted)} by config.json"
        for name, there, wanted in sorted(report["mismatched_keys"])
    ]
    if trouble:
        raise UserError(
            f"{folder}: the weights lack or misfit {len(trouble)} entries, the first is {trouble[0]}"
        )
    return model


def _model_class(config: PretrainedConfig) -> type:
    return CLIPVisionModel if config.model_type == "clip_vision_model" else AutoModel


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's fast tokenizer.

    Raises:
        UserError: there is none.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        raise UserError(
            f"{folder}: no tokenizer there (tokenizer.json, or vocab.txt, or vocab.json and merges.txt)"
        )
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder}: the tokenizer cannot be read: {str(error).splitlines()[0]}") from None
    return tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the library's reports: what matters of them is raised as an error here."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
