"""Building the LMDB of item images: JPEGs decoded at a reduced size, against full decoding."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
from PIL import Image

from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY, atomic_folder
from benchmarks.measuring import Measurement, in_turns, medians, options_of, report

_FOLDER = REPOSITORY / "cache" / "benchmarks"
_FULL_SIZE = 800, 1000
_GRAIN = 3
"""Deviation of the noise in grey levels, as in photographs; files have some 150 KB."""


def _photographs(count: int) -> Path:
    """A folder with JPEG files of the size of product photographs, generated if missing."""
    folder = _FOLDER / f"photographs_{count}"
    if folder.is_dir():
        return folder
    chance = np.random.default_rng(0)
    with atomic_folder(folder) as temporary:
        for number in range(count):
            coarse = Image.fromarray(chance.integers(0, 256, (40, 32, 3), np.uint8))
            smooth = np.asarray(coarse.resize(_FULL_SIZE, Image.Resampling.BICUBIC))
            grain = chance.normal(0, _GRAIN, (*smooth.shape[:2], 1))
            pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(temporary / f"{number}.jpg", quality=85)
        (temporary / "items.tsv").write_text("".join(f"{number}\n" for number in range(count)))
    return folder


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, images=200, rounds=5)
    images = _photographs(options.images)
    names = [b"%d" % number for number in range(options.images)]
    found: dict[str, np.ndarray] = {}
    processor: dict[str, list[float]] = {"reduced": [], "full": []}

    def built(name: str) -> None:
        into = _FOLDER / f"built_{name}.lmdb"
        shutil.rmtree(into, ignore_errors=True)
        started = time.process_time()
        build(ImageLmdbSettings(images / "items.tsv", into, images, full_decoding=name == "full"), wait=True)
        processor[name].append(time.process_time() - started)
        found[name] = ImageDatabase(into).read(names)

    turns = {name: lambda name=name: built(name) for name in processor}
    seconds = medians(in_turns(turns, options.rounds))
    difference = float(np.abs(found["reduced"].astype(int) - found["full"]).mean())
    what = f"building an LMDB of {options.images:,} images"
    more = {
        "images/s": f"{options.images / seconds['reduced']:,.0f}",
        "processor time": f"{np.median(processor['full']) / np.median(processor['reduced']):.2f} times less",
        "mean difference": f"{difference:.2f} grey levels",
    }
    row = Measurement(what, seconds["reduced"], seconds["full"], goal=2.5, more=more)
    report("building", [row], {"files": "800 x 1000, JPEG"})


if __name__ == "__main__":
    run_main(main)
