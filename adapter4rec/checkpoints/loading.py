"""Loading source models in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapter4rec.checkpoints.rebuilding import rebuilt_settings
from adapter4rec.checkpoints.released import is_text
from adapter4rec.checkpoints.source_models import load_source_weights, read_source_model
from adapter4rec.models.registry import USER_ENCODERS, registered
from adapter4rec.models.transrec import TransRec, new_transrec, require_sizes
from adapter4rec.utils.checkpoint_file import Checkpoint

_NOT_READ = {"users": "not read", "items": "not read"}


def load_source(path: Path | str, **settings: Any) -> TransRec:
    """Load a source model in eval mode, on CPU.

    An exported model records its backbone and sizes. For a checkpoint of the released code, pass the backbone
    (and ``user_heads``, if not 2); also if the backbone's folder was moved. The model's loss does not know
    the number of items; replace it before further training.

    Args:
        path: a model exported by source training (``.safetensors``), or a released checkpoint (``.pt``).
        settings: settings of the source stage that are not recorded or that have changed, as
            ``backbone="bert/bert_base_uncased"``; None for the recorded value.

    Raises:
        UserError: the file is missing or damaged, or does not match the backbone.
    """
    source = read_source_model(Path(path))
    modality, recorded = recorded_settings(source, settings.get("user_encoder"))
    kind = f"{settings.pop('modality', None) or modality} source"
    folder = source.description.get("folder")
    chosen = rebuilt_settings(source.path, kind, _NOT_READ | recorded, settings, folder)
    require_sizes(chosen, source.tensors, source.path)
    n_items = len(source.tensors.get("item_encoder.head.weight", ()))
    model = new_transrec(chosen, chosen.encoder_builder(type(chosen).build_encoder), n_items)
    load_source_weights(model, source)
    return model.eval()


def recorded_settings(source: Checkpoint, user_encoder: str | None = None) -> tuple[str, dict[str, Any]]:
    """What a source model says of itself: its modality and its settings.

    A checkpoint of the released code has neither: they follow from the names and shapes of its weights.

    Args:
        source: the source model.
        user_encoder: name of its user encoder, if it is not the recorded one.
    """
    identity = source.description.get("identity") or {}
    of_file = source.description.get("settings") or identity.get("settings", {})
    stage = identity.get("stage", "text" if is_text(source.tensors) else "image")
    encoder = registered(USER_ENCODERS, str(user_encoder or of_file.get("user_encoder", "transformer")))
    start = "user_encoder."
    weights = {
        name.removeprefix(start): tensor for name, tensor in source.tensors.items() if name.startswith(start)
    }
    return stage.split()[0], encoder.sizes_of(weights) | of_file | {"start_from": None}
