"""The folder that holds a generated sample: kept, made anew, or left alone where it is something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adapter4rec.datasets.sample.behaviour import SampleSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import file_hash, write_json

DESCRIPTION = "sample.json"


class Outcome(Enum):
    """What became of a call to make a sample."""

    MADE = "made"
    MADE_ANEW = "made anew, in place of an older sample"
    KEPT = "there already, nothing done"


@dataclass(frozen=True)
class Recipe:
    """One sort of sample and how it is written."""

    generator: str
    """The name by which the description tells this sort of sample."""
    version: int
    notice: str
    parts: tuple[str, ...]
    """The files, and folders of files, that the sample consists of."""
    write: Callable[[SampleSettings, Path], None]
    """Writes all parts into an empty folder; their contents depend on the settings alone."""


def part_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder, in the order of the names."""
    if not path.is_dir():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        digest.update(f"{file.name}\n{part_hash(file)}\n".encode())
    return digest.hexdigest()


def _describes(description: object, generator: str) -> bool:
    return (
        isinstance(description, dict)
        and description.get("generator") == generator
        and isinstance(description.get("sha256"), dict)
    )


def _description_found(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """What a sample in ``folder`` says of itself, None if nothing is there.

    Raises ``UserError`` where anything but an untouched sample of this sort is. A sample's missing part is no
    objection: a sample that was interrupted lacks some.
    """
    foreign = UserError(
        f"{folder} holds something other than an untouched sample, and that is left alone; "
        "choose another folder with --into, or move away what is there"
    )
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if folder.exists() and any(
            entry.name != "README.md" and not entry.name.startswith(".") for entry in folder.iterdir()
        ):
            raise foreign from None
        return None
    except (ValueError, NotADirectoryError):
        raise foreign from None
    if not _describes(found, recipe.generator):
        raise foreign
    there = [name for name in recipe.parts if (folder / name).exists()]
    if any(part_hash(folder / name) != found["sha256"].get(name) for name in there):
        raise foreign
    return found


def keep_or_make(folder: Path, recipe: Recipe, settings: SampleSettings) -> Outcome:
    """Make the sample in ``folder``, unless it is there already; an older untouched sample is replaced.

    Raises ``UserError`` where the folder holds anything else.
    """
    found = _description_found(folder, recipe)
    wanted = {
        "notice": recipe.notice,
        "generator": recipe.generator,
        "version": recipe.version,
        "settings": asdict(settings),
    }
    complete = all((folder / name).exists() for name in recipe.parts)
    if found and complete and found == wanted | {"sha256": found["sha256"]}:
        return Outcome.KEPT
    folder.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(dir=folder, prefix=".new.") as new,
        TemporaryDirectory(dir=folder, prefix=".old.") as old,
    ):
        recipe.write(settings, Path(new))
        hashes = {name: part_hash(Path(new) / name) for name in recipe.parts}
        # Parts come and go whole, and the description between the old and the new ones: wherever this is
        # interrupted, what is left is recognised and made anew.
        for name in recipe.parts:
            if (folder / name).exists():
                _move(folder / name, Path(old) / name)
        write_json(folder / DESCRIPTION, wanted | {"sha256": hashes})
        for name in recipe.parts:
            _move(Path(new) / name, folder / name)
    return Outcome.MADE_ANEW if found else Outcome.MADE


def _move(part: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    part.replace(to)
