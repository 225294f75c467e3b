"""Loading pretrained backbones and tokenizers from local Hugging Face folders."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PretrainedConfig
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging as transformers_logging

from adapter4rec.models.backbone_folders import require_files
from adapter4rec.models.layouts import LAYOUTS, Reads
from adapter4rec.utils.errors import UserError, reason_of
from adapter4rec.utils.records import Object, read_record

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXT_ENCODERS, IMAGE_ENCODERS = (
    tuple(kind for kind, layout in LAYOUTS.items() if layout.reads is reads)
    for reads in (Reads.WORDS, Reads.PATCHES)
)
"""Supported encoders, by the ``model_type`` of their config.json."""

_LOCAL = {"trust_remote_code": False, "local_files_only": True}
"""Folders are read without executing code that they contain, and without downloads."""

_UNUSED_WEIGHTS = (
    r"(pooler|cls|lm_head|head|decoder|classifier|qa_outputs|text_model|text_projection|visual_projection)\..+"
    r"|logit_scale|embeddings\.(position_ids|token_type_ids|mask_token)"
)
"""Weights of published checkpoints that an encoder does not use: heads, poolers, decoders, text towers."""
_SUPPORTED_SETTINGS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": (None, "sans_pos", "absolute"),  # transformers 5 ignores it
    "pruned_heads": (None, {}),  # transformers 5 ignores it
    "quantization_config": (None,),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "chunk_size_feed_forward": (None, 0),
    "return_dict": (None, True),
}
"""Supported values of settings in config.json that change what an encoder computes."""
_MAX_LISTED = 3
_WEIGHTS = (".safetensors", ".bin")
_SIZES = ("hidden_size", "vocab_size", "intermediate_size", "max_position_embeddings", "type_vocab_size")
_SLACK_BYTES = 1 << 27
_MOST_LAYERS = 1000
_MOST = {"num_hidden_layers": _MOST_LAYERS, "num_labels": 100_000}
"""Counts of which transformers makes a list when it reads config.json, and the largest that are supported."""
_PROBE = "a \U00012000"
"""A text with a letter, of cuneiform, that few vocabularies have."""


def backbone_config(folder: Path, kinds: Collection[str], layers: int | None = None) -> PretrainedConfig:
    """The configuration of a backbone, truncated to its first ``layers`` layers.

    Args:
        folder: a Hugging Face folder.
        kinds: supported model types.
        layers: number of layers to keep; None for all.

    Raises:
        UserError: the configuration cannot be read, requires custom code, has too few layers, or its model
            type or one of its settings is not supported.
    """
    require_files(folder)
    file = folder / "config.json"
    recorded = read_record(file, Object)
    parts = [recorded, *(part for part in recorded.values() if isinstance(part, dict))]
    for part, (name, most) in product(parts, _MOST.items()):
        if isinstance(count := part.get(name), int) and count > most:
            raise UserError(f"{file}: {name} is {count:,}; at most {most:,} are supported")
    with _reading(folder, "config.json"):
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, **_LOCAL)
    if config.model_type == "clip":  # the folder has both towers; use the vision tower
        config = config.vision_config
        config.name_or_path = str(folder)
    for name, supported in _SUPPORTED_SETTINGS.items():
        if (value := getattr(config, name, None)) not in supported:
            raise UserError(f"{folder}/config.json: {name} is {value!r}; only {supported[-1]!r} is supported")
    if config.model_type not in kinds:
        raise UserError(
            f"{folder}: model type {config.model_type!r} is not supported; choose from {', '.join(kinds)}"
        )
    if layers is not None:
        if not 1 <= layers <= config.num_hidden_layers:
            raise UserError(f"--layers {layers}: {folder} has {config.num_hidden_layers} layers")
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None) is not None:  # ModernBERT has one entry per layer
            config.layer_types = config.layer_types[:layers]
    return config


def describe_config(config: PretrainedConfig) -> str:
    """A short description of an encoder's architecture."""
    return (
        f"{config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.num_attention_heads} heads"
    )


_COMPUTATION = (
    *("hidden_act", "hidden_activation", "layer_norm_eps", "norm_eps", "hidden_dropout_prob"),
    *("attention_probs_dropout_prob", "attention_dropout", "pad_token_id", "local_attention", "mask_ratio"),
    *("image_mean", "image_std"),
)
"""Settings that change what the same weights compute, in any of the supported encoders."""


def computation_of(config: PretrainedConfig) -> str:
    """A line that differs between configurations that compute something else with the same weights."""
    found = {name: getattr(config, name) for name in _COMPUTATION if getattr(config, name, None) is not None}
    return f"{describe_config(config)}, {found}"


def first_position(config: PretrainedConfig) -> int:
    """Position id of the first token: 0, but ``pad_token_id + 1`` in RoBERTa and its relatives.

    Raises:
        UserError: one of these without a padding token.
    """
    if not LAYOUTS[config.model_type].positions_from_padding:
        return 0
    if config.pad_token_id is None or config.pad_token_id < 0:
        raise UserError(
            f"{config.name_or_path}/config.json: pad_token_id is {config.pad_token_id}, but positions of "
            f"{config.model_type} are counted from it; set it as in the pretraining (1)"
        )
    return int(config.pad_token_id) + 1


def patch_size(config: PretrainedConfig) -> int:
    """Height and width of the patches of an image encoder, in pixels.

    Raises:
        UserError: the patches are not square.
    """
    return _one_side(config, "patch_size")


def _one_side(config: PretrainedConfig, name: str) -> int:
    """The value of a size that config.json gives as a number, or as a list of height and width."""
    value = getattr(config, name)
    sides = set(value) if isinstance(value, list | tuple) else {value}
    if len(sides) != 1 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"{config.name_or_path}/config.json: {name} is {value}; only squares are supported")
    return int(sides.pop())


def image_size(config: PretrainedConfig, asked: int | None = None) -> int:
    """Height and width of an encoder's input images, in pixels.

    Args:
        config: of the encoder.
        asked: the requested size; by default that of the configuration. For another size, position embeddings
            are interpolated.

    Raises:
        UserError: the encoder expects images that are not square, or the size is no multiple of its patches.
    """
    own, patch = _one_side(config, "image_size"), patch_size(config)
    if own % patch:
        raise UserError(
            f"{config.name_or_path}/config.json: image_size {own} is not a multiple of patch_size {patch}"
        )
    if asked in (None, own):
        return own
    if asked % patch:
        raise UserError(f"--image_size {asked}: must be a multiple of the patch size {patch}")
    return asked


def load_backbone(folder: Path, kinds: Collection[str], layers: int | None = None) -> PreTrainedModel:
    """A pretrained encoder in float32, without pooler, with attention by ``scaled_dot_product_attention``.

    Args:
        folder: a Hugging Face folder.
        kinds: supported model types.
        layers: number of layers to keep; None for all.

    Raises:
        UserError: weights are missing, unexpected or of another shape, the folder contains an adapter, or
            the configuration is not supported (see :func:`backbone_config`).
    """
    config = backbone_config(folder, kinds, layers)
    if (folder / "adapter_config.json").is_file():  # transformers would load the adapter, or ignore it
        raise UserError(f"{folder}: contains an adapter (adapter_config.json); move it to another folder")
    _require_plausible_sizes(folder, config)
    with _reading(folder, "the weights"):
        model: PreTrainedModel
        model, report = AutoModel.from_pretrained(
            folder,
            config=config,
            **({"add_pooling_layer": False} if LAYOUTS[config.model_type].optional_pooler else {}),
            **_LOCAL,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked below, with a clearer error message
        )
    _check_weights(folder, model, report, layers)
    return model


def _require_plausible_sizes(folder: Path, config: PretrainedConfig) -> None:
    """Check the sizes in config.json against the size of the weights before memory is allocated.

    Raises:
        UserError: a size that the weights cannot have.
    """
    file = folder / "config.json"
    found = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in _WEIGHTS)
    layers, width, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    if not 0 < layers <= _MOST_LAYERS:
        raise UserError(f"{file}: num_hidden_layers is {layers}; expected 1 to {_MOST_LAYERS}")
    if width < 1 or heads < 1 or width % heads:
        raise UserError(f"{file}: hidden_size {width} is not a multiple of num_attention_heads {heads}")
    for name, rows in _rows_of(config).items():
        if rows * width > found + _SLACK_BYTES:
            value = getattr(config, name)
            raise UserError(f"{file}: {name} is {value}, which does not fit the weights")


def _rows_of(config: PretrainedConfig) -> dict[str, int]:
    """For each setting that determines the size of a weight, its number of rows of width ``hidden_size``."""
    rows = {name: value for name in _SIZES if isinstance(value := getattr(config, name, None), int)}
    if config.model_type in IMAGE_ENCODERS:
        patch = patch_size(config)
        rows |= {
            "image_size": (image_size(config) // patch) ** 2,
            "num_channels": config.num_channels * patch**2,
        }
        rows["mlp_ratio"] = int(config.hidden_size * getattr(config, "mlp_ratio", 0))
    return rows


def _check_weights(
    folder: Path, model: PreTrainedModel, report: Mapping[str, Any], layers: int | None
) -> None:
    """Check the loading report of transformers: all weights are read, but heads and layers that are cut off.

    Raises:
        UserError: weights are missing, of another shape, or not in the model.
    """
    prefix = rf"(({model.base_model_prefix}|vision_model)\.)?"

    def is_unread(name: str) -> bool:
        layer = re.match(rf"{prefix}(encoder\.)?layers?\.(\d+)\.", name)
        cut_off = layers is not None and layer is not None and int(layer[4]) >= layers
        return not cut_off and not re.fullmatch(rf"{prefix}({_UNUSED_WEIGHTS})", name)

    found = {
        "missing": report["missing_keys"],
        "not in the model": [name for name in report["unexpected_keys"] if is_unread(name)],
        "of another shape": {name for name, *_ in report["mismatched_keys"]},
    }
    lines = [
        f"\n  {kind}: {', '.join(sorted(names)[:_MAX_LISTED])}" for kind, names in found.items() if names
    ]
    if lines:
        raise UserError(f"{folder}: the weights do not match config.json{''.join(lines)}")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder (fast or slow), checked against config.json.

    Raises:
        UserError: it is missing, has token ids outside the embedding table, or does not start each text with
            a class token.
    """
    config = backbone_config(folder, TEXT_ENCODERS)
    with _reading(folder, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, **_LOCAL)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers does not need the files to exist
        files = ", ".join(tokenizer.vocab_files_names.values())
        raise UserError(f"{folder}: the tokenizer has no vocabulary; it is read from {files}")
    token, largest = max(tokenizer.get_vocab().items(), key=lambda entry: entry[1], default=("", -1))
    if largest >= config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer does not match the weights: token {token!r} has id {largest}, "
            f"vocab_size in config.json is {config.vocab_size}"
        )
    with _reading(folder, "the tokenizer"):
        empty, short = (
            tokenizer(text, truncation=True, max_length=8)["input_ids"][:1] for text in ("", _PROBE)
        )
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
            reason = reason_of(error)
            if "trust_remote_code" in str(error):
                reason = "it requires custom code (auto_map), which is not supported"
            raise UserError(f"{folder}: {what} cannot be read: {reason}") from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence log messages and progress bars of transformers."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
