"""Reading files of tensors, and loading tensors into a model, with a message that lists mismatches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import require_regular, utf8_path
from adapter4rec.utils.plain_text import SNIFFED_BYTES, not_text

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


def largest_size(tensors: Mapping[str, Tensor]) -> int:
    """The largest dimension of any tensor; 0 if there is none."""
    return max((size for one in tensors.values() for size in one.shape), default=0)


def read_tensors(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file, or one written by ``torch.save``, without unpickling other objects.

    Args:
        path: the file.
        entry: the entry of a pickled dictionary that has the tensors; by default the whole file.

    Returns:
        Tensors by name, on CPU.

    Raises:
        UserError: the file is missing or damaged, or contains other objects.
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            start = file.read(SNIFFED_BYTES)
        if not start.startswith(b"PK") and (what := not_text(start)):
            raise UserError(f"{path}: {what}")
        if path.suffix == ".safetensors":
            with utf8_path(path) as readable:
                return load_file(readable)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # damaged files raise exceptions of any type
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise UserError(f"{path}: cannot be read, or contains more than tensors ({reason})") from None
    if entry is not None:
        content = content.get(entry) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(one, Tensor) and one.layout == torch.strided and not one.is_meta
        for name, one in content.items()
    ):
        raise UserError(f"{path}: not a dictionary of tensors" + (f" in {entry!r}" if entry else ""))
    return content


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
    require_same(model.state_dict() if expected is None else expected, tensors, source)
    model.load_state_dict(tensors, strict=expected is None)


def require_same(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: Path) -> None:
    """Raise a UserError that lists mismatches of names and shapes, if there are any.

    Args:
        expected: tensors of the model.
        tensors: of the file.
        source: the file, for the error message.
    """
    if lines := mismatches(expected, tensors):
        more = f"\n  … and {len(lines) - _MAX_LISTED} more" if len(lines) > _MAX_LISTED else ""
        raise UserError(f"{source} does not fit the model:\n  " + "\n  ".join(lines[:_MAX_LISTED]) + more)
