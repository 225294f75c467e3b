"""Formatting of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def fixed(places: int, sign: str = "") -> Callable[[float], str]:
    """A formatter: a number of decimal places, thousands separators and a typographic minus sign.

    Args:
        places: decimal places.
        sign: ``+`` to show the sign of positive numbers. Zero has none.
    """

    def text(value: float) -> str:
        shown = sign if round(value, places) else ""
        return f"{round(value, places) + 0.0:{shown},.{places}f}".replace("-", "−")

    return text


def seconds(value: float) -> str:
    """Seconds with about three significant digits."""
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def p_value(value: float) -> str:
    """A p-value with three decimal places."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def plural(number: int, one: str, several: str = "") -> str:
    """A number with its noun: ``1 run``, ``2 runs``."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def span(values: Iterable[float]) -> str:
    """The range of some numbers: ``5``, or ``5 to 9``."""
    least, most = min(values := list(values)), max(values)
    return f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"
