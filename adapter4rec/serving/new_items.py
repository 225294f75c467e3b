"""New content for a trained model: single contents to encode, and items it was not trained on.

New content is processed exactly as the run's own items were: texts are tokenized and truncated with the run's
settings, images are converted as ``build_lmdb_hm.py`` converts them.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from adapter4rec.data.content import ContentStore
from adapter4rec.data.domain import text_store
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.opening import DATA_FILE
from adapter4rec.data.images.sources import FolderSource
from adapter4rec.data.images.store import ImageFileStore, ImageStore
from adapter4rec.data.interactions import ItemTable, read_items
from adapter4rec.data.lines import read_line_blocks
from adapter4rec.data.settings import ATTRIBUTES
from adapter4rec.models.backbones import backbone_folder, load_tokenizer
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError

_EXAMPLES = 3


@dataclass(frozen=True)
class NewItems:
    """New items with their content.

    Attributes:
        names: item names, all different.
        store: content of the items, numbered from 1 in the order of ``names``.
        titles: title of each item, or None if the items have no titles.
        labels: origin of each item for error messages, such as ``new_items.tsv:3: item 'x'``.
    """

    names: list[str]
    store: ContentStore
    titles: list[str] | None
    labels: list[str]


class _ContentReader(ABC):
    """Reads new content for the item encoder of a run. One subclass per modality."""

    columns: tuple[str, ...] = ()
    """Text columns that an items file must have."""

    def __init__(self, run: TrainedRun) -> None:
        self.run = run

    @abstractmethod
    def store(self, contents: Sequence[Any], labels: Sequence[str]) -> ContentStore:
        """A content store of the given contents; see :func:`content_store`."""

    def titles(self, contents: Sequence[Any]) -> list[str] | None:
        """The titles among the contents, or None if they have none."""
        del contents
        return None

    @abstractmethod
    def check_images_option(self, images: Path | None) -> None:
        """Raise a UserError if ``--item-images`` is missing or not applicable."""

    @abstractmethod
    def from_table(
        self, table: ItemTable, labels: list[str], images: Path | None, known: Container[str]
    ) -> tuple[list[int], ContentStore]:
        """The rows of an items file that have content, and the store of that content."""


class _TextReader(_ContentReader):
    def __init__(self, run: TrainedRun) -> None:
        super().__init__(run)
        self.columns = run.settings.attributes

    def store(self, contents: Sequence[Any], labels: Sequence[str]) -> ContentStore:
        rows = [_texts(content, self.columns, label) for content, label in zip(contents, labels, strict=True)]
        texts = {name: [row[column] for row in rows] for column, name in enumerate(self.columns)}
        if not self.run.settings.allow_empty_titles:
            for title, label in zip(texts.get("title", ()), labels, strict=False):
                if not title.strip():
                    raise UserError(f"{label}: empty title; this run was trained without empty titles")
        tokenizer = load_tokenizer(backbone_folder(self.run.settings.backbone))
        return text_store(self.run.settings, texts, tokenizer, cache_folder=None)

    def titles(self, contents: Sequence[Any]) -> list[str] | None:
        if "title" not in self.columns:
            return None
        column = self.columns.index("title")
        return [_texts(content, self.columns, "")[column].strip() for content in contents]

    def check_images_option(self, images: Path | None) -> None:
        if images is not None:
            raise UserError(f"--item-images: {self.run.folder} is not an image run")

    def from_table(
        self, table: ItemTable, labels: list[str], images: Path | None, known: Container[str]
    ) -> tuple[list[int], ContentStore]:
        del images, known
        texts = list(zip(*(table.texts[attribute] for attribute in self.columns), strict=True))
        return list(range(len(table.names))), self.store(texts, labels)


class _ImageReader(_ContentReader):
    def store(self, contents: Sequence[Any], labels: Sequence[str]) -> ContentStore:
        pictures = [_picture(content, label) for content, label in zip(contents, labels, strict=True)]
        return ImageFileStore(pictures, labels, self.run.domain.store.size)

    def check_images_option(self, images: Path | None) -> None:
        if images is None:
            raise UserError("--item-images is required: a folder or an LMDB with images of the new items")

    def from_table(
        self, table: ItemTable, labels: list[str], images: Path, known: Container[str]
    ) -> tuple[list[int], ContentStore]:
        size = self.run.domain.store.size
        is_database = images.is_file() or (images / DATA_FILE).is_file()
        if is_database:
            database = ImageDatabase(images)
            database.require_size(size)
            available = database.names().intersection(table.names)
            searched = f"in {images}; build_lmdb_hm.py makes an LMDB of all of them"
        elif images.is_dir():
            source = FolderSource(images)
            files = available = source.find(table.names)
            searched = source.looked_for()
        else:
            raise UserError(f"--item-images {images}: neither an image folder nor an LMDB")
        missing = [
            label
            for name, label in zip(table.names, labels, strict=True)
            if name not in available and _text(name) not in known
        ]
        if missing:
            more = ", …" if len(missing) > _EXAMPLES else ""
            raise UserError(
                f"{len(missing):,} new items have no image: {', '.join(missing[:_EXAMPLES])}{more}. Looked "
                f"for {searched}"
            )
        rows = [row for row, name in enumerate(table.names) if name in available]
        names = [table.names[row] for row in rows]
        if is_database:
            return rows, ImageStore(database, names, size)
        paths = [images / os.fsdecode(files[name]) for name in names]
        return rows, ImageFileStore(paths, [labels[row] for row in rows], size)


_READERS: dict[str, type[_ContentReader]] = {"text": _TextReader, "image": _ImageReader}
"""By modality of the run."""


def _reader_of(run: TrainedRun) -> _ContentReader:
    require_content(run)
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


def require_content(run: TrainedRun) -> None:
    """Raise a UserError if the item encoder of the run reads no content."""
    if not run.settings.uses_content:
        raise UserError(
            f"{run.folder}: an id tower cannot encode new content or new items; use a run trained on texts "
            "or images"
        )


def _picture(content: Any, label: str) -> Path | Image.Image:
    if isinstance(content, Image.Image):
        return content
    if isinstance(content, str | os.PathLike):
        return Path(content)
    raise UserError(f"{label}: expected an image (a file path or a PIL image), got {_kind(content)}")


def _texts(content: Any, attributes: tuple[str, ...], label: str) -> tuple[str, ...]:
    """The texts of one item, in the order of the run's attributes."""
    if isinstance(content, Mapping):
        unknown = [name for name in content if name not in ATTRIBUTES]
        missing = [name for name in attributes if name not in content]
        if unknown or missing:
            what = f"{missing[0]} is missing" if missing else f"unknown attribute {unknown[0]!r}"
            raise UserError(f"{label}: {what}; the run reads {', '.join(attributes)}")
        texts = tuple(content[name] for name in attributes)
    else:
        texts = (content,) if isinstance(content, str) else content
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{label}: expected {_expected(attributes)}, got {_kind(content)}")
    if len(texts) != len(attributes):
        raise UserError(f"{label}: expected {_expected(attributes)}, got {len(texts)} texts")
    return tuple(texts)


def _expected(attributes: tuple[str, ...]) -> str:
    if len(attributes) == 1:
        return f"the {attributes[0]} as a string"
    return f"a tuple of strings ({', '.join(attributes)}) or a dict with these keys"


def _kind(content: Any) -> str:
    return f"{type(content).__name__} {content!r:.40}"


def new_items(run: TrainedRun, items: Mapping[str, Any]) -> NewItems:
    """New items from a mapping of item name to content.

    Args:
        run: a finished run.
        items: content by item name, as :func:`content_store` takes it.

    Raises:
        UserError: an invalid item name, or see :func:`content_store`.
    """
    for name in items:
        if not isinstance(name, str) or not name or any(mark in name for mark in "\t\n\r\0"):
            raise UserError(f"item name {name!r}: expected a non-empty string without tabs and line breaks")
    labels = [f"item {name!r}" for name in items]
    contents = list(items.values())
    reader = _reader_of(run)
    return NewItems(list(items), reader.store(contents, labels), reader.titles(contents), labels)


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
    reader.check_images_option(images)
    columns = next(read_line_blocks(path), (1, [b""]))[1][0].count(b"\t") + 1
    for attribute in reader.columns:
        if columns < 2 + ATTRIBUTES.index(attribute):
            raise UserError(
                f"{path}:1: no {attribute}; {run.folder} reads {', '.join(reader.columns)} of each item; "
                f"columns are name, {', '.join(ATTRIBUTES)}"
            )
    with_title = ("title",) if columns > 1 else ()
    table = read_items(path, tuple(dict.fromkeys((*with_title, *reader.columns))), allow_empty_titles=True)
    labels = [f"{path}:{line}: item {_text(name)!r}" for line, name in enumerate(table.names, 1)]
    titles = [text.strip() for text in table.texts["title"]] if with_title else None
    rows, store = reader.from_table(table, labels, images, known)
    given = NewItems(
        [_text(table.names[row]) for row in rows],
        store,
        [titles[row] for row in rows] if titles else None,
        [labels[row] for row in rows],
    )
    return given, len(table.names)


def _text(name: bytes) -> str:
    return name.decode("utf-8")


def listed(contents: Iterable[Any], what: str) -> list[Any]:
    """The contents as a list.

    Raises:
        UserError: a single string, path, image or dict was passed instead of a list.
    """
    if isinstance(contents, str | bytes | os.PathLike | Image.Image | Mapping):
        raise UserError(f"expected a list of {what}, such as [{contents!r:.60}]")
    return list(contents)
