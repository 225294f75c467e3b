"""New content for a trained model: single contents to encode, and items it was not trained on.

New content is processed exactly as the run's own items were: texts are tokenized and truncated with the run's
settings, images are converted as ``build_lmdb_hm.py`` converts them.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from adapter4rec.data.content import ContentStore
from adapter4rec.data.domain import text_store
from adapter4rec.data.images.database import DATA_FILE, ImageDatabase
from adapter4rec.data.images.decoding import Resizing
from adapter4rec.data.images.sources import image_files
from adapter4rec.data.images.store import ImageFileStore, ImageStore
from adapter4rec.data.settings import TextSettings
from adapter4rec.models.backbone_folders import backbone_folder
from adapter4rec.models.backbones import load_tokenizer
from adapter4rec.serving.candidates import Items, read_titled_items
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import title_fault

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

_EXAMPLES = 3


def new_items(
    run: TrainedRun, names: Sequence[str], contents: Sequence[object], labels: Sequence[str]
) -> Items:
    """New items, processed for the item encoder of a run.

    Args:
        run: a finished run.
        names: name of each item.
        contents: content of each item. Text runs take a title, or the texts of the run's attributes as a
            tuple in their order or as a dict. Image runs take the path of an image file or a PIL image.
        labels: origin of each item for error messages.

    Raises:
        UserError: the item encoder reads no content, or a content has the wrong type. Image files are opened
            only when they are fetched.
    """
    if not run.settings.uses_content:
        raise UserError(
            f"{run.folder}: an id tower, or a head on item vectors, cannot encode new content or new items; "
            "use a run trained on texts or images"
        )
    settings, titles = run.settings, [""] * len(names)
    store: ContentStore
    if isinstance(run.domain.store, ImageStore):
        pictures = [_picture(*pair) for pair in zip(contents, labels, strict=True)]
        store = ImageFileStore(pictures, labels, run.domain.store.resizing)
    else:
        assert isinstance(settings, TextSettings)  # what encodes content and is no image run
        rows = [_texts(settings, *pair) for pair in zip(contents, labels, strict=True)]
        texts = {name: [row[at] for row in rows] for at, name in enumerate(settings.attributes)}
        tokenizer = tokenizer_of(backbone_folder(settings.backbone))
        _require_titles(settings, texts.get("title", ()), labels)
        store = text_store(settings, texts, tokenizer, cache_folder=None)
        titles = [title.strip() for title in texts.get("title", titles)]
    return Items(names, titles, labels, store, np.arange(1, len(names) + 1))


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a backbone, loaded once: that takes longer than encoding an item."""
    files = [path.stat() for path in sorted(folder.iterdir())]
    return _loaded_tokenizer(folder, tuple((file.st_size, file.st_mtime_ns) for file in files))


@lru_cache(maxsize=16)
def _loaded_tokenizer(folder: Path, state: tuple[tuple[int, int], ...]) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder whose files have these sizes and times of change."""
    return load_tokenizer(folder)


def read_new_items(
    run: TrainedRun, path: Path, images: Path | None, known: Container[str], encoding: str = "utf-8"
) -> Items:
    """Read new items from a file in the format of ``items.tsv``.

    Args:
        run: a finished run.
        path: the file.
        images: for image runs, a folder of image files whose stems are item names, or an LMDB made by
            ``build_lmdb_hm.py``.
        known: names of items that may lack an image here; those without one are skipped.
        encoding: encoding of the file.

    Raises:
        UserError: an invalid line, a missing text column, an item without an image, or a run whose item
            encoder reads no content. The message names file and line.
    """
    attributes = run.settings.attributes if isinstance(run.settings, TextSettings) else ()
    table = read_titled_items(path, attributes, encoding)
    names = [name.decode() for name in table.names]
    titles = [title.strip() for title in table.texts.get("title", [""] * len(names))]
    labels = [f"{path}:{line}: item {name!r}" for line, name in enumerate(names, 1)]
    rows: Sequence[int] = range(len(names))
    if isinstance(run.domain.store, ImageStore):
        store, available = _image_store(images, table.names, labels, run.domain.store)
        rows = [row for row, name in enumerate(table.names) if name in available]
        lacking = set(range(len(names))).difference(rows)
        if missing := [labels[row] for row in sorted(lacking) if names[row] not in known]:
            examples = ", ".join(missing[:_EXAMPLES])
            raise UserError(f"{images}: {len(missing):,} new items have no image: {examples}")
    elif images is not None:
        raise UserError(f"--item-images: {run.folder} does not encode images")
    else:
        if isinstance(run.settings, TextSettings):  # also where the run does not read the titles
            _require_titles(run.settings, table.texts.get("title", ()), labels)
        texts = list(zip(*(table.texts[name] for name in attributes), strict=True))
        store = new_items(run, names, texts, labels).store
    return Items(names, titles, labels, store, np.arange(1, len(names) + 1)).subset(rows)


def listed(contents: Iterable[T], what: str) -> list[T]:
    """The contents as a list.

    Raises:
        UserError: a single text, path, image or dict was passed instead of a list.
    """
    if isinstance(contents, str | bytes | os.PathLike | Image.Image | Mapping):
        raise UserError(f"expected a list of {what}, such as [{contents!r:.60}]")
    return list(contents)


def is_image(content: object) -> bool:
    """Whether something is a PIL image, or the path of an existing file."""
    if isinstance(content, Image.Image):
        return True
    return isinstance(content, str | os.PathLike) and Path(content).is_file()


def _picture(content: object, label: str) -> Image.Image | Path:
    if not isinstance(content, Image.Image | str | os.PathLike):
        raise UserError(f"{label}: expected an image file or a PIL image, got {content!r:.60}")
    return content if isinstance(content, Image.Image) else Path(content)


def _texts(settings: TextSettings, content: object, label: str) -> list[str]:
    """The text of each attribute of an item.

    Raises:
        UserError: an attribute is missing or unknown, or a text is not a string.
    """
    expected = settings.attributes
    texts = [content] if isinstance(content, str) else content
    if isinstance(content, Mapping) and set(content) == set(expected):
        texts = [content[name] for name in expected]
    if (
        not isinstance(texts, list | tuple)
        or len(texts) != len(expected)
        or not all(isinstance(text, str) for text in texts)
    ):
        raise UserError(f"{label}: expected texts of {', '.join(expected)}, got {content!r:.200}")
    return list(texts)


def _require_titles(settings: TextSettings, titles: Iterable[str], labels: Iterable[str]) -> None:
    for title, label in zip(titles, labels, strict=False):
        if fault := title_fault(title, allow_empty=settings.allow_empty_titles):
            raise UserError(f"{label}: {fault}; this run was trained without empty titles")


def _image_store(
    images: Path | None, names: list[bytes], labels: Sequence[str], known: ImageStore
) -> tuple[ContentStore, Container[bytes]]:
    """The images of new items, and the names of the items that have one."""
    if images is None:
        raise UserError("--item-images is required: a folder or an LMDB with images of the new items")
    if images.is_file() or (images / DATA_FILE).is_file():
        database = ImageDatabase(images)
        database.require_size(known.size)
        found, wanted = asdict(Resizing.of(database.description)), asdict(known.resizing)
        for name in found:
            if found[name] != wanted[name]:
                raise UserError(
                    f"{images}: built with --{name} {found[name]}, but the run's with {wanted[name]}; build "
                    "it in the same way, or pass the folder of images"
                )
        return ImageStore(database, names, known.size), database.names()
    files = image_files(images, names)
    return ImageFileStore([files.get(name, images) for name in names], labels, known.resizing), files
