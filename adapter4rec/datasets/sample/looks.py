"""Looks of the items in the image sample: colours, patterns and random variation.

The colour family is the topic, the pattern the mood. All other attributes are random, so that no two items
look the same and a model has to learn colour and pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

import numpy as np

from adapter4rec.datasets.sample.behaviour import Dice, Integers


class Pattern(IntEnum):
    """Pattern of the cloth; the mood of an item."""

    PLAIN = 0
    STRIPED = 1
    CHECKED = 2
    DOTTED = 3


class Form(Enum):
    """Kind of image file."""

    PHOTO = "a JPEG file in colour"
    GREY = "a JPEG file with one channel, of a grey item"
    CUTOUT = "a PNG file with a transparent background"
    TINY = "a JPEG file of less than 50 pixels"


@dataclass(frozen=True)
class Colour:
    """A colour family: ranges of hue (degrees), saturation and lightness (per cent)."""

    name: str
    hue: tuple[int, int]
    saturation: tuple[int, int]
    lightness: tuple[int, int]


COLOURS = (
    Colour("red", (352, 364), (72, 88), (40, 48)),
    Colour("orange", (22, 31), (85, 98), (49, 55)),
    Colour("yellow", (49, 56), (80, 96), (50, 60)),
    Colour("green", (105, 150), (42, 65), (32, 44)),
    Colour("blue", (203, 226), (60, 85), (40, 52)),
    Colour("violet", (264, 282), (42, 62), (42, 54)),
    Colour("pink", (322, 338), (65, 88), (66, 74)),
    Colour("grey", (0, 359), (0, 4), (36, 62)),
)
GREY = len(COLOURS) - 1

# In per cent of the items, rounded up.
GREY_FILES = 3
CUTOUT_FILES = 3
TINY_FILES = 2

SIZES = ((224, 224), (240, 320), (256, 256), (280, 360), (300, 400), (320, 320), (360, 300), (400, 400))
SIZE_WEIGHTS = (5, 1, 1, 1, 1, 1, 1, 1)
TINY_SIZES = ((32, 32), (36, 48), (40, 40), (48, 48))


@dataclass(frozen=True)
class Look:
    """All parameters of an image, as integers (pixels, degrees, per cent)."""

    colour: int
    pattern: Pattern
    form: Form
    size: tuple[int, int]
    """Width and height."""
    kind: int
    """Index of the silhouette."""
    hue: int
    saturation: int
    lightness: int
    dark_accent: bool
    """Whether the pattern is darker than the cloth."""
    pitch: int
    """Distance between stripes, squares or dots, in hundredths of the silhouette."""
    slant: int
    """Direction of the pattern, in degrees."""
    phase: int
    """Offset of the pattern, in per cent of the pitch."""
    scale: int
    """Size of the silhouette, in per cent of the image."""
    turn: int
    """Rotation of the silhouette, in degrees."""
    shift_x: int
    shift_y: int
    flipped: bool
    """Whether the silhouette is mirrored."""
    background_hue: int
    background_lightness: int
    light: int
    """Direction of the light, in degrees."""
    noise: int
    """Random seed of the pixel noise."""


def _forms(colour: Integers, dice: Dice) -> list[Form]:
    """The form of each item. The share of each form is fixed; only grey items get grey files."""
    count = len(colour)
    order = dice.shuffled(count)
    is_grey = colour[order] == GREY
    grey, rest = order[is_grey], order[~is_grey]
    greys, cutouts, tinies = (-(-share * count // 100) for share in (GREY_FILES, CUTOUT_FILES, TINY_FILES))
    forms = np.full(count, Form.PHOTO, dtype=object)
    forms[grey[:greys]] = Form.GREY
    forms[rest[:cutouts]] = Form.CUTOUT
    forms[rest[cutouts : cutouts + tinies]] = Form.TINY
    return forms.tolist()


def draw_looks(cell: Integers, kinds: int, dice: Dice) -> list[Look]:
    """Sample a look for each item.

    Args:
        cell: cell of each item, int64 ``[items]``.
        kinds: number of silhouettes of the domain.
        dice: random number generator.
    """
    count = len(cell)
    colour, pattern = np.divmod(cell, len(Pattern))

    def between(lowest: Integers | int, highest: Integers | int) -> list[int]:
        drawn: list[int] = (lowest + dice.below(highest - lowest + 1, count)).tolist()
        return drawn

    def of_family(channel: str) -> list[int]:
        lowest, highest = np.array([getattr(family, channel) for family in COLOURS])[colour].T
        return between(lowest, highest)

    forms = _forms(colour, dice)
    weighted = [size for size, weight in zip(SIZES, SIZE_WEIGHTS, strict=True) for _ in range(weight)]
    sizes = [weighted[number] for number in between(0, len(weighted) - 1)]
    tiny = [TINY_SIZES[number] for number in between(0, len(TINY_SIZES) - 1)]
    columns = {
        "colour": colour.tolist(),
        "pattern": [Pattern(number) for number in pattern],
        "form": forms,
        "size": [t if form is Form.TINY else s for form, s, t in zip(forms, sizes, tiny, strict=True)],
        "kind": between(0, kinds - 1),
        "hue": of_family("hue"),
        "saturation": of_family("saturation"),
        "lightness": of_family("lightness"),
        "dark_accent": dice.happens(35, count).tolist(),
        # Stripes are about 3 pixels wide at image size 64, so that a patch of 8 x 8 shows them.
        "pitch": between(10, 14),
        # Stripes are roughly horizontal: to learn all directions, a small model needs thousands of images.
        "slant": between(-6, 6),
        "phase": between(0, 99),
        "scale": between(86, 98),
        "turn": between(-9, 9),
        "shift_x": between(-4, 4),
        "shift_y": between(-4, 4),
        "flipped": dice.happens(50, count).tolist(),
        "background_hue": between(0, 359),
        "background_lightness": between(89, 97),
        "light": between(0, 359),
        "noise": between(0, 2**31 - 2),
    }
    return [Look(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
