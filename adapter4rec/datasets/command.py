"""Command line of the preparation: ``python -m Dataset.prepare NAME``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adapter4rec.datasets.fetching import FAILURES
from adapter4rec.datasets.options import (
    CHECK,
    PREPARE,
    OutputSettings,
    PrepareSettings,
    RawFolderSettings,
    TableSettings,
)
from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.command_line import parse_command_line
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import files_under
from adapter4rec.utils.settings import Option, Settings, options_of

TABLE = "table"
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class _TableOptions(PrepareSettings, OutputSettings, TableSettings):
    """A table of clicks, and one of items."""


@dataclass(frozen=True, kw_only=True)
class _SourceOptions(PrepareSettings, OutputSettings, RawFolderSettings):
    """A public data set."""


@dataclass(frozen=True, kw_only=True)
class _AllOptions(PrepareSettings, OutputSettings, TableSettings, RawFolderSettings):
    """Any of them."""


def prepare(arguments: Sequence[str] | None = None) -> None:
    """Prepare the data set that the command line names, and print its card.

    Raises:
        UserError: unknown name or option, or the data cannot be prepared.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        parse_command_line(["--help"], _known(_AllOptions), _about())
    name, *rest = words
    if name != TABLE and name not in SOURCES:
        raise UserError(f"{name}: unknown data set; {nearest(name, [TABLE, *SOURCES])}")
    kind = _TableOptions if name == TABLE else _SourceOptions
    about = "Prepare any table." if name == TABLE else f"Prepare {name}: {_about_source(name)}"
    known = _known(kind)
    values = _values(parse_command_line(rest, known, about), known)
    settings = kind.from_values(values)
    _prepare(name, settings, f"{PREPARE} {shlex.join(_without_output(words))}")


def _about_source(name: str) -> str:
    one = SOURCES[name]
    return f"{one.about}. Published at {one.published}; licence: {one.licence}. --raw holds {one.files}."


def _about() -> str:
    sets = "; ".join(f"{name}: {source.about}" for name, source in sorted(SOURCES.items()))
    return (
        f"{PREPARE} NAME --raw FOLDER --into FOLDER, or {PREPARE} table "
        f"--interactions FILES --into FOLDER. Names: {sets or 'table'}"
    )


def _known(kind: type[Settings]) -> dict[str, Option]:
    """Options by the names of the command line: ``--from`` cannot be the name of a field."""
    options = options_of(kind)
    since = replace(options["since"], name="from")
    return {
        since.name if name == "since" else name: since if name == "since" else one
        for name, one in options.items()
    }


def _values(given: Mapping[str, list[Any]], known: Mapping[str, Option]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, words in given.items():
        if known[name].several and known[name].kind is Path:
            values[name] = words
        elif len(words) > 1:
            raise UserError(f"--{name} {' '.join(map(str, words))}: expected a single value")
        else:
            values["since" if name == "from" else name] = words[0]
    return values


def _without_output(words: list[str]) -> list[str]:
    """The command without ``--into FOLDER``, so that equal data have equal cards in every folder."""
    kept: list[str] = []
    skip = False
    for word in words:
        if word == "--into" or skip:
            skip = word == "--into"
        elif not word.startswith("--into="):
            kept.append(word)
    return kept


def _prepare(name: str, settings: _TableOptions | _SourceOptions, command: str) -> None:
    # Polars takes a moment to import, and --help does not need it.
    from adapter4rec.datasets.card import described
    from adapter4rec.datasets.preparing import prepare_domain, require_free
    from adapter4rec.datasets.table import read_table, shown_files

    log: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    into = settings.into
    require_free(into)
    into.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{into.name}.", dir=into.parent) as scratch:
        if isinstance(settings, _TableOptions):
            raw = read_table(settings, Path(scratch))
            labels = (shown_files(settings.interactions), shown_files(settings.items or ()))
            files = [(path, path.name) for path in (*settings.interactions, *(settings.items or ()))]
        else:
            if not settings.raw.is_dir():
                source = SOURCES[name]
                raise UserError(
                    f"--raw {settings.raw}: no such folder; expected {source.files}, from {source.published}"
                )
            raw = SOURCES[name].read(settings.raw)
            labels = (f"clicks in {settings.raw}", f"items in {settings.raw}")
            files = [(path, path.relative_to(settings.raw).as_posix()) for path in _data_files(settings.raw)]
        inputs = [described(path, shown) for path, shown in files]
        card = prepare_domain(
            raw, settings, into, name=name, inputs=inputs, command=command, labels=labels, log=log
        )
    print(card.markdown())
    print(f"{into}: prepared; {CHECK} {shlex.quote(str(into))} says what is odd in it")


def _data_files(folder: Path) -> list[Path]:
    """Files of a raw download, without images."""
    return [
        path for path in files_under(folder) if path.suffix.lower() not in _IMAGES and path.name != FAILURES
    ]
