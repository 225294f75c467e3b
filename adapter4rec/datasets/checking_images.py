"""Checking a folder of item images: what is in it, and what is odd."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from adapter4rec.data.images.database import shown
from adapter4rec.data.images.decoding import BrokenImageError, decoded, image_bytes, opened_image, resized
from adapter4rec.data.images.description import ImageSource
from adapter4rec.data.images.sheets import Row, Tile, draw_sheet
from adapter4rec.data.images.sources import SEVERAL, matched_files
from adapter4rec.data.images.updating import write_missing
from adapter4rec.utils.files import atomic_file

_SIZE = 96
_EVEN = 3.0
"""Deviation of grey levels below which an image has one colour."""
_PER_ROW = 8
_EXAMPLES = 3


@dataclass(frozen=True)
class Picture:
    """What is known of the image of an item.

    Attributes:
        path: its file.
        kind: format by Pillow's name, such as ``JPEG``; empty if it is broken.
        width: in pixels.
        height: in pixels.
        content: SHA-256 of its pixels at a reduced size, in hexadecimal.
        file_content: SHA-256 of the file.
        deviation: of its grey levels.
        fault: why it cannot be read; empty if it can.
    """

    path: Path
    kind: str = ""
    width: int = 0
    height: int = 0
    content: str = ""
    file_content: str = ""
    deviation: float = 0.0
    fault: str = ""

    @property
    def one_colour(self) -> bool:
        """Whether it shows one colour alone, as placeholders do."""
        return not self.fault and self.deviation < _EVEN

    @property
    def elongation(self) -> float:
        """Longer side divided by shorter side."""
        return max(self.width, self.height) / max(1, min(self.width, self.height))


@dataclass(frozen=True)
class ImageCheck:
    """The images of a domain.

    Attributes:
        pictures: the image of each item that has a file, by item name.
        names: names of all items.
        several: the images of each item that has several with different content.
    """

    pictures: Mapping[bytes, Picture]
    names: Sequence[bytes]
    several: Mapping[bytes, Sequence[Path]]

    @property
    def good(self) -> dict[bytes, Picture]:
        """The images that can be read."""
        return {name: one for name, one in self.pictures.items() if not one.fault}

    @property
    def repeated(self) -> list[list[bytes]]:
        """Items with equal images, the largest group first."""
        groups: dict[str, list[bytes]] = defaultdict(list)
        for name, one in self.good.items():
            groups[one.content].append(name)
        return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)

    def figures(self) -> dict[str, str]:
        """Rows for the data card."""
        good = list(self.good.values())
        if not good:
            return {}
        kinds = Counter(one.kind for one in good).most_common()
        sides = np.array([(one.width, one.height) for one in good])
        least, middle, most = (
            "{} x {}".format(*map(int, how(sides, 0))) for how in (np.min, np.median, np.max)
        )
        return {
            "kinds of images": ", ".join(f"{count:,} {kind}" for kind, count in kinds),
            "width x height (least, median, most)": f"{least}, {middle}, {most}",
            "different images": f"{len({one.content for one in good}):,}",
        }

    def warnings(self) -> Iterator[str]:
        """What is odd."""
        if missing := len(self.names) - len(self.pictures) - len(self.several):
            yield f"{missing:,} of {len(self.names):,} items have no image"
        for name, paths in list(self.several.items())[:_EXAMPLES]:
            yield f"item {shown(name)} has {SEVERAL}: {', '.join(map(str, paths))}"
        broken = {name: one for name, one in self.pictures.items() if one.fault}
        for name, one in list(broken.items())[:_EXAMPLES]:
            yield f"the image of item {shown(name)} cannot be used ({one.path}): {one.fault}"
        if self.repeated:
            groups, good = self.repeated, self.good
            files = sum(len({good[name].file_content for name in group}) for group in groups)
            yield (
                f"{sum(map(len, groups)):,} items share {len(groups):,} equal images ({files:,} different "
                f"files); the most frequent one stands for {len(groups[0]):,} items, such as "
                f"{shown(groups[0][0])}"
            )
        if plain := [name for name, one in self.good.items() if one.one_colour]:
            yield (
                f"{len(plain):,} images have one colour alone, such as that of item {shown(plain[0])}; "
                "they may be placeholders"
            )

    def unusable(self) -> dict[bytes, ImageSource]:
        """The items without a usable image, with file and reason, in list order."""
        found = {}
        for name in self.names:
            picture = self.pictures.get(name)
            if name in self.several:
                found[name] = ImageSource("; ".join(map(str, self.several[name])), fault=SEVERAL)
            elif picture is None:
                found[name] = ImageSource(fault="no image")
            elif picture.fault:
                found[name] = ImageSource(str(picture.path), fault=picture.fault)
        return found

    def sheet(self) -> Image.Image | None:
        """A contact sheet of the oddest images; None if no image can be read."""
        good = self.good
        of_content = {one.content: name for name, one in reversed(good.items())}
        distinct = [name for name, one in good.items() if of_content[one.content] == name]
        by_deviation = sorted(distinct, key=lambda name: good[name].deviation)
        by_elongation = sorted(distinct, key=lambda name: -good[name].elongation)
        by_pixels = sorted(distinct, key=lambda name: good[name].width * good[name].height)
        rows: list[tuple[str, Sequence[bytes]]] = [
            ("most frequent equal images", [group[0] for group in self.repeated]),
            ("least contrast", by_deviation),
            ("most elongated", by_elongation),
            ("fewest pixels", by_pixels),
        ]
        shares = {group[0]: f"\n{len(group):,} items" for group in self.repeated}
        drawn = []
        for heading, names in rows:
            tiles = []
            for name in names[:_PER_ROW]:
                one, title = good[name], name.decode(errors="replace")
                picture = Image.fromarray(resized(decoded(one.path, 2 * _SIZE), _SIZE, "pad"))
                size = f"{one.width} x {one.height}{shares.get(name, '')}"
                tiles.append(Tile(picture, f"{title}\n{size}"))
            if tiles:
                drawn.append(Row(heading, (tuple(tiles),)))
        return draw_sheet(("the oddest images",), drawn) if drawn else None


def check_images(folder: Path, names: Sequence[bytes], *, numbered: bool) -> ImageCheck:
    """Read the images of items in a folder, in threads.

    Args:
        folder: the folder.
        names: names of the items.
        numbered: whether item v123 has the file 123.jpg (``--numbered_files``).

    Raises:
        UserError: no file matches an item.
    """
    matched = matched_files(folder, names, numbered=numbered)
    files = matched.images
    bar = tqdm(desc="images", total=len(files), unit="image", disable=None, leave=False)
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        found = {}
        for name, picture in zip(files, pool.map(_read, files.values()), strict=True):
            found[name] = picture
            bar.update()
    return ImageCheck(found, names, matched.several)


def write_unusable(check: ImageCheck, path: Path) -> int:
    """Write the list of items without a usable image as CSV, or remove it. Returns their number."""
    unusable = check.unusable()
    if unusable:
        write_missing(path, unusable)
    else:
        path.unlink(missing_ok=True)
    return len(unusable)


def write_sheet(check: ImageCheck, path: Path) -> bool:
    """Write the contact sheet of the oddest images as PNG. Returns whether there is one."""
    sheet = check.sheet()
    if sheet is None:
        return False
    with atomic_file(path) as aside:
        sheet.save(aside, format="PNG")
    return True


def _read(path: Path) -> Picture:
    try:
        data = image_bytes(path)
        image = decoded(data, 2 * _SIZE)
        with opened_image(data) as header:
            kind, (width, height) = header.format or "", header.size
    except BrokenImageError as error:
        return Picture(path, fault=str(error))
    pixels = resized(image, _SIZE)
    deviation = float(pixels.astype(np.float32).std(axis=(0, 1)).max())
    content, file_content = (hashlib.sha256(one).hexdigest() for one in (pixels.tobytes(), data))
    return Picture(path, kind, width, height, content, file_content, deviation)
