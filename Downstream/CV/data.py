"""Data of target training with images: a domain with image items, Amazon in the paper (Dataset/README.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.data.settings import DomainSettings, ImageSettings
from adapter4rec.models.settings import ImageBackboneSettings

if TYPE_CHECKING:
    from adapter4rec.data.domain import Domain
    from adapter4rec.utils.process_group import Process


@dataclass(frozen=True, kw_only=True)
class DataSettings(ImageSettings, DomainSettings, ImageBackboneSettings):
    """Files, images and backbone."""


def read_domain(settings: DataSettings, process: Process, *, content: bool) -> Domain:
    """Read the users and the items.

    Images stay uint8 until the image encoder normalises them on the device (``pixel_transform``).

    Args:
        settings: data settings.
        process: this process.
        content: whether to read the images; otherwise items are ids only.

    Raises:
        UserError: the files, the LMDB or the backbone's configuration are missing, invalid or incompatible.
    """
    from adapter4rec.data.domain import read_image_domain
    from adapter4rec.models.image_encoder import expected_image_size

    return read_image_domain(settings, expected_image_size(settings) if content else None)
