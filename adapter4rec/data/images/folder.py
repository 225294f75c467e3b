"""The images that a run reads: a named LMDB, or one that is built from a folder of images in the cache."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import DATA_FILE, ImageDatabase
from adapter4rec.data.settings import ImageDomainSettings, ImageFolderSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import options_of

_DEFAULT_SIZE = 224


def is_image_folder(path: Path) -> bool:
    """Whether a path is a folder of images, not an LMDB."""
    return path.is_dir() and not (path / DATA_FILE).is_file()


def image_database(settings: ImageDomainSettings, size: int | None) -> ImageDatabase:
    """The LMDB of ``--images``. From a folder of images it is built, or brought up to date, in the cache.

    Args:
        settings: data settings with ``images``.
        size: height and width of the images; None if their pixels are not read.

    Raises:
        UserError: the LMDB is missing, invalid, or has another size or resizing; or see
            :func:`adapter4rec.data.images.building.build`.
    """
    images = settings.images
    assert images is not None
    if is_image_folder(images):
        folder = Path(os.path.normpath(images.absolute()))
        plan = _cached_lmdb(settings, folder, size or settings.image_size or _DEFAULT_SIZE)
        build(plan, wait=True)
        return ImageDatabase(plan.into)
    database = ImageDatabase(images)
    for name in ("fit", "interpolation", "decoding"):
        wanted, found = getattr(settings, name), database.description.options[name]
        if wanted not in (None, found):
            another = images.with_name(f"{images.stem}_{wanted}.lmdb")
            command = database.description.command(another, items=settings.items, **{name: wanted})
            raise UserError(f"--{name} {wanted}: {images} has {found}; build another LMDB with\n  {command}")
    if size is not None:
        database.require_size(size, settings.items)
    return database


def _cached_lmdb(settings: ImageDomainSettings, images: Path, size: int) -> ImageLmdbSettings:
    of_folder = {name: getattr(settings, name) for name in options_of(ImageFolderSettings)}
    plan = ImageLmdbSettings(
        settings.items.absolute(),
        Path(),
        images,
        size=size,
        fit=settings.fit or "stretch",
        interpolation=settings.interpolation or "bilinear",
        decoding=settings.decoding or "reduced",
        encoding=settings.encoding,
        **of_folder,
    )
    content = {name: value for name, value in plan.plain().items() if name not in ("missing", "workers")}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{images.parent.name}_{images.name}_{size}_{key}.lmdb"
    into = REPOSITORY / settings.cache_folder / "images" / name
    return ImageLmdbSettings.from_values(plan.plain() | {"into": into})
