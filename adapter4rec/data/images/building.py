"""Building the LMDB of item images, from a folder of image files or from an LMDB of the released scripts."""

from __future__ import annotations

import argparse
import os
import sys
import typing
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from tqdm import tqdm

from adapter4rec.data.images.description import LONGEST_NAME, Description, hash_of_list
from adapter4rec.data.images.preparing import Job, Preparer, prepared
from adapter4rec.data.images.records import Storage, shown
from adapter4rec.data.images.released import ReleasedSource
from adapter4rec.data.images.sources import FolderSource, ImageSource
from adapter4rec.data.images.writing import DatabaseWriter, left_out_file, write_left_out
from adapter4rec.data.interactions import read_items
from adapter4rec.utils.command_line import settings_from_command_line
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import relative_to_repository
from adapter4rec.utils.settings import Settings, option

_EXAMPLES = 5
_NO_IMAGE = "no image"
_DEFAULT_PRESET = "hm"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Missing(Enum):
    """How to handle items without a usable image."""

    ERROR = "error"
    SKIP = "skip"


@dataclass(frozen=True)
class ImageLmdbSettings(Settings):
    """Build an LMDB of item images. The same command resumes an interrupted build."""

    items: Path = option(help="item list: one item per line, the name in the first column")
    into: Path = option(help="output folder of the LMDB")
    images: Path | None = option(None, "folder of image files, searched recursively")
    preset: str | None = option(
        None,
        "hm or amazon: defaults for the paper's data; hm if none of --items, --images, --convert is set",
    )
    numbered_files: bool = option(
        False, "match item v123 with 123.jpg or v123.jpg, ignoring leading zeros (H&M's file names)"
    )
    store: Storage = option(
        Storage.PIXELS, "pixels: decoded and resized; file: the image files, about 10 times smaller"
    )
    size: int = option(
        224, "height and width of the pixels; must match the image encoder", least=1, most=4096
    )
    missing: Missing = option(Missing.ERROR, "items without a usable image: error, or skip them")
    workers: int = option(_usable_cores(), "decoding threads; default: one per CPU core", least=1)
    convert: Path | None = option(None, "LMDB of the released scripts to convert, instead of --images")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ImageLmdbSettings:
        """As :meth:`Settings.from_values`; one error lists all missing paths.

        Raises:
            UserError: unknown option, missing or invalid value.
        """
        known = cls.options(values)
        needed = ["items", "into"] if "convert" in values else ["items", "images", "into"]
        missing = [
            f"--{name}" for name in needed if name not in values and known[name].default in (MISSING, None)
        ]
        if missing:
            raise UserError(f"{', '.join(missing)}: required without --preset hm or --preset amazon")
        return super().from_values(values)

    def plan(self, names: Sequence[bytes], source: ImageSource) -> Description:
        """Description of the LMDB to build for the items ``names``."""
        place = self.images if self.convert is None else self.convert
        assert place is not None
        return Description(
            form=self.store,
            size=self.size if self.store is Storage.PIXELS else None,
            origin=source.origin,
            place=os.path.relpath(place.resolve(), self.into.resolve().parent),
            numbered_files=self.numbered_files and self.convert is None,
            listed_items=len(names),
            list_hash=hash_of_list(names),
        )

    def source(self) -> ImageSource:
        """The source of the images.

        Raises:
            UserError: conflicting settings.
        """
        if self.convert is not None:
            if self.store is Storage.FILE:
                raise UserError(
                    "--store file: not supported with --convert, since LMDBs of the released scripts contain "
                    "pixels and not image files"
                )
            return ReleasedSource(self.convert)
        if self.images is None:
            raise UserError("--images is required: the folder of image files (or --convert, a released LMDB)")
        return FolderSource(self.images, numbered=self.numbered_files)


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
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--preset", "--items", "--images", "--convert"):
        parser.add_argument(name, nargs="*")
    given = {name: values for name, values in vars(parser.parse_known_args(arguments)[0]).items() if values}
    cls = ImageLmdbSettings
    if "preset" in given or not given:
        name = given.get("preset", [_DEFAULT_PRESET])[-1]
        if name not in presets:
            raise UserError(f"--preset {name}: {nearest(name, list(presets))}")
        cls = _with_defaults(cls, {"preset": name, **presets[name]})
    build(settings_from_command_line(cls, arguments))


def _with_defaults(cls: type[ImageLmdbSettings], values: Mapping[str, Any]) -> type[ImageLmdbSettings]:
    """A copy of the settings class with other defaults, which are shown in ``--help``."""
    hints = typing.get_type_hints(cls)
    changed: list[tuple[str, Any, Any]] = []
    for one in fields(cls):
        if one.name in values:
            value = values[one.name]
            if hints[one.name] in (Path, Path | None):
                value = relative_to_repository(value)
            changed.append((one.name, hints[one.name], field(default=value, metadata=one.metadata)))
    return make_dataclass(
        cls.__name__, changed, bases=(cls,), frozen=True, namespace={"__doc__": cls.__doc__}
    )


def build(settings: ImageLmdbSettings) -> Description:
    """Build the LMDB, or resume an interrupted build. Does nothing if the LMDB is complete.

    Raises:
        UserError: invalid input, missing or unreadable images (with ``--missing error``), another LMDB or a
            running build in the same folder, or a full disk. Images already written are kept.
    """
    source = settings.source()
    names = _item_names(settings.items)
    if settings.convert is not None and settings.convert.absolute() == settings.into.absolute():
        raise UserError(f"{settings.into}: --convert and --into are the same folder")
    plan = settings.plan(names, source)
    with DatabaseWriter(settings.into, plan) as writer:
        if writer.finished is not None:
            _require_none_left_out(writer.finished, settings)
            print(f"{settings.into} is already complete: {plan.what()}; nothing to do")
            print(_summary(writer.finished, writer.size_on_disk, settings.into))
            return writer.finished
        return _build(settings, source, names, writer)


def _build(
    settings: ImageLmdbSettings, source: ImageSource, names: list[bytes], writer: DatabaseWriter
) -> Description:
    report = left_out_file(settings.into)
    places = source.find(names)
    missing = [name for name in names if name not in places]
    if missing and settings.missing is Missing.ERROR:
        write_left_out(report, dict.fromkeys(missing, _NO_IMAGE))
        raise UserError(
            f"{len(missing):,} of {len(names):,} items have no image: {_examples(missing)} "
            f"(full list in {report}). Searched {source.looked_for()} Add the images, or skip these items "
            "with --missing skip"
        )
    stored = writer.begin()
    jobs = [Job(name, places[name]) for name in names if name in places and name not in stored]
    if stored:
        print(f"{settings.into}: resuming after {len(stored):,} images", flush=True)
    preparer = Preparer(source, settings.store, settings.size)
    broken = _write_images(preparer, jobs, settings.workers, writer)
    # Images stored by an interrupted build are kept, even if their files have been deleted since.
    why = dict.fromkeys(set(missing) - stored, _NO_IMAGE) | broken
    reasons = {name: why[name] for name in names if name in why}
    write_left_out(report, reasons)
    if broken and settings.missing is Missing.ERROR:
        name, reason = next(iter(broken.items()))
        raise UserError(
            f"{len(broken):,} of {len(names):,} images cannot be read, for example of item {shown(name)}: "
            f"{reason} (full list in {report}). {settings.into} is not complete: replace these images and "
            "run the same command again to resume, or skip these items with --missing skip"
        )
    if len(reasons) == len(names):
        raise UserError(f"{settings.into}: none of {len(names):,} items has a usable image; see {report}")
    description = writer.finish(names)
    print(_summary(description, writer.size_on_disk, settings.into, missing=len(reasons) - len(broken)))
    return description


def _write_images(
    preparer: Preparer, jobs: list[Job], workers: int, writer: DatabaseWriter
) -> dict[bytes, str]:
    """Write the images to the LMDB; returns the reasons for unreadable images, by item."""
    broken: dict[bytes, str] = {}
    bar = tqdm(desc="images", total=len(jobs), unit="image", disable=None, leave=False)
    with warnings.catch_warnings(), bar, closing(prepared(preparer, jobs, workers)) as values:
        # Warning filters are global to the process, so they are set here and not in the threads.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            for one in values:
                if one.value is None:
                    broken[one.name] = one.reason
                else:
                    writer.put(one.name, one.value)
                bar.update()
            writer.flush()
        except KeyboardInterrupt:
            writer.flush()
            print(
                f"\n{writer.folder} is not complete; run the same command again to resume",
                file=sys.stderr,
            )
            raise
    return broken


def _item_names(path: Path) -> list[bytes]:
    names = read_items(path, allow_empty_titles=True).names
    for line, name in enumerate(names, 1):
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"{path}:{line}: the item name has {len(name)} bytes; LMDB keys are limited to {LONGEST_NAME}"
            )
        if b"\0" in name:
            raise UserError(f"{path}:{line}: the item name contains a null byte")
    return names


def _require_none_left_out(found: Description, settings: ImageLmdbSettings) -> None:
    if found.left_out and settings.missing is Missing.ERROR:
        raise UserError(
            f"{settings.into}: complete, but built with --missing skip: {len(found.left_out):,} items were "
            f"left out ({_examples(found.left_out)}). Use --missing skip to accept this, or remove the LMDB "
            "and build it again"
        )


def _examples(names: Sequence[bytes]) -> str:
    more = ", …" if len(names) > _EXAMPLES else ""
    return ", ".join(map(shown, names[:_EXAMPLES])) + more


def _summary(description: Description, size_on_disk: int, into: Path, missing: int | None = None) -> str:
    lines = [f"{into}: {description.images:,} images, {size_on_disk / 1e6:,.1f} MB"]
    if description.left_out:
        left_out = len(description.left_out)
        parts = "" if missing is None else f" ({missing:,} missing, {left_out - missing:,} broken)"
        lines.append(f"left out: {left_out:,} items{parts}, listed with the reasons in {left_out_file(into)}")
    else:
        lines.append("missing or broken: none")
    counts = dict(description.conversions or {})
    turned = counts.pop("exif_turned", 0)
    converted = ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in counts.items())
    lines.append(f"converted to 8-bit RGB: {converted}; rotated by EXIF {turned:,}")
    return "\n".join(lines)
