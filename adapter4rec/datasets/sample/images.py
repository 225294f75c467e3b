"""The image sample: the colour of an image is its topic, the pattern its mood."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from adapter4rec.datasets.sample.behaviour import Catalogue, Dice, SampleDomain, SampleSettings, user_lines
from adapter4rec.datasets.sample.drawing import draw
from adapter4rec.datasets.sample.folder import Outcome, Recipe, keep_or_make
from adapter4rec.datasets.sample.looks import COLOURS, Form, Look, Pattern, draw_looks
from adapter4rec.datasets.sample.silhouettes import ACCESSORIES, GARMENTS, Silhouette
from adapter4rec.utils.files import REPOSITORY, atomic_file, atomic_folder

VERSION = 1
DEFAULT_FOLDER = REPOSITORY / "Dataset" / "sample_images"
DEFAULT_ITEMS = 400
LISTS = ("source/users.tsv", "source/items.tsv", "target/users.tsv", "target/items.tsv")
JPEG_QUALITY = 85

TOPICS = len(COLOURS)
MOODS = len(Pattern)


@dataclass(frozen=True)
class ImageDomain(SampleDomain):
    """A domain of the image sample."""

    silhouettes: tuple[Silhouette, ...]


# As in the text sample: half of the topics have another successor in the target than in the source, and the
# mood matters more in the target. Successors are permutations of the topics.
SOURCE = ImageDomain(
    "source",
    0,
    "s",
    "u",
    tuple((topic + 3) % TOPICS for topic in range(TOPICS)),
    MOODS,
    match_mood=60,
    silhouettes=GARMENTS,
)
TARGET = ImageDomain(
    "target",
    1,
    "t",
    "v",
    tuple((topic + (3 if topic % 2 == 0 else 5)) % TOPICS for topic in range(TOPICS)),
    MOODS,
    match_mood=90,
    silhouettes=ACCESSORIES,
)


@dataclass(frozen=True)
class Shelf:
    """Items of a domain: the look of each item by name, the catalogue, and the names in catalogue order."""

    looks: dict[str, Look]
    catalogue: Catalogue
    names_in_catalogue: np.ndarray


def fill_shelf(domain: ImageDomain, settings: SampleSettings) -> Shelf:
    """Sample the looks of a domain's items. Item names are independent of the looks."""
    catalogue = Catalogue(settings.items, domain.cells)
    dice = Dice(settings.seed, domain.number, 0)
    order = dice.shuffled(settings.items)
    digits = max(4, len(str(settings.items)))
    names = [f"{domain.item_prefix}{number:0{digits}}" for number in range(1, settings.items + 1)]
    looks = draw_looks(catalogue.cell[order], len(domain.silhouettes), dice)
    names_in_catalogue = np.empty(settings.items, dtype=object)
    names_in_catalogue[order] = names
    return Shelf(dict(zip(names, looks, strict=True)), catalogue, names_in_catalogue)


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _write_picture(folder: Path, name: str, look: Look, silhouette: Silhouette) -> None:
    picture = draw(look, silhouette)
    if look.form is Form.CUTOUT:
        picture.save(folder / f"{name}.png")
    else:
        picture.save(folder / f"{name}.jpg", quality=JPEG_QUALITY)


def _write(settings: SampleSettings, folder: Path) -> None:
    for domain, users in ((SOURCE, settings.users), (TARGET, settings.target_users)):
        shelf = fill_shelf(domain, settings)
        lines = user_lines(domain, shelf.catalogue, shelf.names_in_catalogue, users, settings)
        _write_text(folder / domain.name / "users.tsv", lines)
        _write_text(folder / domain.name / "items.tsv", "".join(f"{name}\n" for name in shelf.looks))
        with atomic_folder(folder / domain.name / "images") as images:
            for name, look in tqdm(shelf.looks.items(), desc=f"{domain.name} images", disable=None):
                _write_picture(images, name, look, domain.silhouettes[look.kind])


RECIPE = Recipe(
    generator="Dataset.generate --images",
    version=VERSION,
    notice="Generated to try things out: the users, the pictures and the clicks are made up, not real data.",
    parts=(*LISTS, "source/images", "target/images"),
    write=_write,
)


def make_image_sample(folder: Path, settings: SampleSettings) -> Outcome:
    """Generate the image sample in ``folder`` unless it is up to date. An older, unmodified one is replaced.

    The data depend only on the settings; the bytes of the image files also on the version of Pillow.

    Raises:
        UserError: setting out of range, or the folder has other content.
    """
    settings.check(SOURCE.cells)
    return keep_or_make(folder, RECIPE, settings)
