"""Formatting of values."""

from __future__ import annotations

from adapter4rec.report.results import Statistic

_LEAST_P = 0.001


def per_cent(value: float) -> str:
    """A percentage with two decimal places."""
    return signed_zero(f"{value:.2f}")


def difference(value: float, places: int = 2) -> str:
    """A difference with its sign; zero has none."""
    text = f"{value:+.{places}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def signed_zero(text: str) -> str:
    """A formatted number with a typographic minus sign; zero has no sign."""
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def with_deviation(found: Statistic) -> str:
    """Mean and, if there are several seeds, standard deviation."""
    mean = per_cent(found.mean)
    return mean if found.deviation is None else f"{mean} ± {found.deviation:.2f}"


def count(value: float) -> str:
    """An integer with thousands separators."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """Seconds with about three significant digits."""
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def p_value(value: float) -> str:
    """A p-value with three decimal places."""
    return f"<{_LEAST_P}" if value < _LEAST_P else f"{value:.3f}"


def plural(number: int, one: str, several: str = "") -> str:
    """A number with its noun: ``1 run``, ``2 runs``."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"
