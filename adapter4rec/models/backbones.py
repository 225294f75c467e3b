"""Loading pretrained backbones and tokenizers from local Hugging Face folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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

from adapter4rec.models.loading_report import check_loading_report
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY

PRETRAINED_MODELS = REPOSITORY / "pretrained_models"


@dataclass(frozen=True)
class Kinds:
    """The supported encoders of one modality.

    Attributes:
        what: name of the modality, for error messages.
        model_types: their ``model_type`` in config.json.
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
_LOCAL = {"trust_remote_code": False, "local_files_only": True}
"""Folders are read without executing code that they contain, and without downloads."""

_SUPPORTED_SETTINGS: dict[str, tuple[Any, ...]] = {
    "pruned_heads": (None, {}),  # transformers 5 ignores it
    "quantization_config": (None,),
    "return_dict": (None, True),
}
"""Supported values of settings in config.json that change what an encoder computes."""
_SUPPORTED_BERT_SETTINGS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": (None, "absolute"),  # transformers 5 ignores it
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "chunk_size_feed_forward": (None, 0),
}
"""More such settings, of BERT, RoBERTa and XLM-RoBERTa only."""


def backbone_folder(name: str) -> Path:
    """The folder of a backbone: an existing path, or a name in ``pretrained_models/``.

    Raises:
        UserError: no such folder.
    """
    for folder in (Path(name), REPOSITORY / name, PRETRAINED_MODELS / name):
        if (folder / "config.json").is_file():
            return folder.resolve()
    raise UserError(
        f"backbone {name!r}: no Hugging Face folder (with a config.json) at {PRETRAINED_MODELS / name}; "
        f"download it with `python -m adapter4rec.download {name}`, or pass the path of a local folder"
    )


def backbone_config(folder: Path, kinds: Kinds, layers: int | None = None) -> PretrainedConfig:
    """The configuration of a backbone, truncated to its first ``layers`` layers.

    Args:
        folder: a Hugging Face folder.
        kinds: the supported encoders.
        layers: number of layers to keep; None for all.

    Raises:
        UserError: the configuration cannot be read, requires custom code, has too few layers, or its model
            type or one of its settings is not supported.
    """
    with _reading(folder, "config.json"):
        config = AutoConfig.from_pretrained(folder, **_LOCAL)
    _require_supported(folder, config)
    if config.model_type == "clip":  # the folder has both towers; use the vision tower
        config = config.vision_config
        _require_supported(folder, config)
    if config.model_type not in kinds.model_types:
        raise UserError(
            f"{folder}: model type {config.model_type!r} is not a supported {kinds.what} encoder; supported: "
            + ", ".join(kinds.model_types)
        )
    if layers is not None:
        if not 1 <= layers <= config.num_hidden_layers:
            raise UserError(f"--layers {layers}: {folder} has {config.num_hidden_layers} layers")
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None) is not None:  # ModernBERT has one entry per layer
            config.layer_types = config.layer_types[:layers]
    return config


def _require_supported(folder: Path, config: PretrainedConfig) -> None:
    """Raise a UserError for a setting that would change what the pretrained encoder computes."""
    bert = _SUPPORTED_BERT_SETTINGS if config.model_type in ("bert", *_COUNTS_FROM_PADDING) else {}
    for name, supported in (_SUPPORTED_SETTINGS | bert).items():
        value = getattr(config, name, None)
        if value not in supported:
            raise UserError(f"{folder}/config.json: {name} is {value!r}; only {supported[-1]!r} is supported")


def describe_config(config: PretrainedConfig) -> str:
    """A short description of an encoder's architecture."""
    return (
        f"{config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.num_attention_heads} heads"
    )


def first_position(config: PretrainedConfig) -> int:
    """Position id of the first token: 0, but ``pad_token_id + 1`` in RoBERTa and XLM-RoBERTa."""
    return config.pad_token_id + 1 if config.model_type in _COUNTS_FROM_PADDING else 0


def pixel_statistics(config: PretrainedConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that normalise pixel values in [0, 1].

    Those of DINOv2 and CLIP come from their pretraining. ViT and ViTMAE use 0.5 for all, as in the paper.
    """
    return _PIXEL_STATISTICS.get(config.model_type, _HALF)


def image_size(config: PretrainedConfig, asked: int | None = None) -> int:
    """Height and width of an encoder's input images, in pixels.

    Args:
        config: of the encoder.
        asked: the requested size; by default that of the configuration. Only DINOv2 supports other sizes, as
            it interpolates its position embeddings.

    Raises:
        UserError: the encoder expects images that are not square or not RGB, or does not support the size.
    """
    sizes = config.image_size if isinstance(config.image_size, list | tuple) else [config.image_size]
    if not 1 <= len(sizes) <= 2 or len(set(sizes)) > 1 or not isinstance(sizes[0], int):
        raise UserError(f"the backbone expects images of size {config.image_size}; only square is supported")
    if config.num_channels != 3:
        raise UserError(f"the backbone expects images with {config.num_channels} channels; RGB has 3")
    if asked in (None, sizes[0]):
        return sizes[0]
    if config.model_type != "dinov2":
        raise UserError(
            f"--image_size {asked}: this backbone expects {sizes[0]}; only DINOv2 supports other sizes"
        )
    if asked % config.patch_size:
        raise UserError(f"--image_size {asked}: must be a multiple of the patch size {config.patch_size}")
    return asked


def load_backbone(folder: Path, kinds: Kinds, layers: int | None = None) -> PreTrainedModel:
    """A pretrained encoder in float32, without pooler, with attention by ``scaled_dot_product_attention``.

    Args:
        folder: a Hugging Face folder.
        kinds: the supported encoders.
        layers: number of layers to keep; None for all.

    Raises:
        UserError: weights are missing, unexpected or of another shape, the folder contains an adapter, or
            the configuration is not supported (see :func:`backbone_config`).
    """
    config = backbone_config(folder, kinds, layers)
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise UserError(f"{folder}: no weights found (model.safetensors)")
    if (folder / "adapter_config.json").is_file():  # transformers would load the adapter, or ignore it
        raise UserError(
            f"{folder}: contains an adapter in addition to the backbone (adapter_config.json); merge it into "
            "the weights, or move it to another folder"
        )
    with _reading(folder, "the weights"):
        model, report = _model_class(config).from_pretrained(
            folder,
            config=config,
            **_WITHOUT_POOLER.get(config.model_type, {}),
            **_LOCAL,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked below, with a clearer error message
        )
    check_loading_report(folder, model, report, layers)
    return model


def _model_class(config: PretrainedConfig) -> type:
    return CLIPVisionModel if config.model_type == "clip_vision_model" else AutoModel


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder (fast or slow), checked against config.json.

    Raises:
        UserError: it is missing, has token ids outside the embedding table, or does not start each text with
            a class token.
    """
    config = backbone_config(folder, TEXT_ENCODERS)
    with _reading(folder, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, **_LOCAL)
    names = tokenizer.vocab_files_names
    vocabulary = [name for key, name in names.items() if key != "tokenizer_file"]
    choices = [vocabulary, [names["tokenizer_file"]]] if "tokenizer_file" in names else [vocabulary]
    # Without these files, transformers loads a tokenizer that has only special tokens.
    if not any(choice and all((folder / name).is_file() for name in choice) for choice in choices):
        needed = ", or ".join(" and ".join(choice) for choice in choices if choice)
        raise UserError(f"{folder}: no tokenizer found; {type(tokenizer).__name__} needs {needed}")
    token, largest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1], default=("", -1))
    if largest >= config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer does not match the weights: token {token!r} has id {largest}, but "
            f"vocab_size in config.json is {config.vocab_size}"
        )
    empty, short = (tokenizer(text)["input_ids"][:1] for text in ("", "a"))
    if not empty or empty != short or tokenizer.cls_token_id not in (None, *empty):
        raise UserError(
            f"{folder}: the tokenizer does not start each text with a class token (cls_token is "
            f"{tokenizer.cls_token!r}), whose hidden state represents the text"
        )
    return tokenizer


@contextmanager
def _reading(folder: Path, what: str) -> Iterator[None]:
    """Silence transformers, and convert its exceptions into a UserError."""
    with quiet_transformers():
        try:
            yield
        except Exception as error:  # damaged files raise exceptions of any type
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            if "trust_remote_code" in str(error):
                reason = "it requires custom code (auto_map), which is not supported"
            raise UserError(f"{folder}: {what} cannot be read: {reason}") from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence log messages and progress bars of transformers."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()
