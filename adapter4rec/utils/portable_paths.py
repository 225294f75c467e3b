"""Paths in files of a run, which may be moved together with what they name.

A path in the repository is recorded relative to the repository, any other relative to the run folder. The
latter begins with ``./``. Which file is the right one is decided by its content, not by its path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import FolderName, Option, Settings, Values

_OF_FOLDER = "./"
"""Begins no path in the repository, as these are normalised."""


def relative_paths(settings: Settings, folder: Path) -> Values:
    """The values of settings (see :meth:`Settings.plain`) with relative paths.

    Args:
        settings: settings of a run.
        folder: its folder.
    """
    plain = settings.plain()
    for name, one in type(settings).options({"method": plain.get("method")}).items():
        value = plain[name]
        if value is not None and (one.kind is Path or (one.kind is FolderName and Path(value).is_absolute())):
            plain[name] = _relative(Path(os.path.normpath(Path(value).absolute())), folder.absolute())
    return plain


def _relative(path: Path, folder: Path) -> str:
    if path.is_relative_to(REPOSITORY):
        return str(path.relative_to(REPOSITORY))
    try:
        return _OF_FOLDER + os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows
        return str(path)


def found_paths(values: Values, known: Mapping[str, Option], folders: Sequence[Path]) -> Values:
    """Values with the paths of the files that exist now.

    Args:
        values: recorded values by name.
        known: options by name.
        folders: folders to which a path that is not in the repository may be relative, the best first: where
            the run folder is now, and where it was.
    """
    found = dict(values)
    for name, value in values.items():
        kind = known[name].kind
        if isinstance(value, str) and value.startswith(_OF_FOLDER) and kind in (Path, FolderName):
            found[name] = _first_existing(value, folders)
        elif isinstance(value, str) and kind is Path:
            found[name] = str(REPOSITORY / value)
    return found


def _first_existing(value: str, folders: Sequence[Path]) -> str:
    places = [os.path.normpath(folder / value) for folder in folders]
    return next((place for place in places if Path(place).exists()), places[-1])
