"""Times as integers: Unix numbers in any unit, and texts in the usual formats."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import numpy as np
import polars as pl

from adapter4rec.utils.errors import UserError

_UNITS = ((1e17, 10**9), (1e14, 10**6), (1e11, 10**3))
"""Unix times above a limit have so many steps in a second; seconds reach the last limit in the year 5138."""
_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y"),
    *("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
)
_CLOCKS = ("", " %H:%M:%S", "T%H:%M:%S", " %H:%M", "T%H:%M", " %H:%M:%S%.f", "T%H:%M:%S%.f")
_ZONES = ("", "%#z", " %#z")
_MICROSECONDS = 10**6
_NUMBER = re.compile(r"[+-]?\d+")


def unit_of(times: np.ndarray) -> int:
    """How many steps of these Unix times make a second."""
    largest = float(np.abs(times).max()) if len(times) else 0.0
    return next((unit for limit, unit in _UNITS if largest > limit), 1)


def time_column(
    column: pl.Expr, dtype: pl.DataType, sample: pl.Series, name: str, given: str | None
) -> pl.Expr:
    """An expression of type Int64 for a column of times; null where a value is no time.

    Args:
        column: the column.
        dtype: its type.
        sample: its first values that are not null.
        name: file and column, for messages.
        given: format of the texts (``--time_format``); None to recognise it.

    Raises:
        UserError: the values are no times, or their format is ambiguous.
    """
    if dtype.is_temporal():
        return (column.cast(pl.Datetime("us")) if dtype == pl.Date else column).dt.epoch("us")
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    if dtype.is_float():
        return _of_fractions(column, sample)
    if dtype != pl.String:
        raise UserError(f"{name}: of type {dtype}; expected times")
    column, sample = column.str.strip_chars(), sample.str.strip_chars()
    sample = sample.filter(sample != "")
    if given is None and not _is_date(sample):
        if sample.cast(pl.Int64, strict=False).null_count() == 0:
            return column.cast(pl.Int64, strict=False)
        if (numbers := sample.cast(pl.Float64, strict=False)).null_count() == 0:
            return _of_fractions(column.cast(pl.Float64, strict=False), numbers)
    if given is not None:
        _require_fit(sample, given, name)
    return _parsed(column, given or _recognised(sample, name))


def _require_fit(sample: pl.Series, form: str, name: str) -> None:
    """Refuse a format that most values do not have."""
    wrong = sample.filter(
        pl.DataFrame({"time": sample}).select(_parsed(pl.col("time"), form)).to_series().is_null()
    )
    if 2 * len(wrong) > len(sample):
        raise UserError(
            f"{name}: {wrong[0]!r} does not have the format {form} (--time_format), as {len(wrong):,} of the "
            f"first {len(sample):,} values; a format is such as %d.%m.%Y %H:%M"
        )


def _of_fractions(column: pl.Expr, sample: pl.Series) -> pl.Expr:
    """Seconds with fractions as microseconds; whole numbers as they are."""
    fractions = bool((sample != sample.floor()).any())
    column = pl.when(column.is_finite()).then(column)
    return (column * (_MICROSECONDS if fractions else 1)).round().cast(pl.Int64, strict=False)


def _is_date(sample: pl.Series) -> bool:
    """Whether all values are dates without separators, such as 20200131."""
    return len(sample) > 0 and bool(sample.str.contains(r"^(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])$").all())


def _parsed(column: pl.Expr, form: str) -> pl.Expr:
    if not re.search(r"%(H|I|T|R|X|c|s)", form):
        column, form = column + " 00:00", f"{form} %H:%M"
    kind = pl.Datetime("us", "UTC") if "z" in form else pl.Datetime("us")
    return column.str.to_datetime(form, time_unit="us", strict=False).cast(kind).dt.epoch("us")


def _recognised(sample: pl.Series, name: str) -> str:
    forms = [
        f"{day}{clock}{zone}" for day in _DATES for clock in _CLOCKS for zone in _ZONES if clock or not zone
    ]
    fitting: dict[tuple[int, ...], str] = {}
    for form in forms if len(sample) else ():
        parsed = pl.DataFrame({"time": sample}).select(_parsed(pl.col("time"), form)).to_series()
        if parsed.null_count() == 0:
            fitting.setdefault(tuple(parsed), form)
    if not fitting:
        shown = repr(sample[0]) if len(sample) else "nothing"
        raise UserError(f"{name}: {shown} is not a time in a known format; set --time_format")
    if len(fitting) > 1:
        raise UserError(
            f"{name}: {sample[0]!r} may be {' or '.join(fitting.values())}; choose one with --time_format"
        )
    return next(iter(fitting.values()))


def moment(text: str, option: str) -> float:
    """Unix seconds of ``--since`` and ``--until``: a number, a date, or date and time; UTC without a zone.

    Raises:
        UserError: none of these.
    """
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UserError(f"--{option} {text}: expected a date such as 2020-01-31, or Unix seconds") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
