"""Settings: typed, validated dataclasses, filled by launchers and overridden on the command line.

An option is declared once, as a field with a type, a default and a help line. Command-line parsing,
validation, run folders and checkpoints are derived from the fields.
"""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from adapter4rec.utils.errors import UserError, nearest

S = TypeVar("S", bound="Settings")
Values = dict[str, Any]

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""Precisions of training (see precision.py)."""


class FolderName(str):
    """Either a name that is looked up in a default folder, or the path of a Hugging Face folder."""

    @staticmethod
    def is_folder(path: Path) -> bool:
        """Whether a path is a Hugging Face folder. Another folder of the same name does not hide one."""
        return (path / "config.json").is_file()


_EXPECTED = {int: "an integer", float: "a number", bool: "true or false", Path: "a path"}
"""What the kinds of options expect that do not accept every word."""
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def option(
    default: Any = MISSING,
    help: str = "",  # noqa: A002
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    choices: Collection[str] | None = None,
    runtime: bool = False,
) -> Any:
    """A settings field.

    Args:
        default: default value; without one the option is required.
        help: help line for ``--help``.
        least: minimum (inclusive).
        most: maximum (inclusive).
        above: minimum (exclusive).
        choices: allowed values. A registry may be passed; names registered later are included.
        runtime: a run may be resumed with another value. For options that do not affect the result, and for
            paths whose content is compared instead.
    """
    limits = {"least": least, "most": most, "above": above, "choices": choices}
    return field(default=default, metadata={"help": help, "limits": limits, "runtime": runtime})


@dataclass(frozen=True)
class Option:
    """A settings field as a command-line option.

    Attributes:
        name: name of the field; the option is ``--name``.
        kind: type of the value; type of each element if ``several``.
        optional: whether ``none`` is allowed.
        several: whether the value is a tuple (``title,abstract``).
        default: default value, or ``MISSING``.
        group: heading in ``--help``.
        help: help line.
        limits: ``least``, ``most``, ``above``, ``choices``.
        runtime: whether a run may be resumed with another value.
    """

    name: str
    kind: type
    optional: bool
    several: bool
    default: Any
    group: str
    help: str
    limits: Mapping[str, Any]
    runtime: bool

    def value_of(self, raw: Any) -> Any:
        """Convert a string or a value from a launcher to the option's type and validate it.

        Raises:
            UserError: invalid value.
        """
        if self.optional and (raw is None or (isinstance(raw, str) and raw.lower() in ("none", ""))):
            return None
        if not self.several:
            return self._checked(self._one(raw))
        parts = raw.split(",") if isinstance(raw, str) else raw
        if not isinstance(parts, list | tuple):
            raise UserError(f"--{self.name} {raw}: expected a list")
        values = tuple(self._checked(self._one(part)) for part in parts)
        if not values:
            raise UserError(f"--{self.name}: expected at least one value: {self.help}")
        if len(set(values)) < len(values):
            raise UserError(f"--{self.name} {','.join(map(str, values))}: duplicate value")
        return values

    def anchored(self, raw: Any, base: Path) -> Any:
        """Make a relative path, or a list of them, absolute, resolved against ``base``."""
        if isinstance(raw, list):
            return [self.anchored(one, base) for one in raw]
        if raw is None or (isinstance(raw, str) and raw.lower() in ("none", "")):
            return raw
        if self.kind is Path or (self.kind is FolderName and FolderName.is_folder(base / str(raw))):
            return os.path.normpath((base / str(raw)).absolute())
        return raw

    def _one(self, raw: Any) -> Any:
        try:
            if not isinstance(raw, str | int | float | Path):
                raise TypeError
            if self.kind is bool:
                return raw if isinstance(raw, bool) else _TRUTH[str(raw).lower()]
            if self.kind in (int, float) and isinstance(raw, bool):
                raise ValueError
            if self.kind is int and isinstance(raw, float) and not raw.is_integer():
                raise ValueError
            if self.kind is Path and b"\0" in os.fsencode(str(raw)):  # raises ValueError if it is no path
                raise ValueError
            return self.kind(raw)
        except (ValueError, TypeError, KeyError):
            raise UserError(f"--{self.name} {raw}: expected {_EXPECTED.get(self.kind, 'text')}") from None

    def _checked(self, value: Any) -> Any:
        least, most, above, choices = (self.limits[key] for key in ("least", "most", "above", "choices"))
        if least is not None and not value >= least:
            raise UserError(f"--{self.name} {value}: must be at least {least}")
        if most is not None and not value <= most:
            raise UserError(f"--{self.name} {value}: must be at most {most}")
        if above is not None and not value > above:
            raise UserError(f"--{self.name} {value}: must be greater than {above}")
        if choices is not None and value not in choices:
            raise UserError(f"--{self.name} {value}: {nearest(str(value), list(choices))}")
        return value


def options_of(cls: type) -> dict[str, Option]:
    """Options declared with :func:`option` in a settings class, by name, in order of declaration."""
    hints = typing.get_type_hints(cls)
    return {
        one.name: Option(
            one.name, *_kind(hints[one.name]), one.default, _group(cls, one.name), **one.metadata
        )
        for one in fields(cls)
        if "help" in one.metadata
    }


def _group(cls: type, name: str) -> str:
    """First docstring line of the class that declares a field."""
    owner = next(base for base in reversed(cls.__mro__) if name in inspect.get_annotations(base))
    return (owner.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _kind(hint: Any) -> tuple[type, bool, bool]:
    """Kind, optional and several of ``kind`` or ``tuple[kind, ...]``, each also with ``| None``."""
    kind, *further = typing.get_args(hint) or (hint,)
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0], True, True
    return kind, type(None) in further, typing.get_origin(hint) is tuple


@dataclass(frozen=True)
class Settings:
    """Base of settings dataclasses."""

    def __post_init__(self) -> None:
        for name, one in options_of(type(self)).items():
            object.__setattr__(self, name, one.value_of(getattr(self, name)))

    def plain(self, *, runtime: bool = True) -> Values:
        """JSON-serialisable values by name.

        Args:
            runtime: whether to include runtime options.
        """
        return {
            name: plain_value(getattr(self, name))
            for name, one in options_of(type(self)).items()
            if runtime or not one.runtime
        }

    @classmethod
    def options(cls, values: Mapping[str, Any]) -> dict[str, Option]:
        """Options of the command line. Subclasses may add options that depend on ``values``."""
        del values
        return options_of(cls)

    @classmethod
    def from_values(cls: type[S], values: Mapping[str, Any]) -> S:
        """Create settings from values by name (strings from the command line, or typed values).

        Raises:
            UserError: unknown option, missing or invalid value.
        """
        known = cls.options(values)
        require_known(values, known)
        for name, one in known.items():
            if one.default is MISSING and name not in values:
                raise UserError(f"--{name} is required: {one.help}")
        return cls._build(dict(values))

    @classmethod
    def _build(cls: type[S], values: Values) -> S:
        return cls(**values)


def require_known(names: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Check option names.

    Raises:
        UserError: unknown option; the message suggests the closest known one.
    """
    for name in names:
        if name not in known:
            raise UserError(f"unknown option --{name}; {nearest(name, list(known))}")


def plain_value(value: Any) -> Any:
    """A JSON-serialisable form of a value; :meth:`Option.value_of` converts it back."""
    if isinstance(value, Path):
        return str(value)
    return [plain_value(part) for part in value] if isinstance(value, tuple) else value


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """Settings as command-line arguments, ``--name value``."""
    return [part for name, value in values.items() for part in (f"--{name}", as_argument(value))]


def as_argument(value: Any) -> str:
    """A value as a command-line argument."""
    value = plain_value(value)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(str(part) for part in value) if isinstance(value, list) else str(value)
