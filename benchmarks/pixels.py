"""Reading images: pixels from the LMDB against full-size files that are resized each time."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.store import ImageStore
from benchmarks.image_step import SIZE, make_images, resized
from benchmarks.measuring import Row, arguments, in_turns, medians, report


def _options() -> argparse.Namespace:
    return arguments(__doc__, images=200, rounds=5).parse_args()


def main() -> None:
    """Measure and report."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    files, lmdb = make_images()
    names = [b"%d" % number for number in range(options.images)]
    store, items = ImageStore(ImageDatabase(lmdb), names, SIZE), np.arange(1, options.images + 1)

    def project() -> np.ndarray:
        return store.fetch(items).pixels.numpy()

    def released() -> np.ndarray:
        return np.stack([resized(files / f"{number}.jpg") for number in range(options.images)])

    assert np.abs(project().astype(int) - released()).max() <= 1
    seconds = medians(in_turns({"project": project, "released": released}, options.rounds))
    row = Row(f"reading {options.images} images", seconds["project"], seconds["released"], goal=5)
    report("pixels", [row], {"files": "640 x 800, JPEG"})


if __name__ == "__main__":
    main()
