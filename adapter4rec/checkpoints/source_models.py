"""Source models, from which target domains start: exported by a run, or released with the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from adapter4rec.checkpoints.released import read_released
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.registry import OBJECTIVES
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into
from adapter4rec.utils.checkpoint_file import Checkpoint, read_checkpoint, read_description, write_checkpoint
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.records import Object, checked_in
from adapter4rec.utils.settings import as_argument

_WHAT = "source model"
_OF_THE_MODEL = (
    *("max_seq_len", "attributes", "title_tokens", "abstract_tokens", "body_tokens"),
    *("image_size", "normalisation", "release_masking"),
    *("user_encoder", "embedding_dim", "user_heads", "user_blocks", "cosine"),
)
"""Settings in which a target should not differ from its source. The backbone is compared by itself."""
_RELEASED_SUFFIXES = (".pt", ".pth", ".bin")


class _Origin(TypedDict):
    stage: str
    settings: Object


@dataclass(frozen=True)
class _Description:
    """What of a source model's description is read, here and in ``loading.py``."""

    objective: str
    encoder: str = ""
    identity: _Origin | None = None


def require_export_path(path: Path, *, overwrite: bool) -> None:
    """Raise a UserError unless the path ends in ``.safetensors``, and is new or may be overwritten."""
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: the file name must end in .safetensors")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: already exists; choose another file, or replace it with --overwrite")


def export_source_model(
    tensors: Mapping[str, Tensor], path: Path, objective: str, description: Mapping[str, Any]
) -> None:
    """Write a source model.

    Args:
        tensors: all weights, by name.
        path: a ``.safetensors`` file.
        objective: the training objective.
        description: other metadata.
    """
    write_checkpoint(path, tensors, {**description, "what": _WHAT, "objective": objective})


def read_source_model(path: Path) -> Checkpoint:
    """Read all weights of a TransRec model without adapters.

    Args:
        path: an exported source model, or a checkpoint of the released code (``.pt``), which has no
            description.

    Raises:
        UserError: the file is missing, damaged, or not a source model.
    """
    if path.suffix in _RELEASED_SUFFIXES:
        return Checkpoint(path, read_released(path), {})
    checkpoint = read_checkpoint(path)
    if checkpoint.description["what"] != _WHAT:
        raise UserError(
            f"{path}: contains {checkpoint.description['what']!r}, not a {_WHAT}; "
            "pass the file that source training exported (--export)"
        )
    description = checked_in(path, checkpoint.description, _Description)
    if description.objective not in OBJECTIVES:
        raise UserError(f"{path}: unknown training objective {description.objective!r}")
    return checkpoint


def require_source(path: Path | None, method: str) -> Path:
    """The path of the source model; raises a UserError if none is given, or the file does not exist."""
    if path is None:
        raise UserError(f"--source_checkpoint is required: {method} starts from a source model")
    if not path.is_file():
        raise UserError(
            f"{path}: no such checkpoint; train one with a launcher in Pretraining/*/script, or choose "
            "another with --source_checkpoint"
        )
    return path


def read_source_settings(path: Path | None) -> Mapping[str, Any]:
    """The settings that a source model was trained with, by name; none if its file does not record them.

    Raises:
        UserError: the file is missing or damaged.
    """
    if path is None or path.suffix in _RELEASED_SUFFIXES:
        return {}
    return _settings_of(read_description(path))


def _settings_of(description: Mapping[str, Any]) -> Mapping[str, Any]:
    settings: Mapping[str, Any] = (description.get("identity") or {}).get("settings", {})
    return settings


def differing_settings(source: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Settings of the model and of its input that differ from those of the source model.

    Args:
        source: settings of the source model (see :func:`read_source_settings`).
        settings: settings of the target, as JSON-serialisable values.

    Returns:
        Texts such as ``--title_tokens 30, not 20 as here``.
    """
    read = {f"{attribute}_tokens" for attribute in settings.get("attributes", ())}
    return [
        f"--{name} {as_argument(source[name])}, not {as_argument(settings[name])} as here"
        for name in _OF_THE_MODEL
        if name in source and name in settings and source[name] != settings[name]
        if not name.endswith("_tokens") or name in read
    ]


def load_source_weights(
    model: TransRec, source: Checkpoint, settings: Mapping[str, Any] | None = None
) -> None:
    """Load the weights of a source model into a model. A loss with other parameters keeps its own.

    Args:
        model: of the same architecture, without adapters.
        source: the source model (see :func:`read_source_model`).
        settings: settings of the target, as JSON-serialisable values. Its training objective must be that of
            the source model if that records one. Others that differ are named if the weights do not match.

    Raises:
        UserError: the weights do not match the model, or were trained with another backbone or objective.
    """
    trained_with, objective = source.description.get("objective"), (settings or {}).get("objective")
    if objective is not None and trained_with not in (None, objective):
        raise UserError(
            f"{source.path}: trained with the objective {trained_with}; use the same objective on the target "
            f"(--objective {trained_with})"
        )
    if isinstance(model.item_encoder, ContentItemEncoder):
        encoder = model.item_encoder.describe()
        recorded = source.description.get("encoder", encoder)
        if recorded != encoder:
            raise UserError(f"{source.path}: trained with the backbone {recorded}, not with {encoder}")
    on_vectors = not any(name.startswith("item_encoder.backbone.") for name in source.tensors)
    if isinstance(model.item_encoder, ContentItemEncoder) and on_vectors:
        raise UserError(f"{source.path}: has no backbone; it was trained with --item_vectors or --method id")
    tensors, loss = dict(source.tensors), {f"loss.{name}" for name in model.loss.state_dict()}
    if loss != (of_source := {name for name in tensors if name.startswith("loss.")}):  # another loss
        state = model.state_dict()
        tensors = {name: one for name, one in tensors.items() if name not in of_source}
        tensors |= {name: state[name] for name in loss}
    try:
        load_into(model, tensors, source.path)
    except UserError as error:
        if lines := differing_settings(_settings_of(source.description), settings or {}):
            raise UserError(f"{source.path}: trained with {'; '.join(lines)}\n{error}") from None
        raise
