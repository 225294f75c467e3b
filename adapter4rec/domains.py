"""A domain as a run needs it: who clicked what, and what the items are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.data.content import ContentStore, IdStore
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.store import ImageStore
from adapter4rec.data.interactions import Interactions, read_interactions, read_items
from adapter4rec.data.text import TextStore, shortened_body, tokenised
from adapter4rec.models.backbones import (
    IMAGE_ENCODERS,
    backbone_config,
    backbone_folder,
    image_size,
    load_tokenizer,
)
from adapter4rec.stages import ImageSettings, TextSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import relative_to_repository
from adapter4rec.utils.process_group import Process


@dataclass(frozen=True)
class Domain:
    """Interactions of a domain, and the content of its items.

    Attributes:
        name: the folder that its files lie in.
        interactions: who clicked what.
        store: content of the items 1…N.
        identity: hash of all that a run reads of the domain.
    """

    name: str
    interactions: Interactions
    store: ContentStore
    identity: str


def load_text_domain(settings: TextSettings, process: Process) -> Domain:
    """Read a domain with text items (or with bare items, for the id tower).

    Raises:
        UserError: the files, or the backbone's tokenizer, are missing or broken.
    """
    users, items = Path(settings.users), Path(settings.items)
    attributes = settings.attributes if settings.uses_content else ()
    table = read_items(items, attributes, allow_empty_titles=settings.allow_empty_titles)
    interactions = read_interactions(
        users, table, min_seq_len=settings.min_seq_len, max_seq_len=settings.max_seq_len
    )
    name = users.absolute().parent.name
    if not settings.uses_content:
        return Domain(name, interactions, IdStore(interactions.n_items), interactions.identity)
    texts = {name: [texts[row] for row in interactions.item_rows] for name, texts in table.texts.items()}
    cache_folder = relative_to_repository(settings.cache_folder)
    store = process.first_then_others(lambda: text_store(settings, texts, cache_folder, process.say))
    return Domain(name, interactions, store, f"{interactions.identity} {store.identity}")


def load_image_domain(settings: ImageSettings, process: Process) -> Domain:
    """Read a domain with image items (or with bare items, for the id tower).

    Items without an image, as the LMDB says, are left out of the catalogue and of the interactions.

    Raises:
        UserError: the files, the LMDB or the backbone's configuration are missing, broken or do not fit.
    """
    del process
    users, items = Path(settings.users), Path(settings.items)
    name = users.absolute().parent.name
    table = read_items(items, allow_empty_titles=True)
    database = None
    if settings.images is not None:
        database = ImageDatabase(Path(settings.images))
    elif settings.uses_content:
        raise UserError("--images is needed: the LMDB of the items' images (build_lmdb_hm.py makes one)")
    interactions = read_interactions(
        users,
        table,
        min_seq_len=settings.min_seq_len,
        max_seq_len=settings.max_seq_len,
        without=database.without_image(table.names, items) if database else (),
    )
    if database is None or not settings.uses_content:
        return Domain(name, interactions, IdStore(interactions.n_items), interactions.identity)
    config = backbone_config(backbone_folder(settings.backbone), IMAGE_ENCODERS)
    size = image_size(config, settings.image_size)
    database.require_size(size)
    store = ImageStore(database, [table.names[row] for row in interactions.item_rows], size)
    return Domain(name, interactions, store, f"{interactions.identity} {store.identity}")


def text_store(
    settings: TextSettings,
    texts: Mapping[str, list[str]],
    cache_folder: Path | None,
    say: Callable[[str], None] = print,
) -> TextStore:
    """Items' texts as the run's backbone reads them: its tokenizer, each attribute cut as the run says.

    Args:
        settings: of the run.
        texts: for each of the run's attributes, one text an item.
        cache_folder: where tokens are kept; None for nowhere.
        say: is told what is done to fill the cache.

    Raises:
        UserError: the backbone's tokenizer is missing or broken.
    """
    tokenizer = load_tokenizer(backbone_folder(settings.backbone))
    tokens = []
    for attribute in settings.attributes:
        given = texts[attribute]
        if attribute == "body":
            given = [shortened_body(text) for text in given]
        tokens.append(tokenised(given, tokenizer, settings.most_tokens(attribute), cache_folder, say))
    return TextStore(tokens, settings.tokens_at_once)
