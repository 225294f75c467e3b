"""Folders of pretrained backbones, and what their files record; without importing transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapter4rec.models.pretrained import PRETRAINED_MODELS
from adapter4rec.models.settings import ImageModelSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY, read_json

_DEFAULT_IMAGE_SIZE = 224
"""Of transformers, for all supported image encoders whose configuration has none."""


def backbone_folder(name: str) -> Path:
    """The folder of a backbone: an existing path, or a name in ``pretrained_models/``.

    Raises:
        UserError: no such folder.
    """
    for folder in (Path(name), REPOSITORY / name, PRETRAINED_MODELS / name):
        if (folder / "config.json").is_file():
            return folder.resolve()
    raise UserError(
        f"backbone {name!r}: no Hugging Face folder (with a config.json) at {PRETRAINED_MODELS / name}; "
        f"download it with `python -m adapter4rec.download {name}`, or pass the path of a local folder"
    )


def own_image_size(settings: ImageModelSettings) -> int:
    """Height and width of the images of a run: ``--image_size``, or that of the backbone's configuration.

    Raises:
        UserError: no such backbone, or its configuration cannot be read.
    """
    if settings.image_size is not None:
        return settings.image_size
    config: dict[str, Any] = read_json(backbone_folder(settings.backbone) / "config.json")
    size = config.get("vision_config", config).get("image_size", _DEFAULT_IMAGE_SIZE)
    return int(size[0] if isinstance(size, list) else size)
