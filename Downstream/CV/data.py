"""What this tree reads: a target domain with image items, Amazon in the paper (Dataset/README.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.data.settings import DomainSettings, ImageSettings

if TYPE_CHECKING:
    from adapter4rec.data.domain import Domain
    from adapter4rec.utils.process_group import Process
    from Downstream.CV.train import Settings


@dataclass(frozen=True, kw_only=True)
class DataSettings(ImageSettings, DomainSettings):
    """Files and images of the domain."""


def read_domain(settings: Settings, process: Process) -> Domain:
    """The users, and the items with their images (bare items for the id tower and popularity).

    Raises:
        UserError: the files, the LMDB or the backbone's configuration are missing, broken or do not fit.
    """
    from adapter4rec.data.domain import read_image_domain
    from adapter4rec.models.image_encoder import expected_image_size

    del process
    return read_image_domain(settings, expected_image_size(settings) if settings.uses_content else None)
