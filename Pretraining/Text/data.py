"""Data of source training with text: a domain with text items, MIND in the paper (Dataset/README.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.data.settings import DomainSettings, TextSettings
from adapter4rec.models.settings import BackboneSettings

if TYPE_CHECKING:
    from adapter4rec.data.domain import Domain
    from adapter4rec.utils.process_group import Process


@dataclass(frozen=True, kw_only=True)
class DataSettings(TextSettings, DomainSettings, BackboneSettings):
    """Files, text attributes and backbone."""


def read_domain(settings: DataSettings, process: Process, *, content: bool) -> Domain:
    """Read the users and the items.

    Args:
        settings: data settings.
        process: this process; rank 0 writes the token cache.
        content: whether to read and tokenise the texts; otherwise items are ids only.

    Raises:
        UserError: the files or the backbone's tokenizer are missing or invalid.
    """
    from adapter4rec.data.domain import read_text_domain

    if not content:
        return read_text_domain(settings, None, process)
    from adapter4rec.models.backbones import backbone_folder, load_tokenizer

    return read_text_domain(settings, load_tokenizer(backbone_folder(settings.backbone)), process)
