"""Bringing an LMDB of item images up to date with the files that it is made from.

The new LMDB is built in a folder next to the old one, as a copy in which only the images of new, changed and
removed files are written. It replaces the old one when it is complete, so that processes that read the old
one are not disturbed.
"""

from __future__ import annotations

import csv
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import lmdb
from PIL import Image
from tqdm import tqdm

from adapter4rec.data.images.database import (
    DATA_FILE,
    ImageDatabase,
    opened,
    pack,
    reading,
    shown,
    sources_in,
)
from adapter4rec.data.images.decoding import BrokenImageError, Resizing, image_bytes
from adapter4rec.data.images.description import Description, ImageSource
from adapter4rec.data.images.sources import SEVERAL, MatchedFiles
from adapter4rec.data.images.writing import finish, unfinished_lmdb, write
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file, atomic_folder
from adapter4rec.utils.plain_text import shows_progress

_NO_IMAGE = "no image"
_BATCH_BYTES = 32 << 20
"""Pixels per transaction. It ends with a wait for the disk, while the threads prepare the next batch."""

Loaded = tuple[ImageSource, bytes | None]
"""The source of an item, and its value in the LMDB; None if the LMDB has it, or there is no image."""


@dataclass(frozen=True)
class Updated:
    """What an update has done.

    Attributes:
        into: the LMDB.
        description: its description.
        items: number of items in the list.
        missing: the sources of the items without a usable image, in list order.
        decoded: number of images that were decoded.
        removed: number of images that were removed.
        unchanged: whether there was nothing to do.
    """

    into: Path
    description: Description
    items: int
    missing: Mapping[bytes, ImageSource]
    decoded: int = 0
    removed: int = 0
    unchanged: bool = False

    def summary(self) -> str:
        """Lines for the terminal."""
        size, count = self.description.size, self.description.images
        line = f"{self.into}: {count:,} images of {size} x {size}"
        line += "; up to date" if self.unchanged else f"; {self.decoded:,} decoded, {self.removed:,} removed"
        if self.missing:
            line += f"\nleft out: {len(self.missing):,} items, listed with the reasons in "
            line += str(missing_file(self.into))
        return line


def unfinished_folder(into: Path) -> Path:
    """Folder in which an LMDB is built; it is renamed to ``into`` when the build is complete."""
    return into.with_name(f"{into.name}.unfinished")


def missing_file(into: Path) -> Path:
    """Path of the file next to an LMDB that lists the items without an image: item, file, reason."""
    return into.with_name(into.name.removesuffix(".lmdb") + ".missing.csv")


def files_to_read(folder: Path, files: MatchedFiles) -> dict[bytes, ImageSource]:
    """The files of items, without their content; several images of an item are a fault."""
    found = {}
    for name, paths in files.several.items():
        found[name] = ImageSource("; ".join(str(path.relative_to(folder)) for path in paths), fault=SEVERAL)
    for name, path in files.images.items():
        file = str(path.relative_to(folder))
        try:
            state = path.stat()
            found[name] = ImageSource(file, state.st_size, state.st_mtime_ns)
        except OSError:  # a link to nothing; the reason is found when it is read
            found[name] = ImageSource(file)
    return found


def write_missing(path: Path, missing: Mapping[bytes, ImageSource]) -> None:
    """Write a list of items without a usable image as CSV: item, file, reason."""
    with (
        atomic_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item", "file", "reason"])
        for name, source in missing.items():
            writer.writerow([name.decode("utf-8", "replace"), source.file, source.fault])


class Update:
    """An update of an LMDB, or the first build.

    Args:
        into: folder of the LMDB.
        plan: description of the LMDB to build.
        names: names of all items.
        resizing: how images become pixels.
        workers: number of decoding threads.
        skipping: the command that skips items without an image, for the error message; None to skip them.
    """

    def __init__(
        self,
        into: Path,
        plan: Description,
        names: Sequence[bytes],
        resizing: Resizing,
        workers: int,
        skipping: str | None,
    ) -> None:
        self.into = into
        self.skipping = skipping
        self.plan = plan
        self.names = names
        self.resizing = resizing
        self.workers = workers
        self.known: dict[bytes, ImageSource] = {}
        if into.exists():
            ImageDatabase(into).description.require_same_options(plan, into)
            with reading(into):
                self.known = sources_in(opened(into))

    def read(self, folder: Path, files: Mapping[bytes, ImageSource]) -> Updated:
        """Update from a folder of images; ``files`` has the file of each item that has one."""

        def load(name: bytes, known: ImageSource | None) -> Loaded:
            source = files[name]
            if source.fault:
                return source, None
            try:
                data = image_bytes(folder / source.file)
            except BrokenImageError as error:
                return replace(source, fault=str(error)), None
            source = replace(source, content=hashlib.sha256(data).hexdigest())
            if known is not None and known.content == source.content and not known.fault:
                return source, None
            return self._loaded(name, source, data)

        def is_current(name: bytes, known: ImageSource) -> bool:
            file = files[name]
            if known.fault != file.fault:  # it could not be read or decoded, perhaps by an older version
                return False
            return (known.file, known.size, known.changed) == (file.file, file.size, file.changed)

        return self._update([name for name in self.names if name in files], is_current, load)

    def convert(self, images: Mapping[bytes, Callable[[], Image.Image]]) -> Updated:
        """Update from an LMDB of the released scripts; ``images`` are functions that load them."""
        return self._update(
            [name for name in self.names if name in images],
            lambda _, known: True,
            lambda name, _: self._loaded(name, ImageSource(), images[name]),
        )

    def _loaded(self, name: bytes, source: ImageSource, image: bytes | Callable[[], Image.Image]) -> Loaded:
        try:
            pixels = self.resizing.pixels(image if isinstance(image, bytes) else image())
            return source, pack(name, pixels.tobytes())
        except BrokenImageError as error:
            return replace(source, fault=str(error)), None

    def _update(
        self,
        present: list[bytes],
        is_current: Callable[[bytes, ImageSource], bool],
        load: Callable[[bytes, ImageSource | None], Loaded],
    ) -> Updated:
        """Update the items that are ``present``, and remove all others.

        Raises:
            UserError: see :meth:`_report`.
        """
        folder, wanted = unfinished_folder(self.into), set(present)
        if not folder.exists():
            absent = [name for name in self.names if name not in wanted]
            if self.into.exists() and self._is_current(wanted, absent, is_current):
                return self._updated(self.known, ImageDatabase(self.into).description, unchanged=True)
            if self.into.exists():
                with atomic_folder(folder) as aside:
                    opened(self.into).copy(str(aside / DATA_FILE), compact=True)
        with unfinished_lmdb(folder, self.plan, len(self.names)) as environment:
            known = sources_in(environment)
            if known and not self.into.exists():
                print(f"{self.into}: resuming after {len(known):,} images", flush=True)
            gone = known.keys() - wanted
            if gone:
                write(environment, dict.fromkeys(gone), dict.fromkeys(gone))
            todo = [name for name in present if name not in known or not is_current(name, known[name])]
            count = self._write(environment, todo, known, load)
            sources = sources_in(environment)
            missing = self._missing(sources)
            self._report(missing)
            plan = replace(self.plan, images=len(self.names) - len(missing), left_out=tuple(missing))
            description = finish(environment, plan)
        if self.into.exists():
            (folder / DATA_FILE).replace(self.into / DATA_FILE)
            folder.rmdir()
        else:
            folder.rename(self.into)
        done = self._updated(sources, description)
        return replace(done, decoded=count, removed=sum(not known[name].fault for name in gone))

    def _is_current(
        self, wanted: set[bytes], absent: Sequence[bytes], is_current: Callable[[bytes, ImageSource], bool]
    ) -> bool:
        recorded = set(ImageDatabase(self.into).description.left_out)
        return (
            self.known.keys() == wanted
            and all(is_current(name, known) for name, known in self.known.items())
            and recorded == {*absent, *(name for name, known in self.known.items() if known.fault)}
        )

    def _write(
        self,
        environment: lmdb.Environment,
        names: list[bytes],
        known: Mapping[bytes, ImageSource],
        load: Callable[[bytes, ImageSource | None], Loaded],
    ) -> int:
        """Read, decode and resize images in threads (Pillow releases the GIL), and write them to the LMDB.

        Returns:
            The number of images that were decoded.
        """
        length = max(1, _BATCH_BYTES // (3 * self.resizing.size**2))
        batches = [names[first : first + length] for first in range(0, len(names), length)]
        bar = tqdm(desc="images", total=len(names), unit="image", disable=not shows_progress(), leave=False)
        count = 0
        Image.init()  # Pillow imports its plugins lazily, which is not thread-safe
        with warnings.catch_warnings(), bar, ThreadPoolExecutor(self.workers) as pool:
            # Warning filters are global to the process, so they are set here and not in the threads.
            warnings.filterwarnings("ignore", module=r"PIL\.")

            def started(batch: list[bytes]) -> Iterator[Loaded]:
                return pool.map(lambda name: load(name, known.get(name)), batch)

            prepared = started(names[:length])
            for batch, following in pairwise([*batches, []]):
                found = dict(zip(batch, prepared, strict=True))
                prepared = started(following)  # while this batch is written
                values = {
                    name: value
                    for name, (source, value) in found.items()
                    if value is not None or (source.fault and name in known)  # a broken file has replaced it
                }
                write(environment, values, {name: source for name, (source, _) in found.items()})
                count += sum(value is not None for value in values.values())
                bar.update(len(batch))
        return count

    def _missing(self, sources: Mapping[bytes, ImageSource]) -> dict[bytes, ImageSource]:
        none = ImageSource(fault=_NO_IMAGE)
        found = {name: sources.get(name, none) for name in self.names}
        return {name: source for name, source in found.items() if source.fault}

    def _updated(
        self, sources: Mapping[bytes, ImageSource], description: Description, *, unchanged: bool = False
    ) -> Updated:
        missing = self._missing(sources)
        self._report(missing)
        return Updated(self.into, description, len(self.names), missing, unchanged=unchanged)

    def _report(self, missing: Mapping[bytes, ImageSource]) -> None:
        """Write the list of items without an image; if there are none, it is removed.

        Raises:
            UserError: there are some, and they are not to be skipped, or no item has an image.
        """
        path = missing_file(self.into)
        if not missing:
            path.unlink(missing_ok=True)
            return
        write_missing(path, missing)
        first, source = next(iter(missing.items()))
        if self.skipping is not None:
            raise UserError(
                f"{len(missing):,} of {len(self.names):,} items have no usable image, the first is "
                f"{shown(first)}: {source.fault} (full list in {path}). Add or replace these images and run "
                f"the same command again, or skip the items with --missing skip{self.skipping}"
            )
        if len(missing) == len(self.names):
            raise UserError(
                f"{self.into}: none of {len(self.names):,} items has a usable image, the first is "
                f"{shown(first)}: {source.fault} (full list in {path})"
            )
