"""Pretrained encoders from ordinary Hugging Face folders."""

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

from adapter4rec.models.loading_report import require_same_weights
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
_LOCAL = {"trust_remote_code": False, "local_files_only": True}
"""How every folder is read: without running its Python code, or asking to, and without a download."""

_SUPPORTED_SETTINGS: dict[str, tuple[Any, ...]] = {
    "pruned_heads": (None, {}),  # transformers 5 ignores it
    "quantization_config": (None,),
    "return_dict": (None, True),
}
"""Settings of config.json that would change what is computed, and the values that do not."""
_SUPPORTED_BERT_SETTINGS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": (None, "absolute"),  # transformers 5 ignores it
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "chunk_size_feed_forward": (None, 0),
}
"""Further ones of BERT, RoBERTa and XLM-RoBERTa, which alone read them."""


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
        UserError: unreadable, of another kind, with fewer layers, with a setting that is not supported, or
            of a kind that only Python code in the folder defines.
    """
    with _reading(folder, "config.json"):
        config = AutoConfig.from_pretrained(folder, **_LOCAL)
    _require_supported(folder, config)
    if config.model_type == "clip":  # both towers in one folder; ours is the one for images
        config = config.vision_config
        _require_supported(folder, config)
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


def _require_supported(folder: Path, config: PretrainedConfig) -> None:
    """Raise a UserError for a setting with which the encoder would not compute what it was trained to."""
    bert = _SUPPORTED_BERT_SETTINGS if config.model_type in ("bert", *_COUNTS_FROM_PADDING) else {}
    for name, supported in (_SUPPORTED_SETTINGS | bert).items():
        value = getattr(config, name, None)
        if value not in supported:
            raise UserError(f"{folder}/config.json: {name} is {value!r}; only {supported[-1]!r} is supported")


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
        UserError: no weights; weights that are missing, unexpected or of another shape; an adapter beside
            them; or another kind of model.
    """
    config = backbone_config(folder, kinds, layers)
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise UserError(f"{folder}: no weights there (model.safetensors)")
    if (folder / "adapter_config.json").is_file():  # the library would attach the adapter, or ignore it
        raise UserError(
            f"{folder}: contains an adapter beside the backbone (adapter_config.json); merge it into the "
            "weights, or move it to a folder of its own"
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
            ignore_mismatched_sizes=True,  # they are refused below, with names
        )
    require_same_weights(folder, model, report, layers)
    return model


def _model_class(config: PretrainedConfig) -> type:
    return CLIPVisionModel if config.model_type == "clip_vision_model" else AutoModel


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer, written in Rust or in Python, checked against the folder's config.json.

    Raises:
        UserError: there is none, it has ids beyond the embedding table, or its texts do not all begin with
            the class token, whose state is the text's.
    """
    config = backbone_config(folder, TEXT_ENCODERS)
    with _reading(folder, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, **_LOCAL)
    names = tokenizer.vocab_files_names
    vocabulary = [name for key, name in names.items() if key != "tokenizer_file"]
    choices = [vocabulary, [names["tokenizer_file"]]] if "tokenizer_file" in names else [vocabulary]
    # Without its files, a tokenizer of the library loads all the same and knows its special tokens alone.
    if not any(choice and all((folder / name).is_file() for name in choice) for choice in choices):
        needed = ", or ".join(" and ".join(choice) for choice in choices if choice)
        raise UserError(f"{folder}: no tokenizer there; {type(tokenizer).__name__} needs {needed}")
    token, largest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1], default=("", -1))
    if largest >= config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer does not fit the weights: token {token!r} has id {largest}, and "
            f"vocab_size in config.json is {config.vocab_size}"
        )
    empty, short = (tokenizer(text)["input_ids"][:1] for text in ("", "a"))
    if not empty or empty != short or tokenizer.cls_token_id not in (None, *empty):
        raise UserError(
            f"{folder}: the tokenizer does not put a class token before each text (cls_token is "
            f"{tokenizer.cls_token!r}); its state is what represents the text"
        )
    return tokenizer


@contextmanager
def _reading(folder: Path, what: str) -> Iterator[None]:
    """Silence the library, and turn whatever it raises into a UserError."""
    with quiet_transformers():
        try:
            yield
        except Exception as error:  # damaged folders raise anything
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            if "trust_remote_code" in str(error):
                reason = "it needs Python code of its own (auto_map); code from model folders is not run"
            raise UserError(f"{folder}: {what} cannot be read: {reason}") from None


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
