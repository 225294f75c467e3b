"""New content for a trained model: single contents to encode, and items it was not trained on.

New content is processed exactly as the run's own items were: texts are tokenized and truncated with the run's
settings, images are converted as ``build_lmdb_hm.py`` converts them.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from adapter4rec.data.content import ContentStore
from adapter4rec.data.domain import text_store
from adapter4rec.data.images.database import DATA_FILE, ImageDatabase
from adapter4rec.data.images.sources import FolderSource
from adapter4rec.data.images.store import ImageFileStore, ImageStore
from adapter4rec.data.interactions import ItemTable, read_items
from adapter4rec.models.backbones import backbone_folder, load_tokenizer
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError

_EXAMPLES = 3


@dataclass(frozen=True)
class NewItems:
    """New items with their content.

    Attributes:
        names: item names, all different.
        titles: title of each item; empty if it has none.
        store: content of the items, numbered from 1 in the order of ``names``.
        labels: origin of each item for error messages, such as ``new_items.tsv:3: item 'x'``.
    """

    names: list[str]
    titles: list[str]
    store: ContentStore
    labels: list[str]


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


# A content reader reads new content for the item encoder of a run; there is one class per modality.
# ``contents`` has one entry per item, and ``labels`` name the items in error messages.


class _TextReader:
    def __init__(self, run: TrainedRun) -> None:
        self.run = run
        self.attributes: tuple[str, ...] = run.settings.attributes

    def store(self, contents: Sequence[Any], labels: Sequence[str]) -> ContentStore:
        rows = [self._texts(content, label) for content, label in zip(contents, labels, strict=True)]
        texts = {name: [row[column] for row in rows] for column, name in enumerate(self.attributes)}
        if not self.run.settings.allow_empty_titles:
            for title, label in zip(texts.get("title", ()), labels, strict=False):
                if not title.strip():
                    raise UserError(f"{label}: empty title; this run was trained without empty titles")
        tokenizer = load_tokenizer(backbone_folder(self.run.settings.backbone))
        return text_store(self.run.settings, texts, tokenizer, cache_folder=None)

    def title(self, content: Any) -> str:
        texts = dict(zip(self.attributes, self._texts(content, ""), strict=True))
        return texts.get("title", "").strip()

    def of_table(
        self, table: ItemTable, labels: Sequence[str], images: Path | None, known: Container[str]
    ) -> tuple[list[int], ContentStore]:
        del known
        if images is not None:
            raise UserError(f"--item-images: {self.run.folder} is not an image run")
        contents = list(zip(*(table.texts[name] for name in self.attributes), strict=True))
        return list(range(len(contents))), self.store(contents, labels)

    def _texts(self, content: Any, label: str) -> Sequence[str]:
        """The texts of one item, in the order of the run's attributes."""
        texts = [content] if isinstance(content, str) else content
        if isinstance(content, Mapping) and set(content) == set(self.attributes):
            texts = [content[name] for name in self.attributes]
        valid = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
        if not valid or len(texts) != len(self.attributes):
            expected = ", ".join(self.attributes)
            raise UserError(f"{label}: expected texts of {expected}, got {content!r:.60}")
        return texts


class _ImageReader:
    attributes: tuple[str, ...] = ()

    def __init__(self, run: TrainedRun) -> None:
        self.run = run

    def store(self, contents: Sequence[Any], labels: Sequence[str]) -> ContentStore:
        for content, label in zip(contents, labels, strict=True):
            if not isinstance(content, Image.Image | str | os.PathLike):
                raise UserError(f"{label}: expected an image file or a PIL image, got {content!r:.60}")
        pictures = [one if isinstance(one, Image.Image) else Path(one) for one in contents]
        return ImageFileStore(pictures, labels, self.run.domain.store.size)

    def title(self, content: Any) -> str:
        del content
        return ""

    def of_table(
        self, table: ItemTable, labels: Sequence[str], images: Path | None, known: Container[str]
    ) -> tuple[list[int], ContentStore]:
        if images is None:
            raise UserError("--item-images is required: a folder or an LMDB with images of the new items")
        size = self.run.domain.store.size
        is_database = images.is_file() or (images / DATA_FILE).is_file()
        database = ImageDatabase(images) if is_database else None
        files = {} if database else FolderSource(images).find(table.names)
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
        paths = [images / os.fsdecode(files[name]) for name in names]
        return rows, self.store(paths, [labels[row] for row in rows])


_READERS: dict[str, type[_TextReader] | type[_ImageReader]] = {"text": _TextReader, "image": _ImageReader}
"""By modality of the run."""


def _reader_of(run: TrainedRun) -> _TextReader | _ImageReader:
    if not run.settings.uses_content:
        raise UserError(
            f"{run.folder}: an id tower cannot encode new content or new items; use a run trained on texts "
            "or images"
        )
    return _READERS[run.settings.modality](run)


def content_store(run: TrainedRun, contents: Sequence[Any], labels: Sequence[str]) -> ContentStore:
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
    return _reader_of(run).store(contents, labels)


def new_items(run: TrainedRun, items: Mapping[str, Any]) -> NewItems:
    """New items from a mapping of item name to content.

    Args:
        run: a finished run.
        items: content by item name, as :func:`content_store` takes it.

    Raises:
        UserError: see :func:`content_store`.
    """
    reader = _reader_of(run)
    labels = [f"item {name!r}" for name in items]
    store = reader.store(list(items.values()), labels)
    return NewItems(list(items), [reader.title(content) for content in items.values()], store, labels)


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
    reader = _reader_of(run)
    table = read_titled_items(path, reader.attributes)
    names = [name.decode() for name in table.names]
    titles = table.texts.get("title", [""] * len(names))
    labels = [f"{path}:{line}: item {name!r}" for line, name in enumerate(names, 1)]
    rows, store = reader.of_table(table, labels, images, known)
    given = NewItems(
        [names[row] for row in rows],
        [titles[row].strip() for row in rows],
        store,
        [labels[row] for row in rows],
    )
    return given, len(names)


def listed(contents: Iterable[Any], what: str) -> list[Any]:
    """The contents as a list.

    Raises:
        UserError: a single string or dict was passed instead of a list.
    """
    if isinstance(contents, str | Mapping):
        raise UserError(f"expected a list of {what}, such as [{contents!r:.60}]")
    return list(contents)
