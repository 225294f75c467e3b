"""The image sample: the colour of an image is its topic, the pattern its mood."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from adapter4rec.datasets.sample.behaviour import Catalogue, SampleDomain, SampleSettings, write_lists
from adapter4rec.datasets.sample.drawing import draw
from adapter4rec.datasets.sample.folder import LISTS, Recipe, keep_or_make
from adapter4rec.datasets.sample.looks import COLOURS, Form, Look, Pattern, draw_looks
from adapter4rec.datasets.sample.silhouettes import ACCESSORIES, GARMENTS, Silhouette
from adapter4rec.utils.files import REPOSITORY

JPEG_QUALITY = 85
TOPICS, MOODS = len(COLOURS), len(Pattern)


@dataclass(frozen=True)
class ImageDomain(SampleDomain):
    """A domain of the image sample."""

    silhouettes: tuple[Silhouette, ...]


# As in the text sample, half of the topics have another successor in the target than in the source.
SOURCE = ImageDomain(0, "s", "u", TOPICS, MOODS, steps=(3, 3), silhouettes=GARMENTS)
TARGET = ImageDomain(1, "t", "v", TOPICS, MOODS, steps=(3, 5), silhouettes=ACCESSORIES)


def fill_catalogue(domain: ImageDomain, settings: SampleSettings) -> tuple[Catalogue, dict[str, Look]]:
    """Sample the items of a domain, and the look of each by name. Names are independent of the looks."""
    catalogue = Catalogue(domain, settings, digits=max(4, len(str(settings.items))))
    looks = draw_looks(catalogue.listed_cells, len(domain.silhouettes), catalogue.dice)
    return catalogue, dict(zip(catalogue.listed, looks, strict=True))


def write(settings: SampleSettings, folder: Path) -> None:
    """Write the lists and images of both domains."""
    for domain in (SOURCE, TARGET):
        catalogue, looks = fill_catalogue(domain, settings)
        write_lists(folder / domain.name, catalogue.listed, catalogue, settings)
        images = folder / domain.name / "images"
        images.mkdir()
        for name, look in tqdm(looks.items(), desc=f"{domain.name} images", disable=None):
            picture = draw(look, domain.silhouettes[look.kind])
            if look.form is Form.CUTOUT:
                picture.save(images / f"{name}.png")
            else:
                picture.save(images / f"{name}.jpg", quality=JPEG_QUALITY)


IMAGE_SAMPLE = Recipe(
    generator="Dataset.generate --images",
    version=1,
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
