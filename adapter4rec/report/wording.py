"""Formatting of numbers. A row of a table has its value in ``mean``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd


def number(value: float, places: int, sign: str = "") -> str:
    """A number with thousands separators and a typographic minus sign.

    Args:
        value: the number.
        places: decimal places.
        sign: ``+`` to show the sign of positive numbers. Zero has none.
    """
    rounded = round(value, places)
    return f"{rounded + 0.0:{sign if rounded else ''},.{places}f}".replace("-", "−")


def fixed(places: int, sign: str = "") -> Callable[[pd.Series[Any]], str]:
    """A formatter of a row by :func:`number`."""
    return lambda row: number(row["mean"], places, sign)


def seconds(row: pd.Series[Any]) -> str:
    """Seconds with about three significant digits."""
    value = row["mean"]
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def p_value(row: pd.Series[Any]) -> str:
    """A p-value with three decimal places."""
    return "<0.001" if row["mean"] < 0.001 else f"{row['mean']:.3f}"


def span(values: Iterable[float]) -> str:
    """The range of some numbers: ``5``, or ``5 to 9``."""
    least, most = min(values := list(values)), max(values)
    return f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"
