"""Checks of the loading report of transformers: missing, unexpected and mismatched weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from adapter4rec.utils.errors import UserError

_UNUSED_WEIGHTS = (
    r"pooler\..+|embeddings\.(position_ids|token_type_ids|mask_token)|(classifier|qa_outputs)\..+"
)
_UNUSED_WEIGHTS_OF = {
    "bert": r"cls\..+",
    "roberta": r"lm_head\..+",
    "xlm-roberta": r"lm_head\..+",
    "modernbert": r"(head|decoder)\..+",
    "vit": r"decoder\..+",
    "vit_mae": r"decoder\..+",
    "clip_vision_model": r"text_model\..+|(text|visual)_projection\.weight|logit_scale",
}
"""Weights of published checkpoints that the encoder does not use: heads, poolers, decoders, text towers."""
_MAX_LISTED = 3


def check_loading_report(
    folder: Path, model: PreTrainedModel, report: Mapping[str, Any], layers: int | None
) -> None:
    """Check that a folder has exactly the weights of a model, apart from unused heads and poolers.

    Args:
        folder: of the backbone, for the error message.
        model: the model loaded from it.
        report: the loading report of transformers.
        layers: number of layers that were kept; None for all.

    Raises:
        UserError: weights are missing, unexpected or of another shape.
    """
    unused = rf"{_UNUSED_WEIGHTS}|{_UNUSED_WEIGHTS_OF.get(model.config.model_type, '(?!)')}"
    name_of_unused = re.compile(rf"(({model.base_model_prefix}|vision_model)\.)?({unused})")
    later_layer = re.compile(rf"(({model.base_model_prefix}|vision_model)\.)?(encoder\.)?layers?\.(\d+)\..+")

    def expected(name: str) -> bool:
        layer = later_layer.fullmatch(name)
        cut_off = layers is not None and layer is not None and int(layer[4]) >= layers
        return cut_off or name_of_unused.fullmatch(name) is not None

    found = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(name for name in report["unexpected_keys"] if not expected(name)),
        "mismatched": [
            f"{name} ({list(found)} in the file, {list(expected)} by config.json)"
            for name, found, expected in sorted(report["mismatched_keys"])
        ],
    }
    lines = [f"\n  {kind}: {_listed(names)}" for kind, names in found.items() if names]
    if lines:
        raise UserError(f"{folder}: the weights do not match config.json{''.join(lines)}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more
