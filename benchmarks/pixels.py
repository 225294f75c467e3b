"""Reading images: pixels from the LMDB against full-size files that are resized on each access."""

from __future__ import annotations

import numpy as np

from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.store import ImageStore
from adapter4rec.utils.errors import run_main
from benchmarks.image_step import SIZE, make_images, resized
from benchmarks.measuring import Measurement, in_turns, medians, options_of, report


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, images=200, rounds=5)
    files, lmdb = make_images()
    names = [b"%d" % number for number in range(options.images)]
    store, items = ImageStore(ImageDatabase(lmdb), names, SIZE), np.arange(1, options.images + 1)

    def project() -> np.ndarray:
        return store.fetch(items).pixels.numpy()

    def released() -> np.ndarray:
        return np.stack([resized(files / f"{number}.jpg") for number in range(options.images)])

    assert np.abs(project().astype(int) - released()).max() <= 1
    seconds = medians(in_turns({"project": project, "released": released}, options.rounds))
    row = Measurement(f"reading {options.images} images", seconds["project"], seconds["released"], goal=5)
    report("pixels", [row], {"files": "640 x 800, JPEG"})


if __name__ == "__main__":
    run_main(main)
