"""Silhouettes of the image sample: garments in the source domain, shoes, bags and hats in the target domain.

``silhouettes.json`` lists the parts of each product, from bottom to top: kind (``single``; ``symmetric``, the
right half of a part; or ``pair``, one of two mirror images), paint, path, and the width if it is a line.
A path has points "x,y" in hundredths of half the image size, from the centre, x to the right and y down. A
point with a ``~`` is the control point of a quadratic Bézier curve between its neighbours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files

Point = tuple[float, float]

CURVE_STEPS = 8


class Paint(Enum):
    """Paint of a part."""

    CLOTH = "cloth"
    """The item's colour and pattern."""
    TRIM = "trim"
    """The item's colour, darker and without pattern."""
    LINING = "lining"
    """The item's colour, very dark."""
    SOLE = "sole"
    """Off-white."""


@dataclass(frozen=True)
class Shape:
    """A filled polygon or a line."""

    paint: Paint
    points: tuple[Point, ...]
    width: float = 0.0
    """Line width in hundredths of half the image size; 0 for a filled polygon."""


@dataclass(frozen=True)
class Silhouette:
    """A kind of product: its parts, from bottom to top."""

    name: str
    parts: tuple[Shape, ...]


def _curve(start: Point, bend: Point, end: Point) -> list[Point]:
    """Points on a quadratic Bézier curve with control point ``bend``."""
    steps = [step / CURVE_STEPS for step in range(1, CURVE_STEPS)]
    x, y = (
        [(1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c for t in steps]
        for a, b, c in zip(start, bend, end, strict=True)
    )
    return list(zip(x, y, strict=True))


def _path(text: str) -> list[Point]:
    """Parse a path; curves are approximated by line segments."""
    path: list[Point] = []
    bend: Point | None = None
    for word in text.split():
        x, y = (float(number) for number in word.lstrip("~").split(","))
        if word.startswith("~"):
            bend = (x, y)
            continue
        if bend is not None:
            path += _curve(path[-1], bend, (x, y))
            bend = None
        path.append((x, y))
    return path


def _shapes(kind: str, paint: str, text: str, width: float = 0.0) -> list[Shape]:
    """The shapes of one entry of ``silhouettes.json``."""
    path = _path(text)
    mirrored = [(-x, y) for x, y in path]
    paths = {"single": [path], "symmetric": [mirrored[::-1] + path], "pair": [path, mirrored]}[kind]
    return [Shape(Paint(paint), tuple(points), width) for points in paths]


def read_silhouettes(domain: str) -> tuple[Silhouette, ...]:
    """The silhouettes of a domain, ``source`` or ``target``."""
    products = json.loads(files(__package__).joinpath("silhouettes.json").read_text(encoding="utf-8"))[domain]
    return tuple(
        Silhouette(name, tuple(shape for entry in parts for shape in _shapes(*entry)))
        for name, parts in products.items()
    )


GARMENTS = read_silhouettes("source")
ACCESSORIES = read_silhouettes("target")
