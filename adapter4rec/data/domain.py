"""A domain: interactions and item content."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adapter4rec.data.content import ContentStore, IdStore
from adapter4rec.data.images.folder import image_database
from adapter4rec.data.images.store import ImageStore
from adapter4rec.data.interactions import Interactions, ItemTable, read_interactions, read_items
from adapter4rec.data.item_vectors import VectorStore, read_item_vectors
from adapter4rec.data.settings import DomainSettings, ImageDomainSettings, TextSettings
from adapter4rec.data.text import TextStore, tokenise, truncate_body
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.plain_text import printable
from adapter4rec.utils.process_group import Process

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextDomainSettings(TextSettings, DomainSettings):
    """Data settings of a domain with text items."""


@dataclass(frozen=True)
class Domain:
    """Interactions and item content of a domain.

    Attributes:
        name: name of the folder of ``users.tsv``.
        interactions: user sequences.
        store: content of the items 1…N.
        identity: hash of all data that a run reads from the domain.
    """

    name: str
    interactions: Interactions
    store: ContentStore
    identity: str


def read_text_domain(
    settings: TextDomainSettings, tokenizer: PreTrainedTokenizerBase | None, process: Process
) -> Domain:
    """Read a domain with text items.

    Args:
        settings: data settings.
        tokenizer: tokenizer of the backbone; None for items without content (id tower, baselines).
        process: this process; rank 0 fills the token cache.

    Raises:
        UserError: a file is missing or invalid.
    """
    attributes = settings.attributes if tokenizer is not None else ()
    table = read_items(
        settings.items,
        attributes,
        allow_empty_titles=settings.allow_empty_titles,
        encoding=settings.encoding,
    )

    def store(rows: np.ndarray) -> TextStore:
        assert tokenizer is not None
        texts = {name: [column[row] for row in rows] for name, column in table.texts.items()}
        folder = REPOSITORY / settings.cache_folder
        return process.rank0_first(lambda: text_store(settings, texts, tokenizer, folder, process))

    return _domain(settings, table, store if tokenizer is not None else None)


def read_image_domain(settings: ImageDomainSettings, size: int | None) -> Domain:
    """Read a domain with image items. Items without an image and their clicks are dropped.

    From a folder of images, an LMDB is built or brought up to date in the cache.

    Args:
        settings: data settings.
        size: input height and width of the backbone; None for items without content (id tower, baselines).

    Raises:
        UserError: a file or the LMDB is missing or invalid, or the LMDB has another image size.
    """
    table = read_items(settings.items, allow_empty_titles=True, encoding=settings.encoding)
    if settings.images is None and size is not None:
        raise UserError("--images is required: a folder with the images of the items, or an LMDB of them")
    if settings.images is None:
        return _domain(settings, table, None)
    database = image_database(settings, size)
    without = database.without_image(table.names, settings.items)
    if size is None:
        return _domain(settings, table, None, without)
    return _domain(
        settings, table, lambda rows: ImageStore(database, [table.names[row] for row in rows], size), without
    )


def read_vector_domain(settings: DomainSettings, path: Path) -> Domain:
    """Read a domain whose items are vectors from elsewhere.

    Args:
        settings: data settings.
        path: the vectors (see :func:`read_item_vectors`).

    Raises:
        UserError: a file is missing or invalid, or an item has no vector or one that is not finite.
    """
    vectors = read_item_vectors(path)
    table = read_items(settings.items, allow_empty_titles=True, encoding=settings.encoding)
    return _domain(
        settings, table, lambda rows: vectors.store_of([table.names[row].decode() for row in rows])
    )


def text_store(
    settings: TextSettings,
    texts: Mapping[str, list[str]],
    tokenizer: PreTrainedTokenizerBase,
    cache_folder: Path | None,
    process: Process | None = None,
) -> TextStore:
    """Tokenise item texts, each attribute truncated to its maximum length.

    Args:
        settings: attributes and their maximum tokens.
        texts: for each attribute, one text per item.
        tokenizer: tokenizer of the backbone.
        cache_folder: cache folder; None for no cache.
        process: prints progress messages; its device determines how many tokens are encoded at once.
    """
    log, device = (process.log, process.device) if process is not None else (print, None)
    tokens = []
    for attribute in settings.attributes:
        column = [truncate_body(text) if attribute == "body" else text for text in texts[attribute]]
        tokens.append(tokenise(column, tokenizer, settings.max_tokens(attribute), cache_folder, log))
    return TextStore(tokens, settings.tokens_on(device))


def _domain(
    settings: DomainSettings,
    table: ItemTable,
    store_of: Callable[[np.ndarray], TextStore | ImageStore | VectorStore] | None,
    without: Collection[bytes] = (),
) -> Domain:
    """The domain, with the content that ``store_of`` returns for some rows of the item table."""
    interactions = read_interactions(
        settings.users,
        table,
        min_seq_len=settings.min_seq_len,
        max_seq_len=settings.max_seq_len,
        without=without,
        encoding=settings.encoding,
        cut=(settings.validation_from, settings.test_from) if settings.split == "time" else None,
    )
    name = printable(settings.users.absolute().parent.name)
    if store_of is None:
        return Domain(name, interactions, IdStore(), interactions.identity)
    store = store_of(interactions.item_rows)
    return Domain(name, interactions, store, f"{interactions.identity} {store.identity}")
