"""A training step on images: ViT-base with Houlsby adapters."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.store import ImageStore
from adapter4rec.models.transrec import TransRec
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY
from benchmarks import released_way
from benchmarks.measuring import options_of
from benchmarks.models import domain_folder, image_model, read_domain
from benchmarks.steps import Course, examples_of, measure_steps

_FOLDER = REPOSITORY / "cache" / "benchmarks" / "images"
_DISTINCT = 200
_FULL_SIZE = (640, 800)
SIZE = 224


def make_images(count: int = _DISTINCT, full_size: tuple[int, int] = _FULL_SIZE) -> tuple[Path, Path]:
    """Create JPEG files of typical size, and an LMDB of them as ``build_lmdb_hm.py`` builds it.

    Returns:
        The folder with the files ``0.jpg``, ``1.jpg``, …, and the LMDB.
    """
    files, into = _FOLDER / "files", _FOLDER / "lmdb"
    files.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    for number in range(count):
        path = files / f"{number}.jpg"
        if not path.exists():
            coarse = chance.integers(0, 256, (12, 15, 3), np.uint8)
            Image.fromarray(coarse).resize(full_size, Image.BICUBIC).save(path, quality=90)
    names = _FOLDER / "items.tsv"
    names.write_text("".join(f"{number}\n" for number in range(count)))
    if not into.exists():
        build(ImageLmdbSettings(items=names, into=into, images=files))
    return files, into


def resized(path: Path) -> np.ndarray:
    """Read and resize a full-size file, as the released code does on each access: uint8 ``[224, 224, 3]``."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.BILINEAR))


def image_course(options: argparse.Namespace) -> Course:
    """Training steps on the sequences of a domain, with images instead of titles."""
    interactions, _ = read_domain(domain_folder(), 10)
    files, lmdb = make_images()
    names = [b"%d" % (item % _DISTINCT) for item in range(interactions.n_items)]
    black = np.zeros((SIZE, SIZE, 3), np.uint8)

    def read(item: int) -> np.ndarray:
        return resized(files / f"{(item - 1) % _DISTINCT}.jpg") if item else black

    def encode(model: TransRec, items: np.ndarray) -> Tensor:
        return released_way.encoded_images(model, read, items)

    return Course(
        "image_step",
        examples_of(interactions, ImageStore(ImageDatabase(lmdb), names, SIZE), options.batch),
        lambda: image_model(HoulsbyConfig(), options.layers),
        encode,
    )


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, batch=2, layers=12, rounds=3)
    measure_steps(image_course(options), options, {"fp32": 4, "bf16": 8})


if __name__ == "__main__":
    run_main(main)
