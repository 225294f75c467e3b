"""Checkpoints of the code released with the paper: their names, and reading them without running code.

A released file holds ``model_state_dict`` beside the optimizer's and the random generators' states; it is
read with torch's ``weights_only``. ``python -m adapter4rec.convert`` makes ours of one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from adapter4rec.errors import UserError

_UNUSED = re.compile(r"(^|\.)(pooler\..*|position_ids|token_type_ids)$")
"""Poolers take no part in the model; index buffers are no weights."""

_RENAMED: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^bert_encoder\.text_encoders\.\w+\.bert_model\.", "item_encoder.backbone."),
        (r"^bert_encoder\.text_encoders\.\w+\.fc\.", "item_encoder.head."),
        (r"^cv_encoder\.(image_net\.classifier|cv_proj)\.", "item_encoder.head."),
        (r"^cv_encoder\.image_net\.(vit\.)?", "item_encoder.backbone."),
        # Houlsby adapters wrap a sublayer's output module; the wrapped module keeps its name inside.
        (
            r"^item_encoder\.backbone\.encoder\.layer\.(\d+)\.attention\.output\.adapter\.fc_",
            r"adapters.item.layers.\1.attention.",
        ),
        (
            r"^item_encoder\.backbone\.encoder\.layer\.(\d+)\.output\.adapter\.fc_",
            r"adapters.item.layers.\1.feed_forward.",
        ),
        (r"\.output\.self_output\.", ".output."),
        (
            r"^user_encoder\.transformer_encoder\.transformer_blocks\.(\d+)\.adapter1\.fc_",
            r"adapters.user.layers.\1.attention.",
        ),
        (
            r"^user_encoder\.transformer_encoder\.transformer_blocks\.(\d+)\.adapter2\.fc_",
            r"adapters.user.layers.\1.feed_forward.",
        ),
        (
            r"^user_encoder\.transformer_encoder\.transformer_blocks\.(\d+)\.(transformer_block\.)?",
            r"user_encoder.blocks.\1.",
        ),
        (r"^user_encoder\.transformer_encoder\.", "user_encoder."),
        (r"^(user_encoder\.blocks\.\d+)\.multi_head_attention\.fc\.", r"\1.attention.output."),
        (r"^(user_encoder\.blocks\.\d+)\.multi_head_attention\.", r"\1.attention."),
        (r"\.attention\.w_Q\.", ".attention.query."),
        (r"\.attention\.w_K\.", ".attention.key."),
        (r"\.attention\.w_V\.", ".attention.value."),
        (r"\.feed_forward\.w_1\.", ".feed_forward.up."),
        (r"\.feed_forward\.w_2\.", ".feed_forward.down."),
    )
]


_IMAGE_ENCODER_RENAMED: list[tuple[re.Pattern[str], str]] = [
    (re.compile(rf"^(item_encoder\.backbone\.layers\.\d+)\.{old}\."), rf"\1.{new}.")
    for old, new in (
        (r"attention\.attention\.query", "attention.q_proj"),
        (r"attention\.attention\.key", "attention.k_proj"),
        (r"attention\.attention\.value", "attention.v_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
    )
]
"""Since transformers 5 the parts of ViT and ViTMAE have other names; those of BERT and RoBERTa have not."""


def renamed(name: str) -> str | None:
    """The name that an entry of a released state has here; None for what the model does not use."""
    if _UNUSED.search(name):
        return None
    is_image = name.startswith("cv_encoder.")
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    if is_image:
        name = name.replace("item_encoder.backbone.encoder.layer.", "item_encoder.backbone.layers.", 1)
        for pattern, replacement in _IMAGE_ENCODER_RENAMED:
            name = pattern.sub(replacement, name)
    return name


def converted(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released ``model_state_dict`` by the names of this project."""
    return {ours: tensor for name, tensor in released.items() if (ours := renamed(name)) is not None}


def read_released(path: Path) -> dict[str, Tensor]:
    """Read a released checkpoint; nothing but tensors is unpickled.

    Raises:
        UserError: missing, damaged, holding more than tensors, or without a ``model_state_dict``.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: no checkpoint that holds tensors alone ({str(error).splitlines()[0]})"
        ) from None
    if not isinstance(content, dict) or "model_state_dict" not in content:
        raise UserError(f"{path}: holds no 'model_state_dict', so it is no checkpoint of the released code")
    return converted(content["model_state_dict"])
