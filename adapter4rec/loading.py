"""Source models in a notebook: one line from a file to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapter4rec.checkpoints import load_into
from adapter4rec.errors import UserError
from adapter4rec.modalities import MODALITIES
from adapter4rec.models.building import build_model
from adapter4rec.models.transrec import TransRec
from adapter4rec.source_models import read_source_model
from adapter4rec.stages import ImageSourceSettings, RunSettings, TextSourceSettings

_NOT_READ = {"users": "not read", "items": "not read"}


def load_source(path: Path | str, **settings: Any) -> TransRec:
    """A source model in eval mode, on the CPU.

    An exported one says which backbone and sizes it has; for a checkpoint of the released code, or a backbone
    that lies elsewhere now, they are given.

    Args:
        path: what source training exported (``.safetensors``), or a released ``.pt``.
        settings: settings of the source stage that the file does not say or that are others now, as
            ``backbone="bert/bert_base_uncased"``; ``modality="image"`` for a released image model.

    Raises:
        UserError: missing, damaged, or not fitting the backbone.
    """
    source = read_source_model(Path(path))
    identity = source.description.get("identity") or {}
    modality = settings.pop("modality", None) or identity.get("stage", "text").split()[0]
    stages: dict[str, type[RunSettings]] = {"text": TextSourceSettings, "image": ImageSourceSettings}
    if modality not in stages:
        raise UserError(f"modality {modality!r}: expected text or image")
    chosen = stages[modality].from_values(_NOT_READ | identity.get("settings", {}) | settings)
    n_items = len(source.tensors.get("item_encoder.head.weight", ()))
    model = build_model(chosen, MODALITIES[modality].build_encoder, n_items)
    load_into(model, source.tensors, source.path)
    return model.eval()
