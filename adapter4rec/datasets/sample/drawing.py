"""Drawing the images of the image sample: product photos on a light background."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from adapter4rec.datasets.sample.behaviour import Dice
from adapter4rec.datasets.sample.looks import Form, Look, Pattern
from adapter4rec.datasets.sample.silhouettes import Paint, Point, Shape, Silhouette

Colour = tuple[int, int, int]

FINER = 2
"""Supersampling factor for smooth edges."""
OFF_WHITE: Colour = (240, 236, 228)
EDGE = 2.2
"""Width of the outline of each part, in hundredths of half the image size."""
NOISE = 5
"""Maximum amplitude of the pixel noise, out of 255."""
LIGHT = 0.16
"""Strength of the brightness gradient."""


def _colour(hue: int, lightness: float, saturation: float) -> Colour:
    """RGB from hue (degrees), lightness and saturation (per cent)."""
    red, green, blue = colorsys.hls_to_rgb(hue % 360 / 360, lightness / 100, saturation / 100)
    return round(255 * red), round(255 * green), round(255 * blue)


def _darker(colour: Colour, per_cent: int) -> Colour:
    red, green, blue = (channel * (100 - per_cent) // 100 for channel in colour)
    return red, green, blue


def _accent(look: Look, cloth: Colour) -> Colour:
    """The second colour of a pattern: light or dark, in contrast to the cloth."""
    bright = 0.3 * cloth[0] + 0.59 * cloth[1] + 0.11 * cloth[2] > 150
    if bright or look.dark_accent:
        return _colour(look.hue, 16, look.saturation * 0.6)
    return _colour(look.hue, 93, look.saturation * 0.6)


@dataclass(frozen=True)
class _Canvas:
    """A canvas of ``size`` (width, height) for one look."""

    look: Look
    size: tuple[int, int]

    @property
    def unit(self) -> float:
        """Pixels per unit of a silhouette's coordinates."""
        return min(self.size) * self.look.scale / 20_000

    @property
    def pitch(self) -> float:
        """Pixels from one stripe, square or dot to the next."""
        return 2 * self.look.pitch * self.unit

    def mask(self) -> Image.Image:
        """An empty mask."""
        return Image.new("L", self.size)

    def turned(
        self, points: Iterable[Point], degrees: int, middle: tuple[float, float] = (50, 50), unit: float = 1
    ) -> list[Point]:
        """Rotate points; their origin is at ``middle`` (per cent of the canvas), their unit in pixels."""
        turn = math.radians(degrees)
        cosine, sine = math.cos(turn) * unit, math.sin(turn) * unit
        middle_x, middle_y = self.size[0] * middle[0] / 100, self.size[1] * middle[1] / 100
        return [(middle_x + x * cosine - y * sine, middle_y + x * sine + y * cosine) for x, y in points]

    def placed(self, points: Iterable[Point]) -> list[Point]:
        """The pixels of points of a silhouette."""
        side = -1 if self.look.flipped else 1
        middle = (50 + self.look.shift_x, 50 + self.look.shift_y)
        return self.turned([(side * x, y) for x, y in points], self.look.turn, middle, self.unit)

    def bands(self, slant: int, width: float) -> Image.Image:
        """A mask of parallel bands, one per pitch."""
        mask = self.mask()
        brush = ImageDraw.Draw(mask)
        reach = math.hypot(*self.size)
        count = math.ceil(reach / self.pitch)
        for number in range(-count, count + 1):
            begin = (number + self.look.phase / 100) * self.pitch
            corners = [(-reach, begin), (reach, begin), (reach, begin + width), (-reach, begin + width)]
            brush.polygon(self.turned(corners, slant + self.look.turn), fill=255)
        return mask

    def dots(self) -> Image.Image:
        """A mask of dots; alternate rows are shifted by half a pitch."""
        look, mask = self.look, self.mask()
        brush = ImageDraw.Draw(mask)
        radius = 0.31 * self.pitch
        reach = math.ceil(math.hypot(*self.size) / 2 / self.pitch) + 1
        grid = [
            ((column + row % 2 / 2 + look.phase / 100) * self.pitch, row * 0.87 * self.pitch)
            for row in range(-reach, reach + 1)
            for column in range(-reach, reach + 1)
        ]
        for x, y in self.turned(grid, look.slant + look.turn):
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        return mask

    def pattern(self) -> Image.Image:
        """The mask of the accent colour."""
        look = self.look
        if look.pattern is Pattern.STRIPED:
            return self.bands(look.slant, 0.48 * self.pitch)
        if look.pattern is Pattern.CHECKED:
            first, second = (self.bands(look.slant + turn, 0.5 * self.pitch) for turn in (0, 90))
            return ImageChops.add(first, second, scale=2)
        return self.dots() if look.pattern is Pattern.DOTTED else self.mask()


def _product(silhouette: Silhouette, canvas: _Canvas) -> tuple[Image.Image, Image.Image]:
    """The product in colour, and its mask."""
    look, size = canvas.look, canvas.size
    cloth = _colour(look.hue, look.lightness, look.saturation)
    plain = Image.new("RGB", size, cloth)
    fabric = Image.composite(Image.new("RGB", size, _accent(look, cloth)), plain, canvas.pattern())
    paints = {Paint.TRIM: _darker(cloth, 25), Paint.LINING: _darker(cloth, 60), Paint.SOLE: OFF_WHITE}
    picture, mask = plain.copy(), canvas.mask()
    for part in silhouette.parts:
        points = canvas.placed(part.points)
        stamp = canvas.mask()
        for target in (stamp, mask):
            _fill(ImageDraw.Draw(target), part, points, canvas.unit)
        picture.paste(fabric if part.paint is Paint.CLOTH else paints[part.paint], (0, 0), stamp)
        if not part.width:
            edge = _darker(OFF_WHITE if part.paint is Paint.SOLE else cloth, 45)
            width = max(1, round(EDGE * canvas.unit))
            ImageDraw.Draw(picture).line([*points, points[0]], fill=edge, width=width, joint="curve")
    return picture, mask


def _fill(brush: ImageDraw.ImageDraw, part: Shape, points: list[Point], unit: float) -> None:
    if part.width:
        brush.line(points, fill=255, width=max(1, round(part.width * unit)), joint="curve")
    else:
        brush.polygon(points, fill=255)


def _lit(picture: Image.Image, look: Look, dice: Dice) -> Image.Image:
    """Add light from one side and camera noise."""
    width, height = picture.size
    angle = math.radians(look.light)
    x = np.linspace(-1, 1, width, dtype=np.float32) * math.cos(angle)
    y = np.linspace(-1, 1, height, dtype=np.float32) * math.sin(angle)
    light = 1 + LIGHT / 2 * (x + y[:, None])
    noise = dice.octets(width * height * 3).reshape(height, width, 3) % (2 * NOISE + 1)
    pixels = np.asarray(picture) * light[..., None] + noise - np.float32(NOISE)
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


def _before_background(product: Image.Image, mask: Image.Image, look: Look) -> Image.Image:
    """The product with its shadow on a light background."""
    colour = _colour(look.background_hue, look.background_lightness, 30)
    wall = Image.new("RGB", mask.size, colour)
    distance = max(1, round(0.02 * min(mask.size)))
    shadow = ImageChops.offset(mask, -distance, distance).filter(ImageFilter.GaussianBlur(1.5 * distance))
    shade = Image.new("RGB", mask.size, _darker(colour, 45))
    wall.paste(shade, (0, 0), shadow.point(lambda value: value // 2))
    wall.paste(product, (0, 0), mask)
    return wall


def draw(look: Look, silhouette: Silhouette) -> Image.Image:
    """Draw the image of an item, in mode RGB, L or RGBA depending on its form."""
    size = look.size
    product, mask = _product(silhouette, _Canvas(look, (FINER * size[0], FINER * size[1])))
    product, mask = product.reduce(FINER), mask.reduce(FINER)
    dice = Dice(look.noise)
    if look.form is Form.CUTOUT:
        lit = _lit(product, look, dice)
        white = Image.new("RGB", size, "white")  # colour of the transparent pixels
        white.paste(lit, (0, 0), mask.point(lambda value: 255 if value else 0))
        white.putalpha(mask)
        return white
    picture = _lit(_before_background(product, mask, look), look, dice)
    return picture.convert("L") if look.form is Form.GREY else picture
