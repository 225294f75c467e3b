"""The input files of a run by their content, which tells which of them changed later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adapter4rec.checkpoints.settings import StageSettings
from adapter4rec.models.backbone_folders import backbone_hash, own_image_size
from adapter4rec.models.settings import ImageModelSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import file_hash, tensor_hash

_INPUTS = {
    "users": "users file",
    "items": "items file",
    "images": "images",
    "item_vectors": "item vectors",
    "source_checkpoint": "source model",
    "start_from": "model that the run started from",
}
"""Settings that name input files of a run, and what the file is."""
_BACKBONE = "backbone"


def input_hashes(settings: StageSettings) -> dict[str, str]:
    """Hash of the content of each input file, by setting.

    Raises:
        UserError: an input file cannot be read.
    """
    plain = settings.plain()
    if not getattr(settings, "needs_source", True):
        plain["source_checkpoint"] = None
    files = {name: _content(name, Path(plain[name]), settings) for name in _INPUTS if plain.get(name)}
    if settings.uses_content:
        files[_BACKBONE] = backbone_hash(plain[_BACKBONE])
    return files


def changed_inputs(recorded: Mapping[str, str], settings: StageSettings) -> list[str]:
    """The input files whose content is not the recorded one: what each is, and its path."""
    plain = settings.plain()
    return [
        f"{_INPUTS.get(name, name)} {plain[name]}"
        for name, content in input_hashes(settings).items()
        if recorded.get(name, content) != content
    ]


def _content(name: str, path: Path, settings: StageSettings) -> str:
    """Hash of an input file, of the images in an LMDB or a folder, or of the tensors of a source model."""
    if path.is_dir() and isinstance(settings, ImageModelSettings):
        from adapter4rec.data.images.folder import image_database, is_image_folder

        size = own_image_size(settings) if is_image_folder(path) and settings.uses_content else None
        return image_database(settings, size).description.content
    names = path.with_suffix(".items.tsv")  # of the rows of item vectors
    try:
        content = tensor_hash(path) if path.suffix == ".safetensors" else file_hash(path)
        return f"{content} {file_hash(names)}" if name == "item_vectors" and names.is_file() else content
    except FileNotFoundError:
        raise UserError(f"--{name} {path}: no such file; see Dataset/README.md for the data files") from None
