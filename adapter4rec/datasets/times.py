"""Times as integers: Unix numbers in any unit, and texts in the usual formats."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import numpy as np
import polars as pl

from adapter4rec.datasets.files import polars_errors
from adapter4rec.utils.errors import UserError

_UNITS = ((1e17, 10**9), (1e14, 10**6), (1e11, 10**3))
"""Unix times above a limit have so many steps in a second; seconds reach the last limit in the year 5138."""
_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y"),
    *("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y"),
)
_CLOCKS = ("", " %H:%M:%S%.f", "T%H:%M:%S%.f", " %H:%M", "T%H:%M")
_ZONES = ("", "%#z", " %#z")
_MICROSECONDS = 10**6
_FIRST_YEAR = 1000
_NUMBER = re.compile(r"[+-]?\d+")
_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
"""A date without separators, such as 20200131."""
_COMPACT = {"%Y%m%d": _DATE.pattern, "%Y%m%d%H%M%S": rf"{_DATE.pattern}([01]\d|2[0-3])[0-5]\d[0-5]\d"}
"""Dates and moments without separators."""


def unit_of(times: np.ndarray) -> int:
    """How many steps of these Unix times make a second. A few odd times do not count."""
    some = np.abs(times[:: max(1, len(times) // 100_000)])
    large = float(np.quantile(some, 0.9, method="lower")) if len(some) else 0.0
    return next((unit for limit, unit in _UNITS if large > limit), 1)


def time_column(frame: pl.LazyFrame, column: str, sample: pl.Series, name: str, given: str | None) -> pl.Expr:
    """An expression of type Int64 for a column of times; null where a value is no time.

    Args:
        frame: the table. Its column is read once more where the first values do not settle the format.
        column: the column.
        sample: its first values that are not null.
        name: file and column, for messages.
        given: format of the values (``--time_format``); None to recognise it.

    Raises:
        UserError: the values are no times, or their format is ambiguous.
    """
    values, dtype = pl.col(column), sample.dtype
    if dtype.is_temporal():
        return (values.cast(pl.Datetime("us")) if dtype == pl.Date else values).dt.epoch("us")
    if not dtype.is_numeric() and dtype != pl.String:
        raise UserError(f"{name}: of type {dtype}; expected times")
    text = (values.cast(pl.Int64, strict=False) if dtype.is_float() else values).cast(pl.String)
    text = text.str.strip_chars()
    texts = pl.DataFrame({column: sample}).select(text).to_series()
    texts = texts.filter(texts != "")
    if texts.is_empty():
        raise UserError(f"{name}: has no values")
    if given is not None:
        _require_fit(texts, given, name)
        return _parsed(text, given)
    whole = r"\.0+$"  # a column of integers with gaps is one of floats in pandas
    for form, pattern in _COMPACT.items():
        if _mostly(texts.str.replace(whole, "").str.contains(rf"^{pattern}$")):
            return _parsed(text.str.replace(whole, ""), form)
    if dtype.is_float():
        return _of_numbers(frame, values, None, name)
    return values.cast(pl.Int64, strict=False) if dtype.is_integer() else _of_texts(frame, text, texts, name)


def _of_texts(frame: pl.LazyFrame, text: pl.Expr, texts: pl.Series, name: str) -> pl.Expr:
    if _mostly(texts.cast(pl.Float64, strict=False).is_not_null()):
        return _of_numbers(
            frame, text.cast(pl.Float64, strict=False), text.cast(pl.Int64, strict=False), name
        )
    return _parsed(text, _recognised(frame, text, texts, name))


def _mostly(true: pl.Series) -> bool:
    return 2 * int(true.sum()) > len(true)


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


def _of_numbers(frame: pl.LazyFrame, numbers: pl.Expr, whole: pl.Expr | None, name: str) -> pl.Expr:
    """Seconds as microseconds if any has a fraction; otherwise as they are, if possible from ``whole``."""
    numbers = pl.when(numbers.is_finite()).then(numbers)
    with polars_errors(name):
        if frame.select((numbers != numbers.floor()).any()).collect(engine="streaming").item():
            return (numbers * _MICROSECONDS).round().cast(pl.Int64, strict=False)
    rounded = numbers.cast(pl.Int64, strict=False)
    return rounded if whole is None else pl.coalesce(whole, rounded)


def _parsed(column: pl.Expr, form: str) -> pl.Expr:
    if not re.search(r"%(H|I|T|R|X|c|s)", form):
        column, form = column + " 00:00", f"{form} %H:%M"
    kind = pl.Datetime("us", "UTC") if "z" in form else pl.Datetime("us")
    parsed = column.str.to_datetime(form, time_unit="us", strict=False).cast(kind)
    return pl.when(parsed.dt.year() >= _FIRST_YEAR).then(parsed).dt.epoch("us")  # %Y takes 20 for a year


def _recognised(frame: pl.LazyFrame, text: pl.Expr, sample: pl.Series, name: str) -> str:
    """The known format of most values; where several fit, the one that fits most values of the table."""
    forms = [
        f"{day}{clock}{zone}" for day in _DATES for clock in _CLOCKS for zone in _ZONES if clock or not zone
    ]
    values = pl.DataFrame({"time": sample})
    fitting = [
        form
        for form in forms
        if _mostly(values.select(_parsed(pl.col("time"), form).is_not_null()).to_series())
    ]
    if not fitting:
        raise UserError(f"{name}: {sample[0]!r} is not a time in a known format; set --time_format")
    if len(fitting) > 1:
        fitting = _fitting_best(frame, text, fitting, name)
    if len(fitting) > 1:
        raise UserError(f"{name}: {sample[0]!r} may be {' or '.join(fitting)}; choose one with --time_format")
    return fitting[0]


def _fitting_best(frame: pl.LazyFrame, text: pl.Expr, forms: list[str], name: str) -> list[str]:
    """The formats that fit the most values of a table; one of those that mean the same times."""
    parsed = frame.select(**{form: _parsed(text, form) for form in forms})
    with polars_errors(name):
        count = parsed.count().collect(engine="streaming").row(0, named=True)
        best = [form for form in forms if count[form] == max(count.values())]
        differ = [(pl.col(best[0]) != pl.col(form)).any().alias(form) for form in best[1:]]
        differs = parsed.select(differ).collect(engine="streaming").row(0, named=True) if differ else {}
    return [best[0], *(form for form, other in differs.items() if other)]


def moment(text: str, option: str) -> float:
    """Unix seconds of ``--since`` and ``--until``: a number, a date, or date and time; UTC without a zone.

    Raises:
        UserError: none of these.
    """
    if _DATE.fullmatch(text):
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UserError(f"--{option} {text}: expected a date such as 2020-01-31, or Unix seconds") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
