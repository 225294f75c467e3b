"""Folders of pretrained backbones, and what their files record; without importing transformers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from adapter4rec.models.pretrained import PRETRAINED_MODELS
from adapter4rec.models.settings import POOLING_FILE, POOLINGS, ImageModelSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY, file_hash, require_regular, write_json
from adapter4rec.utils.plain_text import SNIFFED_BYTES, not_text
from adapter4rec.utils.records import Object, Positive, checked_in, read_record
from adapter4rec.utils.settings import FolderName

_READ = (".json", ".txt", ".model", ".codes", ".safetensors", ".bin")
"""Suffixes of the files that models and tokenizers are read from."""


@dataclass(frozen=True)
class _Config:
    """The size of the images, of transformers' default where a configuration has none."""

    image_size: Positive | Annotated[list[Positive], msgspec.Meta(min_length=1)] = 224


_POOLING_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


@dataclass(frozen=True)
class _Pooling:
    """The poolings that newer files name in place of the flags."""

    pooling_mode: str | list[str] = field(default_factory=list)


def backbone_folder(name: str) -> Path:
    """The folder of a backbone: an existing path, or a name in ``pretrained_models/``.

    Raises:
        UserError: no such folder.
    """
    for folder in (Path(name), REPOSITORY / name, PRETRAINED_MODELS / name):
        if FolderName.is_folder(folder):
            return folder.resolve()
    raise UserError(
        f"backbone {name!r}: no Hugging Face folder (with a config.json) at {PRETRAINED_MODELS / name}; "
        f"download it with `python -m adapter4rec.download {name}`, or pass the path of a local folder"
    )


def require_files(folder: Path) -> None:
    """Check the files of a Hugging Face folder before a library opens them.

    Raises:
        UserError: a FIFO or device, an empty file, a pointer of Git LFS or a web page in place of weights or
            of a tokenizer, or an index of weights that names files elsewhere.
    """
    for path in sorted(folder.iterdir()):
        if path.is_dir() or path.suffix not in _READ or not path.exists():
            continue
        if require_regular(path) == 0:
            raise UserError(f"{path}: empty file; download it again")
        with path.open("rb") as file:
            start = file.read(SNIFFED_BYTES)
        if (what := not_text(start)) and not (path.suffix == ".bin" and start.startswith(b"PK")):
            raise UserError(f"{path}: {what}")
        if path.name.endswith(".index.json"):
            _require_own_shards(path)


def _require_own_shards(index: Path) -> None:
    """Check that an index of weights names files of its own folder only.

    Raises:
        UserError: it names another file, or a FIFO or device.
    """
    shards = checked_in(index, read_record(index, Object).get("weight_map", {}), dict[str, str])
    for name in set(shards.values()):
        if Path(name).name != name:
            raise UserError(f"{index}: names a file outside of the folder: {name!r}")
        if (index.parent / name).exists():
            require_regular(index.parent / name)


def backbone_hash(name: str) -> str:
    """SHA-256 of the files of a backbone that models and tokenizers are read from, wherever it is.

    Raises:
        UserError: no such folder.
    """
    folder = backbone_folder(name)
    files = [*sorted(path for path in folder.iterdir() if path.suffix in _READ), folder / POOLING_FILE]
    parts = (f"{path.name} {file_hash(path)}" for path in files if path.is_file())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def own_image_size(settings: ImageModelSettings) -> int:
    """Height and width of the images of a run: ``--image_size``, or that of the backbone's configuration.

    Raises:
        UserError: no such backbone, or its configuration cannot be read.
    """
    if settings.image_size is not None:
        return settings.image_size
    file = backbone_folder(settings.backbone) / "config.json"
    config = read_record(file, Object)
    size = checked_in(file, config.get("vision_config", config), _Config).image_size
    return size[0] if isinstance(size, list) else size


def record_pooling(folder: Path, pooling: str, width: int) -> None:
    """Write to the folder of a backbone what :func:`recorded_pooling` reads, as sentence-transformers does.

    Args:
        folder: of the backbone.
        pooling: ``cls`` or ``mean``.
        width: of the hidden states.
    """
    (folder / POOLING_FILE).parent.mkdir()
    flags = {flag: name == pooling for flag, name in _POOLING_FLAGS.items()}
    write_json(folder / POOLING_FILE, {"word_embedding_dimension": width, **flags})


def recorded_pooling(folder: Path) -> str | None:
    """The pooling that a sentence-transformers folder records, ``cls`` or ``mean``; None if it records none.

    Raises:
        UserError: it records another one.
    """
    path = folder / POOLING_FILE
    if not path.exists():
        return None
    recorded = read_record(path, Object)
    mode = checked_in(path, recorded, _Pooling).pooling_mode
    modes = [mode] if isinstance(mode, str) else mode
    modes += [name for name, value in recorded.items() if name.startswith("pooling_mode_") and value is True]
    found = {_POOLING_FLAGS.get(name, name) for name in modes}
    if len(found) != 1 or not found <= set(POOLINGS):
        raise UserError(
            f"{path}: records the pooling {', '.join(sorted(found)) or 'none'}; only {' or '.join(POOLINGS)} "
            "is supported, choose one with --pooling"
        )
    return found.pop()
