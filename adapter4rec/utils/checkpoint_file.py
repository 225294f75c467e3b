"""Checkpoints: safetensors files with a JSON description in their header.

``NAME.json`` next to ``NAME.safetensors`` repeats the description and adds the file's SHA-256, which is
verified when the checkpoint is read. Files are written atomically, so weights and description match.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import file_hash, json_object, read_json, whole_file, write_json

_HEADER = "adapter4rec"
_HASH, _HASHES_BEFORE = "sha256", "sha256_before"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and their description."""

    path: Path
    tensors: dict[str, Tensor]
    description: dict[str, Any]


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a checkpoint, and next to it a JSON file with its description and SHA-256.

    Until the new file has replaced the old one, the JSON file lists the hashes of both: a process killed at
    any moment leaves a pair that can be read.
    """
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    beside = path.with_suffix(".json")
    before = _known_hashes(beside) if path.is_file() and beside.is_file() else []
    with whole_file(path) as aside:
        try:
            save_file(plain, aside, metadata={_HEADER: json.dumps(description)})
        except SafetensorError as error:
            raise UserError(f"{path}: could not be written ({error})") from None
        record = {**description, _HASH: file_hash(aside)}
        write_json(beside, {**record, _HASHES_BEFORE: before} if before else record)
    if before:
        write_json(beside, record)


@dataclass(frozen=True)
class Rows:
    """A float32 tensor that is computed some rows at a time.

    Attributes:
        shape: of the whole tensor.
        parts: the whole tensor, split along the first dimension.
    """

    shape: tuple[int, ...]
    parts: Iterable[Tensor]


def write_rows(path: Path, tensors: Mapping[str, Rows], description: Mapping[str, Any]) -> None:
    """Write a checkpoint without holding a whole tensor in memory; not atomic, ``path`` is a temporary file.

    The safetensors library writes only whole tensors.

    Args:
        path: the file to write.
        tensors: by name.
        description: of the checkpoint.

    Raises:
        ValueError: the parts of a tensor do not have its shape.
    """
    header: dict[str, Any] = {"__metadata__": {_HEADER: json.dumps(description)}}
    end = 0
    for name, rows in tensors.items():
        start, end = end, end + 4 * math.prod(rows.shape)
        header[name] = {"dtype": "F32", "shape": list(rows.shape), "data_offsets": [start, end]}
    raw = json.dumps(header).encode("utf-8")
    raw += b" " * (-len(raw) % 8)  # tensors start at a multiple of 8
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for rows in tensors.values():
            for part in rows.parts:
                file.write(part.detach().cpu().numpy().astype("<f4", copy=False).tobytes())
        if file.tell() != 8 + len(raw) + end:
            raise ValueError(
                f"{path}: parts do not have the shapes {[rows.shape for rows in tensors.values()]}"
            )


def read_description(path: Path) -> dict[str, Any]:
    """The description of a checkpoint, without its tensors.

    Raises:
        UserError: missing, damaged, or not a checkpoint of this project.
    """
    with _opened(path) as file:
        return _described(file, path)


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint with its tensors, on the CPU.

    Raises:
        UserError: missing, damaged, or not a checkpoint of this project.
    """
    with _opened(path) as file:
        description = _described(file, path)
        return Checkpoint(path, {name: file.get_tensor(name) for name in file.keys()}, description)  # noqa: SIM118


def _opened(path: Path):  # noqa: ANN202 (safetensors' own handle)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    _verify(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error})") from None


def _verify(path: Path) -> None:
    """Compare a checkpoint's SHA-256 with the one in its JSON file.

    Raises:
        UserError: they differ, or the JSON file is damaged.
    """
    beside = path.with_suffix(".json")
    if not beside.is_file():
        print(f"warning: {path}: not verified, {beside.name} with its SHA-256 is missing", file=sys.stderr)
    elif file_hash(path) not in _known_hashes(beside):
        raise UserError(
            f"{path}: damaged or replaced: its SHA-256 is not the one in {beside.name}; "
            "restore both files from the same copy, or train again"
        )


def _known_hashes(beside: Path) -> list[str]:
    found = read_json(beside, (_HASH,))
    return [found[_HASH], *found.get(_HASHES_BEFORE, ())]


def _described(file, path: Path) -> dict[str, Any]:  # noqa: ANN001
    metadata = file.metadata() or {}
    if _HEADER not in metadata:
        raise UserError(f"{path}: not a checkpoint of this project (its header has no description)")
    try:
        return json_object(metadata[_HEADER], ("what",))
    except ValueError as error:
        raise UserError(f"{path}: its description is damaged ({error})") from None


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and values; equal weights give equal hashes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
