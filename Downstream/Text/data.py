"""What this tree reads: a target domain with text items, Adressa in the paper (Dataset/README.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.data.settings import DomainSettings, TextSettings

if TYPE_CHECKING:
    from adapter4rec.data.domain import Domain
    from adapter4rec.utils.process_group import Process
    from Downstream.Text.train import Settings


@dataclass(frozen=True, kw_only=True)
class DataSettings(TextSettings, DomainSettings):
    """Files and texts of the domain."""


def read_domain(settings: Settings, process: Process) -> Domain:
    """The users, and the items with their tokenised texts (bare items for the id tower and popularity).

    Raises:
        UserError: the files or the backbone's tokenizer are missing or broken.
    """
    from adapter4rec.data.domain import read_text_domain
    from adapter4rec.models.backbones import backbone_folder, load_tokenizer

    tokenizer = load_tokenizer(backbone_folder(settings.backbone)) if settings.uses_content else None
    return read_text_domain(settings, tokenizer, process)
