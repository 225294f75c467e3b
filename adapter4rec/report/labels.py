"""Labels of points in scatter plots that overlap neither points, error bars nor each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapter4rec.report.styles import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

_SIZE = 8
_HALF_POINT, _HALF_BAR = 5, 2
"""Half the width reserved for a point and for its error bar. All lengths here are in typographic points."""
_DISTANCES = (7, 13, 20, 28)
_DIRECTIONS = ((1, 0), (-1, 0), (1, 0.7), (-1, 0.7), (1, -0.7), (-1, -0.7), (0, 1), (0, -1))
"""(right, up), in order of preference."""
_NEAR = 7
"""Labels farther away than this are connected to their point by a line."""


@dataclass(frozen=True)
class Point:
    """A point to label.

    Attributes:
        name: text of the label.
        at: position in data coordinates.
        deviation: half the length of the error bar, in data coordinates.
    """

    name: str
    at: tuple[float, float]
    deviation: float


@dataclass(frozen=True)
class _Place:
    """A position for a label: offset of its lower left corner from the point, distance, and box in pixels."""

    offset: tuple[float, float]
    distance: float
    box: Bbox


def label_points(axes: Axes, points: Sequence[Point]) -> bool:
    """Label all points if there is room for all labels; otherwise draw none.

    Args:
        axes: axes of a figure whose layout is final.
        points: the points and their labels.

    Returns:
        Whether the labels were drawn.
    """
    places = _places(axes, points)
    if places is None:
        return False
    for point, place in zip(points, places, strict=True):
        _write(axes, point, place)
    return True


def _places(axes: Axes, points: Sequence[Point]) -> list[_Place] | None:
    taken = [box(axes, point) for point in points for box in (_around, _bar)]
    inside, found = axes.get_window_extent(), []
    for point in points:
        place = next(
            (
                one
                for one in _candidates(axes, point)
                if _contains(inside, one.box) and not any(one.box.overlaps(other) for other in taken)
            ),
            None,
        )
        if place is None:
            return None
        found.append(place)
        taken.append(place.box)
    return found


def _candidates(axes: Axes, point: Point) -> Iterator[_Place]:
    """Positions for a label, in order of preference."""
    unit = axes.figure.dpi / 72
    x, y = axes.transData.transform(point.at)
    width, height = (size / unit for size in _extent(axes, point.name))
    for distance in _DISTANCES:
        for right, up in _DIRECTIONS:
            left = {1: distance, -1: -distance - width, 0: -width / 2}[right]
            low = up * distance - height * (0.5 if abs(up) < 1 else 0 if up > 0 else 1)
            box = _box(x + left * unit, y + low * unit, width * unit, height * unit)
            yield _Place((left, low), distance, box)


def _write(axes: Axes, point: Point, place: _Place) -> None:
    far = place.distance > _NEAR
    axes.annotate(
        point.name,
        point.at,
        xytext=place.offset,
        textcoords="offset points",
        fontsize=_SIZE,
        va="bottom",
        arrowprops={
            "arrowstyle": "-",
            "color": INK,
            "alpha": 0.5,
            "linewidth": 0.6,
            "shrinkA": 0,
            "shrinkB": 3,
            "relpos": (0 if place.offset[0] > 0 else 1 if -place.offset[0] > place.distance else 0.5, 0.5),
        }
        if far
        else None,
    )


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Move values upwards so that neighbours are at least ``gap`` apart, keeping their order."""
    moved, before = [0.0] * len(values), -float("inf")
    for number in sorted(range(len(values)), key=values.__getitem__):
        before = moved[number] = max(values[number], before + gap)
    return moved


def _around(axes: Axes, point: Point) -> Bbox:
    x, y = axes.transData.transform(point.at)
    half = _HALF_POINT * axes.figure.dpi / 72
    return _box(x - half, y - half, 2 * half, 2 * half)


def _bar(axes: Axes, point: Point) -> Bbox:
    x, y = point.at
    left, low = axes.transData.transform((x, y - point.deviation))
    _, high = axes.transData.transform((x, y + point.deviation))
    half = _HALF_BAR * axes.figure.dpi / 72
    return _box(left - half, low, 2 * half, high - low)


def _extent(axes: Axes, name: str) -> tuple[float, float]:
    """Width and height of a label in pixels."""
    text = axes.text(0, 0, name, fontsize=_SIZE)
    box = text.get_window_extent(axes.figure.canvas.get_renderer())
    text.remove()
    return box.width, box.height


def _box(left: float, low: float, width: float, height: float) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(left, low, width, height)


def _contains(outer: Bbox, inner: Bbox) -> bool:
    return outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1
