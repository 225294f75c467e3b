"""Source models: what a target domain starts from, exported by our runs or released with the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adapter4rec.checkpoints.released import read_released
from adapter4rec.models.backbones import described
from adapter4rec.models.losses import Objective
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into
from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint
from adapter4rec.utils.errors import UserError

_WHAT = "source model"
_RELEASED_SUFFIXES = (".pt", ".pth", ".bin")


@dataclass(frozen=True)
class SourceModel:
    """All weights of a TransRec model without adapters, by the names of this project.

    Attributes:
        path: where they come from.
        tensors: by name.
        objective: what the model was trained for; None where the file does not say.
        description: what else the file says of where it comes from.
    """

    path: Path
    tensors: dict[str, Tensor]
    objective: Objective | None
    description: dict[str, Any]


def require_export_path(path: Path) -> None:
    """Raise a UserError for a file that an exported model could not be read from again."""
    if path.suffix != ".safetensors":
        raise UserError(f"--export {path}: the file must end in .safetensors")


def require_new(path: Path, *, overwrite: bool) -> None:
    """Raise a UserError for a file that exists, unless it may be overwritten."""
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists; name another file, or replace it with --overwrite")


def export_source_model(
    tensors: Mapping[str, Tensor], path: Path, objective: Objective, description: Mapping[str, Any]
) -> None:
    """Write the weights of a source model for target domains to start from.

    Args:
        tensors: all weights, by name.
        path: a ``.safetensors`` file.
        objective: what the model was trained for.
        description: where it comes from.
    """
    write_checkpoint(path, tensors, {**description, "what": _WHAT, "objective": objective.value})


def read_source_model(path: Path) -> SourceModel:
    """Read an exported source model, or a checkpoint of the released code (``.pt``).

    Raises:
        UserError: missing, damaged, or no source model.
    """
    if path.suffix in _RELEASED_SUFFIXES:
        return SourceModel(path, read_released(path), None, {})
    checkpoint = read_checkpoint(path)
    if checkpoint.description.get("what") != _WHAT:
        raise UserError(
            f"{path}: holds {checkpoint.description.get('what')!r}, not a {_WHAT}; "
            "name the file that source training exported (--export)"
        )
    said = checkpoint.description
    try:
        objective = Objective(said.get("objective"))
    except ValueError:
        raise UserError(
            f"{path}: trained with the objective {said.get('objective')!r}, unknown here"
        ) from None
    return SourceModel(path, checkpoint.tensors, objective, said)


def put_into(model: TransRec, source: SourceModel) -> None:
    """Put a source model's weights into a model.

    Raises:
        UserError: they do not fit, or the backbone is of another kind than the one they were trained with.
    """
    backbone = getattr(model.item_encoder, "backbone", None)
    if backbone is not None:
        here = described(backbone.config)
        if source.description.get("encoder") not in (None, here):
            raise UserError(
                f"{source.path}: trained with the backbone {source.description['encoder']}; this one is "
                f"{here}"
            )
    load_into(model, source.tensors, source.path)
