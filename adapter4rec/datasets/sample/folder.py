"""Output folder of a sample: created, kept, or replaced; folders with other content are not touched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from adapter4rec.datasets.sample.behaviour import SampleSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import file_hash, write_json
from adapter4rec.utils.records import Object, read_record

DESCRIPTION = "sample.json"
NOTICE = "Generated to try things out: users, items and clicks are made up, not real data."
LISTS = ("source/users.tsv", "source/items.tsv", "target/users.tsv", "target/items.tsv")


@dataclass(frozen=True)
class Recipe:
    """A kind of sample.

    Attributes:
        generator: identifies this kind in the description of a sample.
        version: of the generator; samples of other versions are replaced.
        folder: default output folder.
        items: default number of items in each domain.
        least_items: minimum number of items.
        parts: files and folders of the sample.
        write: writes all parts to a folder; the contents depend only on the settings.
    """

    generator: str
    version: int
    folder: Path
    items: int
    least_items: int
    parts: tuple[str, ...]
    write: Callable[[SampleSettings, Path], None]


@dataclass(frozen=True)
class _Sample:
    """Content of ``sample.json``."""

    notice: str
    generator: str
    version: int
    settings: Object
    sha256: dict[str, str]


def part_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder, sorted by name."""
    if not path.is_dir():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name}\n{part_hash(file)}\n".encode())
    return digest.hexdigest()


def _description(folder: Path, recipe: Recipe) -> _Sample | None:
    """Description of the sample in ``folder``; None if the folder is missing or empty.

    Missing parts are accepted: an interrupted generation leaves some out.

    Raises:
        UserError: the folder contains anything but an unmodified sample of this kind.
    """
    foreign = UserError(
        f"{folder}: the folder contains other files or a modified sample; choose another folder with --into, "
        "or move these files"
    )
    if not (folder / DESCRIPTION).exists():
        others = {entry.name for entry in folder.iterdir()} - {"README.md"} if folder.is_dir() else set()
        if folder.is_file() or not all(name.startswith(".") for name in others):
            raise foreign
        return None
    try:
        found = read_record(folder / DESCRIPTION, _Sample)
    except UserError:
        raise foreign from None
    there = {name: part_hash(folder / name) for name in recipe.parts if (folder / name).exists()}
    if found.generator != recipe.generator or not there.items() <= found.sha256.items():
        raise foreign
    return found


def keep_or_make(folder: Path, recipe: Recipe, settings: SampleSettings) -> bool:
    """Generate the sample in ``folder`` unless it is up to date. An older, unmodified sample is replaced.

    Returns:
        Whether the sample was generated.

    Raises:
        UserError: too few items, or the folder has other content.
    """
    if settings.items < recipe.least_items:
        raise UserError(f"--items {settings.items}: must be at least {recipe.least_items}")
    found = _description(folder, recipe)
    wanted = {"notice": NOTICE, "generator": recipe.generator, "version": recipe.version}
    wanted |= {"settings": settings.plain()}
    complete = all((folder / name).exists() for name in recipe.parts)
    if complete and found is not None and asdict(found) == wanted | {"sha256": found.sha256}:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".new.") as temporary:
        new, old = Path(temporary, "new"), Path(temporary, "old")
        recipe.write(settings, new)
        hashes = {name: part_hash(new / name) for name in recipe.parts}
        # Old parts are moved out, then the description is replaced, then new parts are moved in. After an
        # interruption at any point, the folder is recognised as an incomplete sample and generated again.
        for name in recipe.parts:
            if (folder / name).exists():
                _move(folder / name, old / name)
        write_json(folder / DESCRIPTION, wanted | {"sha256": hashes})
        for name in recipe.parts:
            _move(new / name, folder / name)
    return True


def _move(part: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    part.replace(to)
