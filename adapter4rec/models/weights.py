"""Loading tensors into a model, with an error message that lists mismatches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from adapter4rec.utils.errors import UserError

_MAX_LISTED = 5


def mismatches(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Mismatches between two sets of tensors: unexpected and missing names, and shapes; one line each."""
    lines = [f"{name}: not in the model" for name in tensors if name not in expected]
    lines += [f"{name}: not in the file" for name in expected if name not in tensors]
    return lines + [
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
        source: the file of the tensors, for the error message.
        expected: the entries of the model that ``tensors`` must match exactly; by default all.

    Raises:
        UserError: names or shapes do not match; the message lists them.
    """
    lines = mismatches(model.state_dict() if expected is None else expected, tensors)
    if lines:
        more = f"\n  … and {len(lines) - _MAX_LISTED} more" if len(lines) > _MAX_LISTED else ""
        raise UserError(f"{source} does not fit the model:\n  " + "\n  ".join(lines[:_MAX_LISTED]) + more)
    model.load_state_dict(tensors, strict=expected is None)
