"""Command-line parsing: ``--name value`` options generated from settings classes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import FolderName, Option, Settings, Values, as_argument, require_known

S = TypeVar("S", bound=Settings)

Swept = dict[str, list[Any]]
"""Values of each option in a sweep; options that are not swept have a single value."""

_METAVARS = {int: "N", float: "X", bool: "true|false", Path: "PATH", FolderName: "NAME|PATH"}


def settings_from_command_line(cls: type[S], arguments: Sequence[str]) -> S:
    """Parse the settings of one run. Relative paths are resolved against the current folder.

    Args:
        cls: settings class.
        arguments: command-line arguments, ``--name value``.

    Raises:
        UserError: unknown option, missing or invalid value, or several values for one option.
    """
    known = options_for(cls, arguments, {})
    return cls.from_values(single_values(parse_command_line(arguments, known, cls.__doc__ or "")))


def options_for(
    cls: type[Settings], arguments: Sequence[str], inline: Mapping[str, Any]
) -> dict[str, Option]:
    """Options of a settings class for the methods in ``--method``, or else in the inline settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--method", nargs="*")
    methods = parser.parse_known_args(arguments)[0].method or inline.get("method")
    options: dict[str, Option] = {}
    for method in methods if isinstance(methods, list) else [methods]:
        options |= cls.options({} if method is None else {"method": method})
    return options


def parse_command_line(
    arguments: Sequence[str],
    known: Mapping[str, Option],
    description: str,
    defaults: Mapping[str, Any] | None = None,
) -> Swept:
    """Parse ``--name value …`` arguments; values are not validated.

    Relative paths are resolved against the current folder.

    Args:
        arguments: command-line arguments.
        known: options by name.
        description: first paragraph of ``--help``.
        defaults: values that ``--help`` shows in place of the options' own defaults.

    Raises:
        UserError: unknown option, positional argument, or option without a value.
    """
    usage = "%(prog)s [--name value ...]"
    parser = argparse.ArgumentParser(
        usage=usage, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    groups: dict[str, Any] = {}
    for name, option in known.items():
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        shown = (defaults or {}).get(name, option.default)
        groups[option.group].add_argument(
            f"--{name}",
            nargs="*",
            dest=name,
            metavar=_METAVARS.get(option.kind, "NAME"),
            help=_help(option, shown),
        )
    found, rest = parser.parse_known_args([_underscored(word) for word in arguments])
    if rest:
        if rest[0].startswith("--"):
            require_known({rest[0][2:].split("=")[0]: None}, known)
        raise UserError(f"unexpected argument {rest[0]!r}; options are given as --name value")
    given: Swept = vars(found)
    for name, values in given.items():
        if not values and known[name].kind is not bool:
            raise UserError(f"--{name}: expected a value: {known[name].help}")
    here = Path.cwd()
    return {
        name: [known[name].anchored(value, here) for value in values or [True]]
        for name, values in given.items()
    }


def _underscored(word: str) -> str:
    """Accept ``--batch-size`` for ``--batch_size``."""
    if not word.startswith("--"):
        return word
    name, *value = word[2:].split("=", 1)
    return "--" + "=".join([name.replace("-", "_"), *value])


def from_script(values: Mapping[str, Any], known: Mapping[str, Option]) -> Values:
    """Settings of a script, with relative paths resolved against the repository.

    Raises:
        UserError: unknown option.
    """
    require_known(values, known)
    return {name: known[name].anchored(value, REPOSITORY) for name, value in values.items()}


def single_values(given: Swept) -> Values:
    """The values of options that cannot be swept.

    Raises:
        UserError: several values for one option.
    """
    for name, values in given.items():
        if len(values) > 1:
            words = " ".join(map(str, values))
            raise UserError(f"--{name} {words}: expected a single value (cannot be swept)")
    return {name: value for name, (value,) in given.items()}


def _help(option: Option, default: Any) -> str:
    choices = option.limits["choices"]
    listed = f"; one of {', '.join(choices)}" if choices else ""
    if option.several:
        listed += f"; separated by {'spaces' if option.kind is Path else 'commas'}"
    values = default if isinstance(default, list) else [default]
    shown = "" if default in (None, ()) else f" (default {' '.join(map(as_argument, values))})"
    if default is MISSING:
        shown = " (required)"
    return f"{option.help}{listed}{shown}".replace("%", "%%")
