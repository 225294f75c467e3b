"""Building the LMDB of item images, from a folder of image files or from an LMDB of the released scripts.

A build that finds an LMDB brings it up to date: only new and changed files are decoded (updating.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapter4rec.data.images.database import shown
from adapter4rec.data.images.decoding import Resizing
from adapter4rec.data.images.description import BUILDER, Description, as_shell_word
from adapter4rec.data.images.released import released_images
from adapter4rec.data.images.sources import MatchedFiles, matched_files, matched_paths
from adapter4rec.data.images.updating import Update, files_to_read
from adapter4rec.data.interactions import ItemTable, read_items
from adapter4rec.data.settings import ATTRIBUTES, DECODINGS, FITS, INTERPOLATIONS, ImageFolderSettings
from adapter4rec.utils.command_line import from_script, parse_command_line, single_values
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import locked_file
from adapter4rec.utils.settings import option

_DEFAULT_PRESET = "hm"
_LONGEST_NAME = 511  # of a key in LMDB
_USABLE_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class ImageLmdbSettings(ImageFolderSettings):
    """Build an LMDB of item images, or bring it up to date. An interrupted build is resumed."""

    items: Path = option(help="item list: one item per line, the name in the first column")
    into: Path = option(help="output folder of the LMDB")
    images: Path | None = option(None, "folder of image files, searched recursively")
    preset: str | None = option(
        None, "hm or amazon: defaults for the paper's data; hm if none of --items, --images, --convert is set"
    )
    size: int = option(
        224, "height and width of the pixels; must match the image encoder", least=1, most=4096
    )
    fit: str = option("stretch", "how images become square: stretch, crop or pad with white", choices=FITS)
    interpolation: str = option("bilinear", "filter of the resizing", choices=INTERPOLATIONS)
    workers: int = option(_USABLE_CORES, "decoding threads; default: one per usable CPU core", least=1)
    decoding: str = option(
        "reduced",
        "how large JPEGs are decoded before the resizing: full; reduced, within a grey level of full on "
        "average; or fast, which is coarser",
        choices=DECODINGS,
    )
    convert: Path | None = option(None, "LMDB of the released scripts to convert, instead of --images")
    encoding: str = option("utf-8", "encoding of the item list, such as latin-1 or utf-16")


def build_from_page(presets: Mapping[str, Mapping[str, Any]], arguments: Sequence[str]) -> None:
    """Build an LMDB from presets and command-line arguments.

    Args:
        presets: settings by preset name; relative paths are resolved against the repository. The preset of
            H&M is the default unless the arguments contain ``--items``, ``--images`` or ``--convert``.
        arguments: command-line arguments, which override the preset; relative paths are resolved against the
            current folder.

    Raises:
        UserError: as :func:`build`; unknown option or invalid value.
    """
    known = ImageLmdbSettings.options({})
    given = single_values(parse_command_line(arguments, known, ImageLmdbSettings.__doc__ or ""))
    if "preset" in given or not given.keys() & {"items", "images", "convert"}:
        name = given.setdefault("preset", _DEFAULT_PRESET)
        if name not in presets:
            raise UserError(f"--preset {name}: {nearest(name, list(presets))}")
        given = from_script(presets[name], known) | given
    build(ImageLmdbSettings.from_values(given))


def build(settings: ImageLmdbSettings, *, wait: bool = False) -> Description:
    """Build the LMDB, resume an interrupted build, or bring a complete LMDB up to date.

    Files are compared with those of the last build by path, size and time of change, then by content.

    Args:
        settings: see there.
        wait: wait for another build of the same LMDB, and print nothing if nothing is to be done.

    Raises:
        UserError: invalid input, missing or unreadable images (with ``--missing error``), an LMDB that was
            built with other options, a running build in the same folder, or a full disk. Images already
            written are kept.
    """
    into, place = settings.into, settings.convert or settings.images
    if place is None:
        raise UserError("--images is required: the folder of image files (or --convert, a released LMDB)")
    table = _read_names(settings)
    into.parent.mkdir(parents=True, exist_ok=True)
    plan = Description(
        {
            "size": settings.size,
            "fit": settings.fit,
            "interpolation": settings.interpolation,
            "decoding": settings.decoding,
            # Relative to the LMDB, so that a data set may be moved as a whole.
            "convert" if settings.convert else "images": os.path.relpath(
                place.resolve(), into.resolve().parent
            ),
            "numbered_files": settings.numbered_files,
            "image_column": settings.image_column,
        }
    )

    def busy() -> None:
        if not wait:
            raise UserError(f"{into}: in use by another build; wait until it has finished")

    try:
        with locked_file(into.with_name(f".{into.name}.lock"), busy):
            resizing = Resizing(settings.size, settings.fit, settings.interpolation, settings.decoding)
            skipping = None
            if settings.missing == "error":
                skipping = "" if wait else f":\n  {_skipping(settings)}"
            update = Update(into, plan, table.names, resizing, settings.workers, skipping)
            if settings.convert:
                done = update.convert(released_images(place, table.names))
            else:
                done = update.read(place, files_to_read(place, _files_of(settings, place, table)))
    except KeyboardInterrupt:
        print(f"{into}: not complete; run the same command again to resume", file=sys.stderr)
        raise
    if not (wait and done.unchanged):
        print(done.summary())
    return done.description


def _read_names(settings: ImageLmdbSettings) -> ItemTable:
    column = () if settings.image_column is None else (ATTRIBUTES[settings.image_column - 2],)
    table = read_items(settings.items, column, allow_empty_titles=True, encoding=settings.encoding)
    for line, name in enumerate(table.names, 1):
        if len(name) > _LONGEST_NAME:
            raise UserError(
                f"{settings.items}:{line}: item name {shown(name[:20])} is longer than {_LONGEST_NAME} "
                "bytes, which LMDB cannot store; rename it here and in users.tsv"
            )
    return table


def _files_of(settings: ImageLmdbSettings, place: Path, table: ItemTable) -> MatchedFiles:
    if settings.image_column is None:
        return matched_files(place, table.names, numbered=settings.numbered_files)
    (paths,) = table.texts.values()
    return matched_paths(place, dict(zip(table.names, paths, strict=True)))


def _skipping(settings: ImageLmdbSettings) -> str:
    """The command that skips items without an image."""
    values = settings.plain() | {"missing": "skip"}
    options = ImageLmdbSettings.options({})
    words = [
        f"--{name} {as_shell_word(value)}"
        for name, value in values.items()
        if value != options[name].default and value is not None
    ]
    return " ".join([BUILDER, *words])
