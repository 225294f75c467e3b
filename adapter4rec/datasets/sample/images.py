"""The image sample: pictures of products, whose colour is the topic and whose pattern is the mood.

All other attributes of a picture are random, so that no two items look the same and a model has to learn
colour and pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw
from tqdm import tqdm

from adapter4rec.datasets.sample.behaviour import (
    Dice,
    SampleCatalogue,
    SampleDomain,
    SampleSettings,
    write_lists,
)
from adapter4rec.datasets.sample.folder import LISTS, Recipe, keep_or_make
from adapter4rec.utils.files import REPOSITORY

# Hue (degrees) and lightness (per cent) of red, orange, yellow, green, blue, violet, pink and grey.
COLOURS = ((360, 44), (27, 52), (53, 54), (128, 38), (214, 46), (273, 48), (330, 70), (360, 49))
GREY = len(COLOURS) - 1
PATTERNS = ("plain", "striped", "checked", "dotted")
# Right halves of the outline of each product and of its part without pattern; points "x,y" in per cent.
SILHOUETTES = {
    "source": (
        ("50,22 57,19 63,9 78,14 96,38 83,50 74,42 75,92", "50,22 57,19 63,9 66,10 60,23 50,27"),  # T-shirt
        ("50,16 57,14 62,8 77,14 96,72 81,80 72,46 73,92", "50,84 73,84 70,95 50,95"),  # jumper
        ("50,34 58,28 62,6 71,6 72,30 80,40 77,92", "50,84 78,84 77,92 50,92"),  # tank top
        ("50,24 56,21 61,4 68,4 70,26 61,46 88,90 50,96", "50,43 62,43 64,50 50,50"),  # dress
        ("50,12 67,12 90,84 50,92", "50,8 68,8 68,18 50,18"),  # skirt
        ("50,8 72,8 79,95 57,95 50,36", "50,5 72,5 73,14 50,14"),  # trousers
        ("50,20 76,20 90,80 56,84 50,54", "50,14 76,14 78,24 50,24"),  # shorts
    ),
    "target": (
        ("50,28 60,24 68,32 71,58 90,58 97,68 80,80 50,84", "50,52 70,52 72,66 50,66"),  # hat
        ("50,18 60,20 72,30 79,48 81,72 50,72", "50,70 85,70 85,90 50,90"),  # woollen hat
        ("50,42 84,42 94,90 50,90", "50,16 62,20 66,58 73,58 69,14 50,8"),  # handbag
        ("50,12 62,12 74,20 80,34 80,94 50,94", "50,64 72,64 72,86 50,86"),  # backpack
        ("50,60 56,42 70,42 80,58 95,66 97,78 50,78", "50,76 98,76 98,84 50,84"),  # shoes
        ("50,52 54,8 74,8 76,60 94,68 96,82 50,82", "50,81 97,81 97,92 50,92"),  # boots
    ),
}
SIZES = ((224, 224), (224, 224), (224, 224), (240, 320), (256, 256), (360, 300), (300, 400), (400, 400))
TINY = (40, 48)
SIDE = 512
"""Pixels of the square on which products are drawn, before they are resized."""

# As in the text sample, half of the topics have another successor in the target than in the source.
SOURCE = SampleDomain(0, "s", "u", len(COLOURS), len(PATTERNS), steps=(3, 3))
TARGET = SampleDomain(1, "t", "v", len(COLOURS), len(PATTERNS), steps=(3, 5))


def pattern_mask(pattern: int, pitch: int, slant: int, phase: int) -> Image.Image:
    """The mask of a pattern's second colour; ``pitch`` in pixels, ``slant`` and ``phase`` in per cent."""
    down, right = np.mgrid[:SIDE, :SIDE].astype(np.int32)
    # Position of each pixel between one stripe (row or column of dots) and the next, in per cent.
    y = ((100 * down + slant * right) // pitch + phase) % 100
    x = ((100 * right - slant * down) // pitch + phase) % 100
    plain, stripes, checks = np.zeros_like(y), y < 48, (y // 50 + x // 50) / 2
    dots = (x - 50) ** 2 + (y - 50) ** 2 < 33**2
    return Image.fromarray((255 * (plain, stripes, checks, dots)[pattern]).astype(np.uint8))


def draw(
    cell: int, shapes: Sequence[tuple[str, str]], size: tuple[int, int], dice: Dice, cutout: bool = False
) -> Image.Image:
    """Draw a product with the colour and the pattern of a cell, in mode RGBA.

    Args:
        cell: number of a pair of a colour and a pattern.
        shapes: the silhouettes to choose from.
        size: width and height.
        dice: decides everything else.
        cutout: make the background transparent.
    """

    def between(lowest: int, highest: int) -> int:
        return lowest + int(dice.below(highest - lowest + 1, 1)[0])

    colour, pattern = divmod(cell, len(PATTERNS))
    hue, lightness = (value + between(-4, 4) for value in COLOURS[colour])
    saturation = between(0, 3) if colour == GREY else between(70, 90)
    cloth, trim, edge = (f"hsl({hue},{saturation}%,{lightness * share}%)" for share in (1, 0.75, 0.5))
    dark = np.dot(ImageColor.getrgb(cloth), (30, 59, 11)) > 15000 or dice.happens(35, 1)[0]
    accent = f"hsl({hue},{saturation * 0.6}%,{16 if dark else 93}%)"
    fabric = Image.new("RGB", (SIDE, SIDE), cloth)
    # Stripes are about 3 pixels wide at image size 64, so that a patch of 8 x 8 shows them. They are roughly
    # horizontal: to learn all directions, a small model needs thousands of images.
    fabric.paste(accent, mask=pattern_mask(pattern, between(51, 71), between(-10, 10), between(0, 99)))
    product = Image.new("RGBA", fabric.size)
    paints: tuple[Image.Image | str, ...] = (fabric, trim)
    for half, paint in zip(shapes[between(0, len(shapes) - 1)], paints, strict=True):
        right = [tuple(SIDE * int(number) / 100 for number in point.split(",")) for point in half.split()]
        outline = right + [(SIDE - x, y) for x, y in reversed(right)]
        mask = Image.new("L", product.size)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        product.paste(paint, mask=mask)
        ImageDraw.Draw(product).line([*outline, *outline[:2]], edge, width=8, joint="curve")
    side = min(size) * between(84, 92) // 100
    product = product.resize((side, side)).rotate(between(-9, 9), Image.Resampling.BICUBIC)
    background = f"hsl({between(0, 359)},30%,{between(89, 97)}%)"
    picture = Image.new("RGBA", size, 0 if cutout else background)
    left, top = ((length - side) // 2 + length * between(-3, 3) // 100 for length in size)
    picture.alpha_composite(product, (left, top))
    return picture


def write(settings: SampleSettings, folder: Path) -> None:
    """Write the lists and images of both domains."""
    for domain in (SOURCE, TARGET):
        catalogue = SampleCatalogue(domain, settings, digits=max(4, len(str(settings.items))))
        write_lists(folder / domain.name, catalogue.listed, catalogue, settings)
        images = folder / domain.name / "images"
        images.mkdir()
        shapes = SILHOUETTES[domain.name]
        grey = np.flatnonzero(catalogue.listed_cells // len(PATTERNS) == GREY)[::4].tolist()
        cells = tqdm(catalogue.listed_cells.tolist(), desc=f"{domain.name} images", disable=None)
        for place, cell in enumerate(cells):
            file = images / catalogue.listed[place]
            dice = Dice(settings.seed, domain.number, 2, place)
            size = TINY if place % 40 == 20 else SIZES[dice.below(len(SIZES), 1)[0]]
            if place % 40 == 0:
                draw(cell, shapes, size, dice, cutout=True).save(file.with_suffix(".png"))
            else:
                mode = "L" if place in grey else "RGB"
                draw(cell, shapes, size, dice).convert(mode).save(file.with_suffix(".jpg"), quality=85)


IMAGE_SAMPLE = Recipe(
    generator="Dataset.generate --images",
    version=2,
    folder=REPOSITORY / "Dataset" / "sample_images",
    items=400,
    least_items=SOURCE.cells,
    parts=(*LISTS, "source/images", "target/images"),
    write=write,
)


def make_image_sample(folder: Path, settings: SampleSettings) -> bool:
    """Generate the image sample in ``folder`` unless it is up to date. An older, unmodified one is replaced.

    The data depend only on the settings; the bytes of the image files also on the version of Pillow.

    Returns:
        Whether the sample was generated.

    Raises:
        UserError: too few items, or the folder has other content.
    """
    return keep_or_make(folder, IMAGE_SAMPLE, settings)
