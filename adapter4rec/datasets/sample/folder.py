"""Output folder of a sample: created, kept, or replaced; folders with other content are not touched."""

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
    """Outcome of generating a sample."""

    MADE = "sample generated"
    MADE_ANEW = "sample generated, replacing an older one"
    KEPT = "up to date, nothing to do"


@dataclass(frozen=True)
class Recipe:
    """A kind of sample."""

    generator: str
    """Identifies this kind of sample in its description."""
    version: int
    notice: str
    parts: tuple[str, ...]
    """Files and folders of the sample."""
    write: Callable[[SampleSettings, Path], None]
    """Writes all parts to an empty folder; the contents depend only on the settings."""


def part_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder, sorted by name."""
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
    """Description of the sample in ``folder``, or None if the folder is missing or empty.

    Missing parts are accepted: an interrupted generation leaves some out.

    Raises:
        UserError: the folder contains anything but an unmodified sample of this kind.
    """
    foreign = UserError(
        f"{folder}: the folder contains other files or a modified sample; choose another folder with --into, "
        "or move these files"
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
    """Generate the sample in ``folder`` unless it is up to date. An older, unmodified sample is replaced.

    Raises:
        UserError: the folder has other content.
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
        # Old parts are moved out, then the description is replaced, then new parts are moved in. After an
        # interruption at any point, the folder is recognised as an incomplete sample and generated again.
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
