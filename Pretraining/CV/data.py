"""What this tree reads: a source domain with image items, H&M in the paper (Dataset/README.md)."""

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
    """Files and images of the domain, and the backbone that reads them."""


def read_domain(settings: DataSettings, process: Process, *, content: bool) -> Domain:
    """The users and the items.

    Args:
        settings: files and images.
        process: this process.
        content: whether the images are read; otherwise items are bare ids.

    Raises:
        UserError: the files, the LMDB or the backbone's configuration are missing, broken or do not fit.
    """
    from adapter4rec.data.domain import read_image_domain
    from adapter4rec.models.image_encoder import expected_image_size

    del process
    return read_image_domain(settings, expected_image_size(settings) if content else None)
