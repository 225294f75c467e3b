"""Building the LMDB of item images: JPEGs decoded at a reduced size, against full decoding."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.settings import DECODINGS
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY, atomic_folder
from benchmarks.measuring import Measurement, in_turns, medians, options_of, report

_FOLDER = REPOSITORY / "cache" / "benchmarks"
_WIDTH, _HEIGHT = 800, 1000
_KINDS = ("scene", "product")
"""Detail everywhere, or on a product in front of white, as in catalogues."""
_DECAY = 1.5
"""Amplitudes fall with this power of the frequency, as in detailed photographs."""


def _texture(chance: np.random.Generator, bands: int) -> np.ndarray:
    """Random textures with the spectrum of photographs, ``[height, width, bands]``, of unit deviation."""
    frequency = np.hypot(np.fft.fftfreq(_HEIGHT)[:, None], np.fft.rfftfreq(_WIDTH))[..., None]
    frequency[0, 0] = np.inf
    phases = chance.normal(size=(*frequency.shape[:2], bands, 2)).view(np.complex128)[..., 0]
    texture = np.fft.irfft2(phases / frequency**_DECAY, (_HEIGHT, _WIDTH), axes=(0, 1))
    return texture / texture.std(axis=(0, 1))


def _pictures(kind: str, count: int) -> Path:
    """A folder with JPEG files of the size of product photographs, generated if missing."""
    folder = _FOLDER / f"{kind}_{count}"
    if folder.is_dir():
        return folder
    chance = np.random.default_rng(0)
    y, x = np.ogrid[-1 : 1 : _HEIGHT * 1j, -1 : 1 : _WIDTH * 1j]
    shown = np.ones((_HEIGHT, _WIDTH)) if kind == "scene" else (x / 0.7) ** 2 + (y / 0.8) ** 2 < 1
    with atomic_folder(folder) as temporary:
        for number in range(count):
            grey_levels = 128 + 55 * _texture(chance, 1) + 15 * _texture(chance, 3)
            pixels = np.where(shown[..., None], np.clip(grey_levels, 0, 255), 255).astype(np.uint8)
            Image.fromarray(pixels).save(temporary / f"{number}.jpg", quality=85)
        (temporary / "items.tsv").write_text("".join(f"{number}\n" for number in range(count)))
    return folder


def _measured(kind: str, count: int, rounds: int) -> Iterator[Measurement]:
    """Each way of decoding, against full decoding."""
    images = _pictures(kind, count)
    processor: dict[str, list[float]] = {decoding: [] for decoding in DECODINGS}

    def built(decoding: str) -> None:
        into = _FOLDER / f"built_{decoding}.lmdb"
        shutil.rmtree(into, ignore_errors=True)
        started = time.process_time()
        build(ImageLmdbSettings(images / "items.tsv", into, images, decoding=decoding), wait=True)
        processor[decoding].append(time.process_time() - started)

    seconds = medians(in_turns({name: partial(built, name) for name in DECODINGS}, rounds))
    names = [b"%d" % number for number in range(count)]
    found = {
        name: ImageDatabase(_FOLDER / f"built_{name}.lmdb").read(names).astype(int) for name in DECODINGS
    }
    size = sum(file.stat().st_size for file in images.glob("*.jpg")) / count
    for decoding in DECODINGS[1:]:
        difference = np.abs(found[decoding] - found["full"])
        more = {
            "images/s": f"{count / seconds[decoding]:,.0f}",
            "processor time": f"{1000 * min(processor[decoding]) / count:.2f} ms for each image, "
            f"{min(processor['full']) / min(processor[decoding]):.2f} times less (least of all rounds)",
            "difference in grey levels": f"{difference.mean():.2f} on average, {difference.max()} at most",
        }
        what = f"{count:,} images ({kind}, {size / 1000:.0f} KB), {decoding} decoding"
        yield Measurement(what, seconds[decoding], seconds["full"], more=more)


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, images=200, rounds=5)
    rows = [row for kind in _KINDS for row in _measured(kind, options.images, options.rounds)]
    report("building", rows, {"files": f"{_WIDTH} x {_HEIGHT}, JPEG"})


if __name__ == "__main__":
    run_main(main)
