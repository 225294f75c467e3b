"""New content for a trained model: single contents to encode, and items it was not trained on.

New content is processed exactly as the run's own items were: texts are tokenized and truncated with the run's
settings, images are converted as ``build_lmdb_hm.py`` converts them.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from adapter4rec.data.content import ContentStore
from adapter4rec.data.domain import text_store
from adapter4rec.data.images.database import DATA_FILE, ImageDatabase
from adapter4rec.data.images.sources import image_files
from adapter4rec.data.images.store import ImageFileStore, ImageStore
from adapter4rec.data.interactions import ItemTable, read_items
from adapter4rec.data.settings import TextSettings
from adapter4rec.models.backbones import backbone_folder, load_tokenizer
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError

T = TypeVar("T")

_EXAMPLES = 3


@dataclass(frozen=True)
class NewItems:
    """New items with their content.

    Attributes:
        names: item names, all different.
        titles: title of each item; empty if it has none.
        store: content of the items, numbered from 1 in the order of ``names``.
        labels: origin of each item for error messages, such as ``new_items.tsv:3: item 'x'``.

    Raises:
        UserError: a name is empty, or contains tabs or line breaks.
    """

    names: Sequence[str]
    titles: Sequence[str]
    store: ContentStore
    labels: Sequence[str]

    def __post_init__(self) -> None:
        for name, label in zip(self.names, self.labels, strict=True):
            if not isinstance(name, str) or not name or any(mark in name for mark in "\t\r\n\0"):
                raise UserError(f"{label}: an item name is a non-empty string without tabs and line breaks")


def read_titled_items(path: Path, attributes: tuple[str, ...] = ()) -> ItemTable:
    """Read an items file: the given text columns, and the titles if it has any.

    Raises:
        UserError: see :func:`read_items`.
    """
    with_title = tuple(dict.fromkeys(("title", *attributes)))
    try:
        return read_items(path, with_title, allow_empty_titles=True)
    except UserError:
        return read_items(path, attributes, allow_empty_titles=True)


def content_store(run: TrainedRun, contents: Sequence[object], labels: Sequence[str]) -> ContentStore:
    """A store of new contents, processed for the item encoder of a run.

    Args:
        run: a finished run.
        contents: one entry per item. Text runs take a title, or the texts of the run's attributes as a tuple
            in their order or as a dict. Image runs take the path of an image file or a PIL image.
        labels: name of each entry for error messages.

    Raises:
        UserError: the item encoder reads no content, or an entry has the wrong type. Image files are opened
            only when they are fetched.
    """
    _require_content(run)
    known, settings = run.domain.store, run.settings
    if isinstance(known, ImageStore):
        pictures: list[Image.Image | Path] = []
        for content, label in zip(contents, labels, strict=True):
            if not isinstance(content, Image.Image | str | os.PathLike):
                raise UserError(f"{label}: expected an image file or a PIL image, got {content!r:.60}")
            pictures.append(content if isinstance(content, Image.Image) else Path(content))
        return ImageFileStore(pictures, labels, known.size)
    assert isinstance(settings, TextSettings)  # what encodes content and is no image run
    texts = _texts_by_attribute(settings, contents, labels)
    if not settings.allow_empty_titles:
        for title, label in zip(texts.get("title", ()), labels, strict=False):
            if not title.strip():
                raise UserError(f"{label}: empty title; this run was trained without empty titles")
    tokenizer = load_tokenizer(backbone_folder(settings.backbone))
    return text_store(settings, texts, tokenizer, cache_folder=None)


def new_items(run: TrainedRun, items: Mapping[str, object]) -> NewItems:
    """New items from a mapping of item name to content.

    Args:
        run: a finished run.
        items: content by item name, as :func:`content_store` takes it.

    Raises:
        UserError: an invalid item name, or see :func:`content_store`.
    """
    names, contents = list(items), list(items.values())
    labels = [f"item {name!r}" for name in names]
    store, titles = content_store(run, contents, labels), [""] * len(names)
    if isinstance(run.settings, TextSettings):
        titles = _texts_by_attribute(run.settings, contents, labels).get("title", titles)
    return NewItems(names, [title.strip() for title in titles], store, labels)


def read_new_items(
    run: TrainedRun, path: Path, images: Path | None, known: Container[str]
) -> tuple[NewItems, int]:
    """Read new items from a file in the format of ``items.tsv``.

    Args:
        run: a finished run.
        path: the file.
        images: for image runs, a folder of image files whose stems are item names, or an LMDB made by
            ``build_lmdb_hm.py``.
        known: names of items that may lack an image here; those without one are skipped.

    Returns:
        The items, and the number of items listed in the file.

    Raises:
        UserError: an invalid line, a missing text column, an item without an image, or a run whose item
            encoder reads no content. The message names file and line.
    """
    _require_content(run)
    attributes = run.settings.attributes if isinstance(run.settings, TextSettings) else ()
    table = read_titled_items(path, attributes)
    names = [name.decode() for name in table.names]
    titles = table.texts.get("title", [""] * len(names))
    labels = [f"{path}:{line}: item {name!r}" for line, name in enumerate(names, 1)]
    rows = list(range(len(names)))
    if isinstance(run.domain.store, ImageStore):
        rows, store = _images_of_table(run.domain.store.size, table, labels, images, known)
    elif images is not None:
        raise UserError(f"--item-images: {run.folder} is not an image run")
    else:
        texts = zip(*(table.texts[name] for name in attributes), strict=True)
        store = content_store(run, list(texts), labels)
    given = NewItems(
        [names[row] for row in rows],
        [titles[row].strip() for row in rows],
        store,
        [labels[row] for row in rows],
    )
    return given, len(names)


def listed(contents: Iterable[T], what: str) -> list[T]:
    """The contents as a list.

    Raises:
        UserError: a single text, path, image or dict was passed instead of a list.
    """
    if isinstance(contents, str | bytes | os.PathLike | Image.Image | Mapping):
        raise UserError(f"expected a list of {what}, such as [{contents!r:.60}]")
    return list(contents)


def _require_content(run: TrainedRun) -> None:
    if not run.settings.uses_content:
        raise UserError(
            f"{run.folder}: an id tower cannot encode new content or new items; use a run trained on texts "
            "or images"
        )


def _texts_by_attribute(
    settings: TextSettings, contents: Sequence[object], labels: Sequence[str]
) -> dict[str, list[str]]:
    """The texts of the run's attributes; one per item.

    Raises:
        UserError: an item lacks an attribute or has an unknown one, or is no text.
    """
    expected = settings.attributes
    texts: dict[str, list[str]] = {name: [] for name in expected}
    for content, label in zip(contents, labels, strict=True):
        if isinstance(content, Mapping):
            differing = [name for name in expected if name not in content]
            differing += [name for name in content if name not in expected]
            if differing:
                what = "missing" if differing[0] in expected else "unknown"
                raise UserError(f"{label}: {what} {differing[0]!r}; expected texts of {', '.join(expected)}")
            content = [content[name] for name in expected]  # noqa: PLW2901
        row = [content] if isinstance(content, str) else content
        if not isinstance(row, list | tuple) or len(row) != len(expected):
            raise UserError(f"{label}: expected texts of {', '.join(expected)}, got {content!r:.60}")
        for name, text in zip(expected, row, strict=True):
            if not isinstance(text, str):
                raise UserError(f"{label}: expected texts of {', '.join(expected)}, got {text!r:.60}")
            texts[name].append(text)
    return texts


def _images_of_table(
    size: int, table: ItemTable, labels: Sequence[str], images: Path | None, known: Container[str]
) -> tuple[list[int], ContentStore]:
    """The rows of an items file that have an image, and the store of these images."""
    if images is None:
        raise UserError("--item-images is required: a folder or an LMDB with images of the new items")
    is_database = images.is_file() or (images / DATA_FILE).is_file()
    database = ImageDatabase(images) if is_database else None
    files = {} if database else image_files(images, table.names)
    available = database.names() if database else files
    missing = [
        label
        for name, label in zip(table.names, labels, strict=True)
        if name not in available and name.decode() not in known
    ]
    if missing:
        examples = ", ".join(missing[:_EXAMPLES])
        raise UserError(f"{images}: {len(missing):,} new items have no image: {examples}")
    rows = [row for row, name in enumerate(table.names) if name in available]
    names = [table.names[row] for row in rows]
    if database:
        database.require_size(size)
        return rows, ImageStore(database, names, size)
    return rows, ImageFileStore([files[name] for name in names], [labels[row] for row in rows], size)
