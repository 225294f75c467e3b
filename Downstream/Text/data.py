"""Data of target training with text: a domain with text items, Adressa in the paper (Dataset/README.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapter4rec.data.domain import Domain
    from adapter4rec.utils.process_group import Process
    from Downstream.Text.train import Settings


def read_domain(settings: Settings, process: Process) -> Domain:
    """Read the users and, if the method uses content, the texts of the items; otherwise items are ids only.

    Args:
        settings: settings of the run.
        process: this process; rank 0 writes the token cache.

    Raises:
        UserError: the files or the backbone's tokenizer are missing or invalid.
    """
    from adapter4rec.data.domain import read_text_domain

    if not settings.uses_content:
        return read_text_domain(settings, None, process)
    from adapter4rec.models.backbones import load_tokenizer
    from adapter4rec.models.pretrained import backbone_folder

    return read_text_domain(settings, load_tokenizer(backbone_folder(settings.backbone)), process)
