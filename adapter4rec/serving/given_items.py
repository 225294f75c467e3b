"""What people hand a trained model: contents to encode, and items that it was never trained on.

Content goes the way of the run's own: texts through its tokenizer and cuts, images through what
``build_lmdb_hm.py`` does to them.
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
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.opening import DATA_FILE
from adapter4rec.data.images.sources import FolderSource
from adapter4rec.data.images.store import ImageStore, PictureStore
from adapter4rec.data.interactions import ATTRIBUTES, ItemTable, read_items
from adapter4rec.data.lines import blocks_of_lines
from adapter4rec.models.backbones import backbone_folder, load_tokenizer
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError

_EXAMPLES = 3


@dataclass(frozen=True)
class GivenItems:
    """Items that are handed to a trained model.

    Attributes:
        names: one an item, all different.
        store: their content, under the numbers 1….
        titles: one an item, or None where there are none.
        labels: where each was given, for messages, as ``new_items.tsv:3: item 'x'``.
    """

    names: list[str]
    store: ContentStore
    titles: list[str] | None
    labels: list[str]


def content_store(run: TrainedRun, contents: Sequence[Any], labels: Sequence[str]) -> ContentStore:
    """Contents as the run's item encoder reads them.

    Args:
        run: a finished run.
        contents: of each item: for text runs a title, or the texts of the run's attributes as a tuple in
            their order or as a dict by their names; for image runs the path of an image file or a PIL image.
        labels: what each is called in messages.

    Raises:
        UserError: the run's items have no content, or one of the contents is of another kind. Image files are
            opened when they are fetched.
    """
    require_content(run)
    if run.settings.modality == "image":
        pictures = [_picture(content, label) for content, label in zip(contents, labels, strict=True)]
        return PictureStore(pictures, labels, run.domain.store.size)
    attributes = run.settings.attributes
    rows = [_texts(content, attributes, label) for content, label in zip(contents, labels, strict=True)]
    texts = {name: [row[column] for row in rows] for column, name in enumerate(attributes)}
    if not run.settings.allow_empty_titles:
        for title, label in zip(texts.get("title", ()), labels, strict=False):
            if not title.strip():
                raise UserError(f"{label}: the title is empty, and the run knows no items without one")
    tokenizer = load_tokenizer(backbone_folder(run.settings.backbone))
    return text_store(run.settings, texts, tokenizer, cache_folder=None)


def require_content(run: TrainedRun) -> None:
    """Raise a UserError for a run whose item encoder reads no content."""
    if not run.settings.uses_content:
        raise UserError(
            f"{run.folder}: an id tower; it knows the items that it was trained on by their numbers, and has "
            "no vector for others. Take a run that reads titles or images"
        )


def _picture(content: Any, label: str) -> Path | Image.Image:
    if isinstance(content, Image.Image):
        return content
    if isinstance(content, str | os.PathLike):
        return Path(content)
    raise UserError(f"{label}: {_kind(content)}; the run takes images: paths of files, or PIL images")


def _texts(content: Any, attributes: tuple[str, ...], label: str) -> tuple[str, ...]:
    """The texts of one item, in the order of the run's attributes."""
    if isinstance(content, Mapping):
        unknown = [name for name in content if name not in ATTRIBUTES]
        missing = [name for name in attributes if name not in content]
        if unknown or missing:
            what = f"there is no {missing[0]}" if missing else f"{unknown[0]!r} is no text of an item"
            raise UserError(f"{label}: {what}; the run reads {', '.join(attributes)}")
        texts = tuple(content[name] for name in attributes)
    else:
        texts = (content,) if isinstance(content, str) else content
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{label}: {_kind(content)}; the run takes {_wanted(attributes)}")
    if len(texts) != len(attributes):
        raise UserError(f"{label}: {len(texts)} texts; the run takes {_wanted(attributes)}")
    return tuple(texts)


def _wanted(attributes: tuple[str, ...]) -> str:
    if len(attributes) == 1:
        return f"the {attributes[0]} as a text"
    return f"a tuple ({', '.join(attributes)}) of texts, or a dict with these keys"


def _kind(content: Any) -> str:
    return f"{type(content).__name__} {content!r:.40}"


def given_items(run: TrainedRun, items: Mapping[str, Any]) -> GivenItems:
    """Items by name, each with its content as :func:`content_store` takes it.

    Raises:
        UserError: as there, and for names that no file of items could hold.
    """
    for name in items:
        if not isinstance(name, str) or not name or any(mark in name for mark in "\t\n\r\0"):
            raise UserError(f"item name {name!r}: expected a text without tabs and line ends")
    labels = [f"item {name!r}" for name in items]
    contents = list(items.values())
    store = content_store(run, contents, labels)
    titles = None
    if run.settings.modality == "text" and "title" in run.settings.attributes:
        column = run.settings.attributes.index("title")
        titles = [_texts(content, run.settings.attributes, "")[column].strip() for content in contents]
    return GivenItems(list(items), store, titles, labels)


def read_given_items(
    run: TrainedRun, path: Path, images: Path | None, known: Container[str]
) -> tuple[GivenItems, int]:
    """Items from a file like ``items.tsv``, and how many it lists.

    Args:
        run: a finished run.
        path: the file.
        images: of image runs: the folder of the items' image files, each with its item's name as stem, or an
            LMDB that ``build_lmdb_hm.py`` made.
        known: names of items that need no image here; without one they are left out.

    Raises:
        UserError: bad lines, texts that the run reads are not there, an item without an image, or a run
            whose items have no content. It names file and line.
    """
    require_content(run)
    of_images = run.settings.modality == "image"
    if of_images and images is None:
        raise UserError("--item-images is needed: the folder of the new items' images, or an LMDB of them")
    if images is not None and not of_images:
        raise UserError(f"--item-images: {run.folder} is no run with images")
    attributes = () if of_images else run.settings.attributes
    columns = next(blocks_of_lines(path), (1, [b""]))[1][0].count(b"\t") + 1
    for attribute in attributes:
        if columns < 2 + ATTRIBUTES.index(attribute):
            raise UserError(
                f"{path}:1: there is no {attribute}, and {run.folder} reads {', '.join(attributes)} of each "
                f"item; columns are name, {', '.join(ATTRIBUTES)}"
            )
    with_title = ("title",) if columns > 1 else ()
    table = read_items(path, tuple(dict.fromkeys((*with_title, *attributes))), allow_empty_titles=True)
    labels = [f"{path}:{line}: item {_text(name)!r}" for line, name in enumerate(table.names, 1)]
    titles = [text.strip() for text in table.texts["title"]] if with_title else None
    if not of_images:
        texts = list(zip(*(table.texts[attribute] for attribute in attributes), strict=True))
        store = content_store(run, texts, labels)
        return GivenItems([_text(name) for name in table.names], store, titles, labels), len(table.names)
    rows, store = _with_images(run, table, labels, images, known)
    given = GivenItems(
        [_text(table.names[row]) for row in rows],
        store,
        [titles[row] for row in rows] if titles else None,
        [labels[row] for row in rows],
    )
    return given, len(table.names)


def _with_images(
    run: TrainedRun, table: ItemTable, labels: list[str], images: Path, known: Container[str]
) -> tuple[list[int], ContentStore]:
    """The rows of the items that have an image, and the store of these."""
    size = run.domain.store.size
    is_database = images.is_file() or (images / DATA_FILE).is_file()
    if is_database:
        database = ImageDatabase(images)
        database.require_size(size)
        there = database.names().intersection(table.names)
        looked_for = f"in {images}; build_lmdb_hm.py makes an LMDB of all of them"
    elif images.is_dir():
        source = FolderSource(images)
        places = there = source.find(table.names)
        looked_for = source.looked_for()
    else:
        raise UserError(f"--item-images {images}: neither a folder of images nor an LMDB is there")
    missing = [
        label
        for name, label in zip(table.names, labels, strict=True)
        if name not in there and _text(name) not in known
    ]
    if missing:
        more = ", …" if len(missing) > _EXAMPLES else ""
        raise UserError(
            f"{len(missing):,} new items have no image: {', '.join(missing[:_EXAMPLES])}{more}. Looked for "
            f"{looked_for}"
        )
    rows = [row for row, name in enumerate(table.names) if name in there]
    names = [table.names[row] for row in rows]
    if is_database:
        return rows, ImageStore(database, names, size)
    paths = [images / os.fsdecode(places[name]) for name in names]
    return rows, PictureStore(paths, [labels[row] for row in rows], size)


def _text(name: bytes) -> str:
    return name.decode("utf-8")


def listed(contents: Iterable[Any], what: str) -> list[Any]:
    """A list of what was given, which is easily one thing where several are meant.

    Raises:
        UserError: it is one text, path, image or dict.
    """
    if isinstance(contents, str | bytes | os.PathLike | Image.Image | Mapping):
        raise UserError(f"give a list of {what}, as [{contents!r:.60}]")
    return list(contents)
