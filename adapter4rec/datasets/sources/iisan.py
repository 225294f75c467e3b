"""Scientific, Instruments and Office: Amazon reviews of three categories, as published with IISAN.

Published in the folder Dataset of https://github.com/GAIR-Lab/IISAN (SIGIR 2024), in the form of
``sequences.py`` without times: ``Dataset/Scientific/Industrial_and_Scientific_items.tsv``,
``am_Industrial_and_Scientific_users.tsv`` and so on. The images are separate archives, which unpack to
``am_image_is``, ``am_image_mi`` and ``am_image_op`` in Dataset. Titles are as Amazon has them: some start
with a space, some have HTML entities.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.base import Source
from adapter4rec.datasets.sources.lines import only_one
from adapter4rec.datasets.sources.sequences import read_sequences

_SETS = {
    "scientific": (
        "am_Industrial_and_Scientific_users.tsv",
        "Industrial_and_Scientific_items.tsv",
        "am_image_is",
    ),
    "instruments": ("am_Musical_Instruments_users_10K.tsv", "Musical_Instruments_items.tsv", "am_image_mi"),
    "office": ("am_Office_Products_users_10K.tsv", "Office_Products_items.tsv", "am_image_op"),
}


def read(folder: Path, name: str) -> RawData:
    """Read one of the three sets below ``folder``: the checkout, its Dataset, or the folder of the set."""
    users_name, items_name, images_name = _SETS[name]
    users = only_one(folder, f"{users_name} and {items_name}", users_name)
    places = (folder, users.parent, users.parent.parent)
    images = next((place / images_name for place in places if (place / images_name).is_dir()), None)
    return read_sequences(users, users.with_name(items_name), images)


def _source(name: str, category: str) -> Source:
    users, items, images = _SETS[name]
    return Source(
        about=f"{category} of Amazon Reviews, as published with IISAN: titles and images",
        published="https://github.com/GAIR-Lab/IISAN",
        licence="none stated; the reviews are Amazon's",
        files=f"{users}, {items}, and for images {images}",
        read=partial(read, name=name),
    )


SOURCES = {
    "scientific": _source("scientific", "Industrial and Scientific"),
    "instruments": _source("instruments", "Musical Instruments"),
    "office": _source("office", "Office Products"),
}
