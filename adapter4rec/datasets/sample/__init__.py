"""Generated sample data, as text or as images: two domains that share meaning or look, but no item.

    python -m Dataset.generate [--images] [--users N] [--target-users N] [--items N] [--clicks N] [--seed N]
                               [--into FOLDER]

Users behave by the rules in behaviour.py; text.py gives the items titles, images.py gives them pictures.
Every number is drawn as an integer from PCG64's raw stream, so that the same settings give the same sample
on every machine and with every numpy (pictures: with the same Pillow). Dataset/sample/README.md and
Dataset/sample_images/README.md tell what the data can and cannot show.
"""

from __future__ import annotations

from adapter4rec.datasets.sample.behaviour import SampleSettings
from adapter4rec.datasets.sample.folder import Outcome
from adapter4rec.datasets.sample.images import make_image_sample
from adapter4rec.datasets.sample.text import make_sample

__all__ = ["Outcome", "SampleSettings", "make_image_sample", "make_sample"]
