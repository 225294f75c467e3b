"""Building the LMDB of item images, from a folder of image files or from an LMDB of the released scripts.

The LMDB is built in a folder next to its final place, which is renamed when the build is complete.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import lmdb
from PIL import Image
from tqdm import tqdm

from adapter4rec.data.images.database import Description, ImageDatabase, examples, pack, shown, stored_names
from adapter4rec.data.images.decoding import BrokenImageError, decoded, resized
from adapter4rec.data.images.released import released_images
from adapter4rec.data.images.sources import image_files
from adapter4rec.data.images.writing import finish, unfinished_lmdb, write
from adapter4rec.data.interactions import read_items
from adapter4rec.utils.command_line import from_script, parse_command_line, single_values
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import atomic_file, locked_file
from adapter4rec.utils.settings import Settings, option

_NO_IMAGE = "no image"
_DEFAULT_PRESET = "hm"
_LONGEST_NAME = 511  # of a key in LMDB
_USABLE_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_BATCH = 64
"""Images per transaction; the threads prepare the next batch while one is written."""


@dataclass(frozen=True)
class ImageLmdbSettings(Settings):
    """Build an LMDB of item images. The same command resumes an interrupted build."""

    items: Path = option(help="item list: one item per line, the name in the first column")
    into: Path = option(help="output folder of the LMDB")
    images: Path | None = option(None, "folder of image files, searched recursively")
    preset: str | None = option(
        None, "hm or amazon: defaults for the paper's data; hm if none of --items, --images, --convert is set"
    )
    numbered_files: bool = option(
        False, "match item v123 with 123.jpg or v123.jpg, ignoring leading zeros (H&M's file names)"
    )
    size: int = option(
        224, "height and width of the pixels; must match the image encoder", least=1, most=4096
    )
    missing: str = option(
        "error", "items without a usable image: stop with an error, or skip them", choices=("error", "skip")
    )
    workers: int = option(_USABLE_CORES, "decoding threads; default: one per usable CPU core", least=1)
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


def build(settings: ImageLmdbSettings) -> Description:
    """Build the LMDB, or resume an interrupted build. Does nothing if the LMDB is complete.

    Raises:
        UserError: invalid input, missing or unreadable images (with ``--missing error``), another LMDB or a
            running build in the same folder, or a full disk. Images already written are kept.
    """
    into, place = settings.into, settings.convert or settings.images
    if place is None:
        raise UserError("--images is required: the folder of image files (or --convert, a released LMDB)")
    names = read_items(settings.items, allow_empty_titles=True, encoding=settings.encoding).names
    for line, name in enumerate(names, 1):
        if len(name) > _LONGEST_NAME:
            raise UserError(
                f"{settings.items}:{line}: item name {shown(name[:20])} is longer than {_LONGEST_NAME} "
                "bytes, which LMDB cannot store; rename it here and in users.tsv"
            )
    into.parent.mkdir(parents=True, exist_ok=True)
    plan = Description(
        {
            "items": f"{len(names):,} names, SHA-256 {hashlib.sha256(b' '.join(names)).hexdigest()[:16]}",
            "size": settings.size,
            # Relative to the LMDB, so that a data set may be moved as a whole.
            "convert" if settings.convert else "images": os.path.relpath(
                place.resolve(), into.resolve().parent
            ),
            "numbered_files": settings.numbered_files,
        }
    )

    def busy() -> None:
        raise UserError(f"{into}: in use by another build; wait until it has finished")

    try:
        with locked_file(into.with_name(f".{into.name}.lock"), busy):
            description = _complete(settings, plan) if into.exists() else _build(settings, place, names, plan)
    except KeyboardInterrupt:
        print(f"{into}: not complete; run the same command again to resume", file=sys.stderr)
        raise
    print(f"{into}: {description.images:,} images of {plan.size} x {plan.size}")
    if description.left_out:
        report = left_out_file(into)
        print(f"left out: {len(description.left_out):,} items, listed with the reasons in {report}")
    return description


def _complete(settings: ImageLmdbSettings, plan: Description) -> Description:
    """The description of the LMDB that a previous build completed."""
    into = settings.into
    description = ImageDatabase(into).description
    description.require_same_options(plan, into)
    if description.left_out and settings.missing == "error":
        raise UserError(
            f"{into}: built with --missing skip: {len(description.left_out):,} items have no image: "
            f"{examples(description.left_out)} (full list in {left_out_file(into)}). Use --missing skip, or "
            "remove the LMDB, add these images and run the same command again"
        )
    print(f"{into} is already complete; nothing to do")
    return description


def _build(settings: ImageLmdbSettings, place: Path, names: list[bytes], plan: Description) -> Description:
    if settings.convert:
        images = released_images(place, names)
    else:
        files = image_files(place, names, numbered=settings.numbered_files)
        images = {name: partial(decoded, file) for name, file in files.items()}
    _report_left_out(settings, {name: _NO_IMAGE for name in names if name not in images}, names)
    folder = unfinished_folder(settings.into)
    with unfinished_lmdb(folder, plan, len(names)) as environment:
        with environment.begin() as transaction:
            stored = stored_names(transaction)
        if stored:
            print(f"{settings.into}: resuming after {len(stored):,} images", flush=True)
        images = {name: load for name, load in images.items() if name not in stored}
        broken = _write_images(settings, images, environment)
        # Images stored by an interrupted build are kept, even if their files have been deleted since.
        stored |= images.keys() - broken.keys()
        reasons = {name: broken.get(name, _NO_IMAGE) for name in names if name not in stored}
        _report_left_out(settings, reasons, names)
        if not stored:
            raise UserError(f"{settings.into}: none of {len(names):,} items has a usable image")
        description = finish(environment, replace(plan, images=len(stored), left_out=tuple(reasons)))
    folder.rename(settings.into)
    return description


def _write_images(
    settings: ImageLmdbSettings,
    images: Mapping[bytes, Callable[[], Image.Image]],
    environment: lmdb.Environment,
) -> dict[bytes, str]:
    """Read, decode and resize images in threads (Pillow releases the GIL), and write them to the LMDB.

    Args:
        settings: size, number of threads.
        images: functions that load the images, by item name.
        environment: the LMDB.

    Returns:
        The reasons for unreadable images, by item name.
    """

    def prepare(name: bytes) -> bytes | str:
        try:
            return pack(name, resized(images[name](), settings.size).tobytes())
        except BrokenImageError as error:
            return str(error)

    broken: dict[bytes, str] = {}
    names = list(images)
    batches = [names[first : first + _BATCH] for first in range(0, len(names), _BATCH)]
    bar = tqdm(desc="images", total=len(names), unit="image", disable=None, leave=False)
    Image.init()  # Pillow imports its plugins lazily, which is not thread-safe
    with warnings.catch_warnings(), bar, ThreadPoolExecutor(settings.workers) as pool:
        # Warning filters are global to the process, so they are set here and not in the threads.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        prepared = pool.map(prepare, names[:_BATCH])
        for batch, following in pairwise([*batches, []]):
            found = dict(zip(batch, prepared, strict=True))
            prepared = pool.map(prepare, following)  # while this batch is written
            write(environment, {name: value for name, value in found.items() if isinstance(value, bytes)})
            broken |= {name: reason for name, reason in found.items() if isinstance(reason, str)}
            bar.update(len(batch))
    return broken


def unfinished_folder(into: Path) -> Path:
    """Folder in which an LMDB is built; it is renamed to ``into`` when the build is complete."""
    return into.with_name(f"{into.name}.unfinished")


def left_out_file(folder: Path) -> Path:
    """Path of the file next to an LMDB that lists the items without an image, with reasons."""
    return folder.with_name(folder.name.removesuffix(".lmdb") + ".left_out.tsv")


def _report_left_out(
    settings: ImageLmdbSettings, reasons: Mapping[bytes, str], names: Sequence[bytes]
) -> None:
    """Write the left-out file: ``name<TAB>reason`` lines. If there are none, it is removed.

    Raises:
        UserError: there are some, and ``--missing error`` is set.
    """
    path = left_out_file(settings.into)
    if not reasons:
        path.unlink(missing_ok=True)
        return
    with atomic_file(path) as temporary:
        lines = (b"%b\t%b\n" % (name, why.encode("utf-8", "replace")) for name, why in reasons.items())
        temporary.write_bytes(b"".join(lines))
    if settings.missing == "error":
        first, why = next(iter(reasons.items()))
        raise UserError(
            f"{len(reasons):,} of {len(names):,} items have no usable image, the first is {shown(first)}: "
            f"{why} (full list in {path}). Add or replace these images and run the same command again, or "
            "skip the items with --missing skip"
        )
