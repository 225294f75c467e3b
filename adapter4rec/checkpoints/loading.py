"""Source models in a notebook: one line from a file to a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from adapter4rec.checkpoints.released import is_text
from adapter4rec.checkpoints.source_models import put_into, read_source_model
from adapter4rec.modalities import MODALITIES
from adapter4rec.models.building import build_model
from adapter4rec.models.transrec import TransRec
from adapter4rec.stages import ImageSourceSettings, RunSettings, TextSourceSettings
from adapter4rec.utils.errors import UserError

_NOT_READ = {"users": "not read", "items": "not read"}


def load_source(path: Path | str, **settings: Any) -> TransRec:
    """A source model in eval mode, on the CPU.

    An exported one says which backbone and sizes it has; for a checkpoint of the released code, or a backbone
    that lies elsewhere now, the backbone is given (and the number of heads, where it is not 2).

    Args:
        path: what source training exported (``.safetensors``), or a released ``.pt``.
        settings: settings of the source stage that the file does not say or that are others now, as
            ``backbone="bert/bert_base_uncased"``; None for what the file says.

    Raises:
        UserError: missing, damaged, or not fitting the backbone.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    source = read_source_model(Path(path))
    identity = source.description.get("identity") or {}
    kind = "text" if is_text(source.tensors) else "image"
    modality = settings.pop("modality", None) or identity.get("stage", kind).split()[0]
    stages: dict[str, type[RunSettings]] = {"text": TextSourceSettings, "image": ImageSourceSettings}
    if modality not in stages:
        raise UserError(f"modality {modality!r}: expected text or image")
    said = _sizes(source.tensors) | identity.get("settings", {})
    try:
        chosen = stages[modality].from_values(_NOT_READ | said | settings)
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from None
    n_items = len(source.tensors.get("item_encoder.head.weight", ()))
    model = build_model(chosen, MODALITIES[modality].build_encoder, n_items)
    put_into(model, source)
    return model.eval()


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Settings that weights tell by themselves; not the number of heads."""
    positions = tensors.get("user_encoder.position_embedding.weight")
    if positions is None:
        return {}
    blocks = {name.split(".")[2] for name in tensors if name.startswith("user_encoder.blocks.")}
    return {
        "max_seq_len": positions.shape[0],
        "embedding_dim": positions.shape[1],
        "user_blocks": len(blocks),
    }
