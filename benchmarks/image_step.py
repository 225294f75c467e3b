"""A training step with images: ViT-base with Houlsby adapters, a batch of users with their images."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.data.batches import Division, EpochSteps, TrainingSet
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import ImageDatabase
from adapter4rec.data.images.store import ImageStore
from adapter4rec.files import REPOSITORY
from adapter4rec.models.transrec import TransRec
from adapter4rec.training.parameters import make_optimizer, parameter_groups
from benchmarks import released_way
from benchmarks.measuring import (
    Row,
    alone,
    arguments,
    given,
    in_turns,
    matrix_rate,
    medians,
    report,
    say_alone,
)
from benchmarks.models import domain_folder, houlsby_operations, image_model, read_domain
from benchmarks.text_step import settings_of, trainer_steps

_MODULE = "benchmarks.image_step"
_FOLDER = REPOSITORY / "cache" / "benchmarks" / "images"
_DISTINCT = 200
_FULL_SIZE = (640, 800)
SIZE = 224


def make_images(count: int = _DISTINCT, full_size: tuple[int, int] = _FULL_SIZE) -> tuple[Path, Path]:
    """Image files of the size of a shop's, and the LMDB that ``build_lmdb_hm.py`` makes of them.

    Returns:
        The folder of files ``0.jpg``… and the LMDB.
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
    """A full-size file as the released code reads it, resized each time, uint8 ``[224, 224, 3]``."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.BILINEAR))


class Steps:
    """The first steps of an epoch, taken in the project's way or in the released way."""

    def __init__(self, batch: int, layers: int) -> None:
        self.layers, self.batch = layers, batch
        self.interactions, _ = read_domain(domain_folder(), 10)
        self.files, lmdb = make_images()
        names = [b"%d" % (item % _DISTINCT) for item in range(self.interactions.n_items)]
        self.store = ImageStore(ImageDatabase(lmdb), names, SIZE)
        self.examples = TrainingSet(self.interactions, batch, seed=1)
        self.steps = EpochSteps(self.examples, self.store, 1, Division(), last_place_only=False)

    def model(self) -> TransRec:
        """The model as training begins."""
        return image_model(HoulsbyConfig(), self.layers)

    def encode(self, model: TransRec, items: np.ndarray) -> torch.Tensor:
        """In the released way."""
        black = np.zeros((SIZE, SIZE, 3), np.uint8)

        def read(item: int) -> np.ndarray:
            return resized(self.files / f"{(item - 1) % _DISTINCT}.jpg") if item else black

        return released_way.encoded_images(model, read, items)

    def released(self, model: TransRec) -> Callable[[int], float]:
        """A step in the released way."""
        optimizer = make_optimizer(parameter_groups(model, settings_of(self.batch).learning_rates()))
        order = self.examples.order(1)

        def step(number: int) -> float:
            ids = self.examples.ids(order, 1, number)
            loss = released_way.loss(model, lambda items: self.encode(model, items), ids)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        return step

    def lengths(self, number: int) -> np.ndarray:
        """Patches of each distinct image of a step, [CLS] included."""
        (part,) = self.steps[number]
        return np.full(len(part.content), (SIZE // 16) ** 2 + 1)


def _require_equal(steps: Steps) -> None:
    ours, theirs = steps.model().eval(), released_way.plain(steps.model()).eval()
    with torch.no_grad():
        (part,) = steps.steps[0]
        found = ours(part).item()
        ids = steps.examples.ids(steps.examples.order(1), 1, 0)
        expected = released_way.loss(theirs, lambda items: steps.encode(theirs, items), ids).item()
    # Our LMDB was made of the same files by the same filter.
    assert abs(found - expected) < 1e-3 * abs(expected), (found, expected)


def _options() -> argparse.Namespace:
    return arguments(__doc__, batch=2, layers=12, rounds=3).parse_args()


def main() -> None:
    """Measure and report."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    steps = Steps(options.batch, options.layers)
    settings = settings_of(options.batch)
    arms = {
        "released": lambda: steps.released(released_way.plain(steps.model().train())),
        "fp32": lambda: trainer_steps(steps.model().train(), steps.steps, "fp32", settings),
        "bf16": lambda: trainer_steps(steps.model().train(), steps.steps, "bf16", settings),
    }
    if options.alone:
        step = arms[options.alone]()
        step(0)
        step(1)
        say_alone()
        return
    _require_equal(steps)
    numbers = {name: iter(range(options.rounds + 1)) for name in arms}
    ready = {name: make() for name, make in arms.items()}
    taken = in_turns(
        {name: lambda name=name: ready[name](next(numbers[name])) for name in arms}, options.rounds
    )
    rates = {"fp32": matrix_rate(torch.float32), "bf16": matrix_rate(torch.bfloat16)}
    config = steps.model().item_encoder.backbone.config
    useful = [houlsby_operations(config, steps.lengths(number)) for number in range(1, options.rounds + 1)]
    memory = {name: alone(_MODULE, name, given(options))["memory"] for name in arms}
    seconds = medians(taken)
    rows = [
        Row(
            f"image training step, {form}",
            seconds[form],
            seconds["released"],
            goal=goal,
            share=sum(useful) / sum(taken[form]) / rates[form],
            memory=memory[form],
            released_memory=memory["released"],
        )
        for form, goal in (("fp32", 4), ("bf16", 8))
    ]
    about = {
        "users": options.batch,
        "layers": options.layers,
        "images": int(np.median([len(steps.lengths(number)) for number in range(1, options.rounds + 1)])),
        "matrix product, GFLOP/s": {form: round(rate / 1e9) for form, rate in rates.items()},
    }
    report("image_step", rows, about)


if __name__ == "__main__":
    main()
