"""The content of the items of a bundle, read only where a new item has the name of a known one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.domain import text_store
from adapter4rec.data.images.decoding import Resizing
from adapter4rec.data.images.store import ImageStore, Pixels
from adapter4rec.data.interactions import ItemTable, read_items
from adapter4rec.data.settings import DomainSettings, TextSettings
from adapter4rec.models.backbone_folders import backbone_folder
from adapter4rec.models.settings import TextModelSettings
from adapter4rec.serving.new_items import tokenizer_of
from adapter4rec.utils.errors import UserError


class BundledTexts(ContentStore):
    """Texts of the items of a bundle, tokenised on demand.

    Args:
        settings: settings of the model.
        path: the items, in the format of ``items.tsv``.
    """

    def __init__(self, settings: DomainSettings, path: Path) -> None:
        self.settings = settings
        self.path = path

    @cached_property
    def table(self) -> ItemTable:
        """Names and texts of the items."""
        attributes = self.settings.attributes if isinstance(self.settings, TextSettings) else ()
        return read_items(self.path, attributes, allow_empty_titles=True)

    def fetch(self, items: np.ndarray) -> Content:
        """Tokens of ``items``."""
        settings = self.settings
        assert isinstance(settings, TextModelSettings) and isinstance(settings, TextSettings)
        texts = {name: [column[item - 1] for item in items] for name, column in self.table.texts.items()}
        tokenizer = tokenizer_of(backbone_folder(settings.backbone))
        return text_store(settings, texts, tokenizer, cache_folder=None).fetch(np.arange(1, len(items) + 1))


class BundledImages(ImageStore):
    """Items of an image bundle, which has their vectors, but not their images.

    Args:
        names: item names.
        resizing: how images become pixels.
    """

    def __init__(self, names: Sequence[str], resizing: Resizing) -> None:
        self.names = [name.encode() for name in names]
        self.size = resizing.size
        self.resizing = resizing

    def fetch(self, items: np.ndarray) -> Pixels:
        """Raise a UserError."""
        name = self.names[items[0] - 1].decode()
        raise UserError(
            f"item {name!r}: a bundle has the vectors of its items, not their images; draw contact sheets "
            "with the run, and give new items names of their own"
        )

    def fault_of(self, name: bytes) -> None:
        """None: a bundle does not record which items have no image."""
