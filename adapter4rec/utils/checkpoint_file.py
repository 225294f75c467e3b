"""Checkpoints: safetensors files with a JSON description in their header.

``NAME.json`` next to ``NAME.safetensors`` repeats the description and adds the file's SHA-256, which is
verified when the checkpoint is read. Each file is written atomically.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file, file_hash, require_regular, utf8_path, write_json
from adapter4rec.utils.records import Object, checked, read_record, record_of

_HEADER = "adapter4rec"
_HASH = "sha256"


@dataclass(frozen=True)
class _Beside:
    """What of ``NAME.json`` is read."""

    sha256: str


@dataclass(frozen=True)
class _Described:
    """What the descriptions of all checkpoints have."""

    what: str


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, with a JSON description."""

    path: Path
    tensors: dict[str, Tensor]
    description: dict[str, Any]


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a checkpoint and a JSON file next to it with the description and the SHA-256.

    Raises:
        UserError: the file cannot be written.
    """
    json_path = path.with_suffix(".json")
    with atomic_file(path) as temporary:
        save_tensors(temporary, tensors, description)
        json_path.unlink(missing_ok=True)  # a process killed after this leaves no hash, not a wrong one
    write_json(json_path, {**description, _HASH: file_hash(path)})


def rename_checkpoint(old: Path, new: Path) -> None:
    """Rename a checkpoint and its JSON file, and replace another. A kill at any time loses neither.

    At worst ``new`` is without its JSON file, and read without verification.
    """
    new.with_suffix(".json").unlink(missing_ok=True)
    old.replace(new)
    with suppress(FileNotFoundError):
        old.with_suffix(".json").replace(new.with_suffix(".json"))


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and its JSON file."""
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)


@contextmanager
def writing_tensors(path: Path) -> Iterator[Path]:
    """The path under which safetensors writes a file, or a library that uses safetensors.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with utf8_path(path) as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a safetensors file with a description in its header; not atomic.

    Raises:
        UserError: the file cannot be written.
    """
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with writing_tensors(path) as file:
        save_file(on_cpu, file, metadata={_HEADER: json.dumps(description)})


def read_description(path: Path) -> dict[str, Any]:
    """Read the description of a checkpoint without loading its tensors.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of this project.
    """
    file, description = _opened(path)
    with file:
        return description


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; the tensors are on the CPU.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of this project.
    """
    file, description = _opened(path)
    with file as reader:
        return Checkpoint(path, {name: reader.get_tensor(name) for name in reader.keys()}, description)  # noqa: SIM118


def _opened(path: Path) -> tuple[safe_open, dict[str, Any]]:
    """A checkpoint and its description, after comparing its SHA-256 with the one in its JSON file."""
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint")
    require_regular(path)
    json_path = path.with_suffix(".json")
    if not json_path.exists():
        print(f"warning: {path}: not verified: {json_path.name} with the SHA-256 is missing", file=sys.stderr)
    elif file_hash(path) != read_record(json_path, _Beside).sha256:
        raise UserError(
            f"{path}: SHA-256 does not match {json_path.name}: the file is damaged or was replaced; "
            "restore both files from the same copy, or train again"
        )
    try:
        with utf8_path(path) as readable:
            file = safe_open(readable, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file ({error})") from None
    metadata: dict[str, str] = file.metadata() or {}  # type: ignore[no-untyped-call]  # in its stub
    if _HEADER not in metadata:
        raise UserError(f"{path}: not a checkpoint of this project (no description in the header)")
    try:
        description = record_of(metadata[_HEADER], Object)
        checked(description, _Described)
        return file, description
    except ValueError as error:
        raise UserError(f"{path}: damaged description ({error})") from None


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, dtypes and values: equal weights have equal hashes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
