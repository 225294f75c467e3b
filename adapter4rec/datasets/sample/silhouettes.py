"""Silhouettes of the image sample: garments in the source domain, shoes, bags and hats in the target domain.

Points are "x,y" in hundredths of half the image size, from the centre, x to the right and y down. A point
with a ``~`` is the control point of a quadratic Bézier curve between its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

Point = tuple[float, float]

CURVE_STEPS = 8


class Paint(Enum):
    """Paint of a part."""

    CLOTH = "cloth in the item's colour and pattern"
    TRIM = "the item's colour, darker and without pattern"
    LINING = "the item's colour, very dark"
    SOLE = "off-white"


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


def _flip(path: list[Point]) -> list[Point]:
    return [(-x, y) for x, y in path]


def _single(paint: Paint, text: str, width: float = 0.0) -> list[Shape]:
    """One part."""
    return [Shape(paint, tuple(_path(text)), width)]


def _symmetric(paint: Paint, text: str, width: float = 0.0) -> list[Shape]:
    """One symmetric part from its right half, whose path starts at the centre."""
    right = _path(text)
    return [Shape(paint, tuple(_flip(right)[::-1] + right), width)]


def _pair(paint: Paint, text: str, width: float = 0.0) -> list[Shape]:
    """A part and its mirror image."""
    right = _path(text)
    return [Shape(paint, tuple(right), width), Shape(paint, tuple(_flip(right)), width)]


def _silhouette(name: str, *parts: list[Shape]) -> Silhouette:
    return Silhouette(name, tuple(part for group in parts for part in group))


_C, _T, _L, _S = Paint.CLOTH, Paint.TRIM, Paint.LINING, Paint.SOLE

GARMENTS = (
    _silhouette(
        "T-shirt",
        _pair(_C, "28,-76 ~52,-72 62,-58 88,-22 62,-4 38,-34"),
        _symmetric(_L, "0,-82 18,-80 20,-66 0,-58"),
        _symmetric(_C, "0,-62 ~16,-62 20,-80 40,-74 ~44,-40 43,-20 ~42,40 46,82 ~20,88 0,88"),
        _symmetric(_T, "0,-62 ~16,-62 20,-80", 6),
        _pair(_T, "86,-23 62,-6", 4),
    ),
    _silhouette(
        "jumper",
        _pair(_C, "28,-78 ~58,-74 64,-52 ~80,0 88,58 66,64 ~58,20 40,-24"),
        _symmetric(_L, "0,-84 16,-82 18,-72 0,-66"),
        _symmetric(_C, "0,-70 ~14,-70 18,-82 40,-76 ~46,-40 45,-16 ~44,40 46,74 0,76"),
        _symmetric(_T, "0,-70 ~15,-70 19,-82", 9),
        _symmetric(_T, "0,72 46,70 43,88 0,90"),
        _pair(_T, "64,56 89,50 89,68 66,74"),
    ),
    _silhouette(
        "tank top",
        _symmetric(_L, "0,-66 ~22,-68 30,-84 30,-50 0,-30"),
        _symmetric(_C, "0,-36 ~22,-40 24,-88 40,-88 ~38,-42 56,-30 ~50,20 58,84 ~30,90 0,90"),
        _symmetric(_T, "0,-36 ~22,-40 24,-88", 6),
        _pair(_T, "40,-88 ~38,-42 56,-30", 6),
    ),
    _silhouette(
        "dress",
        _symmetric(_L, "0,-76 ~18,-78 26,-90 26,-70 0,-56"),
        _symmetric(_C, "0,-60 ~18,-62 20,-92 33,-92 ~30,-60 38,-52 ~26,-30 26,-16 0,-14"),
        _symmetric(_C, "0,-16 27,-16 ~40,20 66,82 ~34,94 0,94"),
        _symmetric(_T, "0,-22 27,-22 28,-12 0,-12"),
        _symmetric(_T, "0,-60 ~18,-62 20,-92", 4),
    ),
    _silhouette(
        "skirt",
        _symmetric(_C, "0,-68 36,-68 ~54,0 82,70 ~40,84 0,84"),
        _symmetric(_T, "0,-82 34,-82 37,-66 0,-66"),
        _pair(_T, "14,-64 ~18,0 28,80", 2.5),
    ),
    _silhouette(
        "trousers",
        _symmetric(_C, "0,-80 38,-80 ~46,-30 48,92 12,92 ~10,0 3,-30 0,-30"),
        _symmetric(_T, "0,-93 37,-93 39,-80 0,-80"),
        _symmetric(_T, "0,-80 0,-32", 3),
        _pair(_T, "38,-72 ~28,-60 22,-78", 3),
        _pair(_T, "12,88 48,88", 4),
    ),
    _silhouette(
        "shorts",
        _symmetric(_C, "0,-52 54,-52 ~66,0 76,62 16,68 ~10,20 4,4 0,4"),
        _symmetric(_T, "0,-68 52,-68 55,-51 0,-51"),
        _symmetric(_T, "0,-52 0,4", 3),
        _pair(_T, "52,-44 ~38,-28 30,-50", 3),
        _pair(_T, "17,62 75,56", 5),
    ),
    _silhouette(
        "coat",
        _pair(_C, "26,-84 ~50,-80 56,-60 ~72,-10 78,42 56,48 ~50,10 36,-30"),
        _symmetric(_L, "0,-90 16,-90 18,-76 0,-50"),
        _symmetric(_C, "0,-44 20,-90 38,-82 ~42,-40 38,-16 ~42,40 58,90 0,92"),
        _pair(_T, "2,-40 8,-66 16,-92 24,-88 34,-62 22,-60 26,-54"),
        _symmetric(_T, "0,-42 0,92", 3),
        _symmetric(_T, "0,-8 39,-10 40,2 0,4"),
        _pair(_T, "56,38 78,32", 5),
    ),
)

ACCESSORIES = (
    _silhouette(
        "trainer",
        _single(_L, "-78,-34 ~-52,-50 -24,-46 -26,-24 -70,-18"),
        _single(_C, "-84,-38 ~-62,-16 -28,-40 ~-8,-30 6,-14 ~40,6 76,10 ~94,18 92,36 -86,36 ~-92,0 -84,-38"),
        _single(_T, "52,6 ~94,12 92,36 58,36 ~64,18 52,6"),
        _single(_S, "-90,34 94,34 ~98,56 84,56 -82,56 ~-94,52 -90,34"),
        _single(_S, "-24,-30 -10,-14", 5),
        _single(_S, "-8,-20 6,-4", 5),
        _single(_S, "10,-10 22,6", 5),
    ),
    _silhouette(
        "boot",
        _single(_L, "-48,-86 20,-86 20,-74 -48,-74"),
        _single(_C, "-50,-82 22,-82 ~16,-30 24,2 ~74,12 82,40 82,62 -52,62 ~-44,-10 -50,-82"),
        _single(_T, "-50,-84 22,-84 20,-66 -49,-66"),
        _single(_T, "-52,60 84,60 86,74 -18,74 -18,86 -54,86"),
        _single(_T, "-47,-10 ~-10,-2 20,-12", 3),
    ),
    _silhouette(
        "court shoe",
        _single(_L, "-76,-26 ~-46,-6 -10,8 ~20,28 46,24 20,44 -60,6"),
        _single(_C, "-78,-34 ~-46,26 16,38 ~34,34 46,22 ~78,32 90,52 ~70,62 24,58 ~-20,56 -56,20 -76,6"),
        _single(_T, "-78,-2 -52,20 ~-64,40 -66,72 -78,72"),
        _single(_T, "24,56 ~-18,54 -56,20", 5),
    ),
    _silhouette(
        "handbag",
        _symmetric(_T, "0,-82 ~38,-82 42,-22", 8),
        _symmetric(_C, "0,-28 58,-28 ~64,-26 66,-16 82,62 ~82,74 70,76 0,76"),
        _symmetric(_T, "0,-30 60,-30 ~66,-16 58,-8 ~30,0 0,0"),
        _symmetric(_S, "0,-8 7,-8 7,10 0,10"),
    ),
    _silhouette(
        "tote bag",
        _pair(_T, "40,-16 ~42,-92 0,-92", 6),
        _symmetric(_C, "0,-20 66,-20 74,88 0,88"),
        _symmetric(_T, "0,-22 66,-22 67,-12 0,-12"),
        _pair(_T, "34,-18 46,-18 46,2 34,2"),
    ),
    _silhouette(
        "rucksack",
        _symmetric(_T, "0,-92 ~18,-92 18,-72", 7),
        _pair(_T, "50,10 68,14 ~76,40 68,66 50,70"),
        _symmetric(_C, "0,-78 ~52,-78 56,-30 60,80 ~58,88 48,88 0,88"),
        _symmetric(_T, "0,-26 56,-26", 4),
        _symmetric(_T, "0,22 38,22 40,74 0,76"),
        _symmetric(_S, "0,36 30,36", 3),
    ),
    _silhouette(
        "cap",
        _single(_C, "-62,26 ~-70,-62 6,-64 ~72,-60 62,22 ~0,6 -62,26"),
        _single(_T, "-62,26 ~0,2 62,22 ~-10,44 -96,52 ~-94,34 -62,26"),
        _single(_T, "2,-63 ~14,-30 12,12", 3),
        _single(_T, "-2,-63 ~-36,-34 -34,16", 3),
        _single(_T, "-6,-66 14,-66", 8),
    ),
    _silhouette(
        "sun hat",
        _symmetric(_C, "0,14 ~94,6 96,34 ~70,58 0,58"),
        _symmetric(_C, "0,-62 ~44,-66 48,24 ~28,34 0,34"),
        _symmetric(_T, "0,34 ~30,34 49,24 47,2 ~26,12 0,12"),
    ),
    _silhouette(
        "woolly hat",
        _symmetric(_C, "0,-58 ~62,-58 66,36 0,40"),
        _symmetric(_T, "0,30 70,26 72,66 0,70"),
        _symmetric(_S, "0,-86 ~20,-86 20,-68 ~20,-50 0,-50"),
    ),
)
