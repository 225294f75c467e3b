"""Source models, from which target domains start: exported by a run, or released with the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adapter4rec.checkpoints.released import read_released
from adapter4rec.models.backbones import describe_config
from adapter4rec.models.registry import OBJECTIVES
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into
from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint
from adapter4rec.utils.errors import UserError

_WHAT = "source model"
_RELEASED_SUFFIXES = (".pt", ".pth", ".bin")


@dataclass(frozen=True)
class SourceModel:
    """All weights of a TransRec model without adapters.

    Attributes:
        path: the file.
        tensors: weights by the names of this project.
        objective: the training objective; None if not recorded.
        description: other metadata of the file.
    """

    path: Path
    tensors: dict[str, Tensor]
    objective: str | None
    description: dict[str, Any]


def require_export_path(path: Path) -> None:
    """Raise a UserError unless the path ends in ``.safetensors``."""
    if path.suffix != ".safetensors":
        raise UserError(f"--export {path}: the file name must end in .safetensors")


def require_new(path: Path, *, overwrite: bool) -> None:
    """Raise a UserError if the file exists, unless it may be overwritten."""
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


def read_source_model(path: Path) -> SourceModel:
    """Read an exported source model, or a checkpoint of the released code (``.pt``).

    Raises:
        UserError: the file is missing, damaged, or not a source model.
    """
    if path.suffix in _RELEASED_SUFFIXES:
        return SourceModel(path, read_released(path), None, {})
    checkpoint = read_checkpoint(path)
    if checkpoint.description.get("what") != _WHAT:
        raise UserError(
            f"{path}: contains {checkpoint.description.get('what')!r}, not a {_WHAT}; "
            "pass the file that source training exported (--export)"
        )
    objective = checkpoint.description.get("objective")
    if objective not in OBJECTIVES:
        raise UserError(f"{path}: trained with the unknown objective {objective!r}")
    return SourceModel(path, checkpoint.tensors, objective, checkpoint.description)


def require_source(path: Path | None, method: str) -> None:
    """Raise a UserError if no source model is given, or the file does not exist."""
    if path is None:
        raise UserError(f"--source_checkpoint is required: {method} starts from a source model")
    if not path.is_file():
        raise UserError(
            f"{path}: no such checkpoint; train one with a launcher in Pretraining/*/script, or choose "
            "another with --source_checkpoint"
        )


def load_source_weights(model: TransRec, path: Path, objective: str) -> None:
    """Load the weights of a source model into a target model.

    Args:
        model: of the same architecture, without adapters.
        path: of the source model.
        objective: training objective on the target domain.

    Raises:
        UserError: the source model cannot be read, does not match the model, or has another objective.
    """
    source = read_source_model(path)
    if source.objective not in (None, objective):
        raise UserError(
            f"{path}: trained with the objective {source.objective}; use the same objective on the target "
            f"(--objective {source.objective})"
        )
    load_source_state(model, source)


def load_source_state(model: TransRec, source: SourceModel) -> None:
    """Load the weights of a source model that has been read already into a model.

    Raises:
        UserError: the weights do not match the model, or were trained with another backbone.
    """
    backbone = getattr(model.item_encoder, "backbone", None)
    if backbone is not None:
        encoder = describe_config(backbone.config)
        if source.description.get("encoder") not in (None, encoder):
            raise UserError(
                f"{source.path}: trained with the backbone {source.description['encoder']}; this backbone is "
                f"{encoder}"
            )
    load_into(model, source.tensors, source.path)
