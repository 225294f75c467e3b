"""Synthetic sample data, with texts or images: a source and a target domain without shared items.

    python -m Dataset.generate [--images] [--users N] [--target-users N] [--items N] [--clicks N] [--seed N]
                               [--into FOLDER]

behaviour.py simulates the users; text.py generates titles, images.py generates images. All random numbers are
integers from PCG64's raw stream, so that equal settings give equal data on every machine and with every
version of numpy (images: with the same version of Pillow). See Dataset/sample/README.md and
Dataset/sample_images/README.md for what the data can and cannot show.
"""

from __future__ import annotations

from adapter4rec.datasets.sample.behaviour import SampleSettings
from adapter4rec.datasets.sample.images import make_image_sample
from adapter4rec.datasets.sample.text import make_sample

__all__ = ["SampleSettings", "make_image_sample", "make_sample"]
