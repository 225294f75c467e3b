"""Loading tensors of a file into a model, and saying what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from adapter4rec.models.sharding import put_state
from adapter4rec.utils.errors import UserError

_MAX_LISTED = 5


def misfits(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Why tensors do not fit: missing and unexpected names, and other shapes; one line each."""
    trouble = [f"{name}: not in the model" for name in tensors if name not in expected]
    trouble += [f"{name}: not in the file" for name in expected if name not in tensors]
    return trouble + [
        f"{name}: {list(tensors[name].shape)} in the file, {list(tensor.shape)} in the model"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]


def load_into(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    source: Path,
    expected: Mapping[str, Tensor] | None = None,
) -> None:
    """Load tensors into a model.

    Args:
        model: the model.
        tensors: by name.
        source: the file that they come from, for the message.
        expected: the entries of the model that ``tensors`` must have, exactly; by default all.

    Raises:
        UserError: they do not fit; it names the entries.
    """
    trouble = misfits(model.state_dict() if expected is None else expected, tensors)
    if trouble:
        more = f"\n  … and {len(trouble) - _MAX_LISTED} more" if len(trouble) > _MAX_LISTED else ""
        raise UserError(f"{source} does not fit the model:\n  " + "\n  ".join(trouble[:_MAX_LISTED]) + more)
    put_state(model, tensors, strict=expected is None)
