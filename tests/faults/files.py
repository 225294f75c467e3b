"""Injecting faults of files: a disk that is full from some moment on, and damaged files."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import ImageDatabase
from Pretraining.Text.train import Settings, train
from tests.faults.damage import damaged
from tests.faults.injecting import FORK, STEPS, Shop, started, train_counting_steps

SECONDS = 600
IMAGES = [b"i%d" % number for number in range(30)]


def outcome(action: Callable[[], Any]) -> tuple[int | None, str]:
    """Exit code and output of a child process that carries out ``action``; -14 if it does not end in time."""

    def bounded() -> None:
        signal.alarm(SECONDS)  # its default action ends the process
        action()

    reader, writer = os.pipe()
    child = started(bounded, writer)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as file:
        printed = file.read()  # to the end, when all processes that print have ended
    child.join()
    return child.exitcode, printed


def disk_full(shop: Shop, count: int) -> tuple[int, int, str]:
    """Let no file grow from one of ``count`` moments on, while a run is carried out; then resume it.

    A moment is the opening of a file for writing. The limit of the size of files makes the system calls of
    all libraries fail as they do on a full disk.
    """
    survived, lost, taken = 0, 0, FORK.Value("q", 0)
    for number, (moment, file) in enumerate(_moments(shop, count)):
        name, limit = f"full{number}", (0, 100, 5000)[number % 3]
        settings = Settings.from_values(shop.values(name, cache_folder=shop.folder / f"{name}.cache"))
        taken.value = 0

        def limited(settings: Settings = settings, moment: int = moment, limit: int = limit) -> None:
            left = iter(range(moment))

            def opened(_: str) -> None:
                if next(left, None) is None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

            _on_opening_to_write(shop.folder, opened)
            train_counting_steps(settings, taken)

        code, printed = outcome(limited)
        lost = max(lost, taken.value - shop.saved_steps(name))
        fault = "" if code == 2 and "Traceback" not in printed else f"exit code {code}\n{printed}"
        if not fault and not shop.equals_unbroken(name):
            fault = "the resumed run is not the unbroken one, or has left files behind"
        survived += not fault
        if fault:
            print(f"full disk, {limit} bytes from opening {moment} ({file}) on: {fault}", flush=True)
    return count, survived, f"{lost} steps, saved after each"


def _on_opening_to_write(folder: Path, opened: Callable[[str], None]) -> None:
    """Call ``opened`` with each file below ``folder`` that this process opens for writing from now on."""

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event == "open" and values[2] & (os.O_WRONLY | os.O_RDWR) and str(folder) in str(values[0]):
            opened(str(values[0]))

    sys.addaudithook(hook)


def _moments(shop: Shop, count: int) -> list[tuple[int, str]]:
    """Moments at which a run opens a file for writing, and the file's name: each name in turns."""
    listed = shop.folder / "opened.txt"
    descriptor = os.open(listed, os.O_WRONLY | os.O_CREAT)

    def listing() -> None:
        _on_opening_to_write(shop.folder, lambda path: os.write(descriptor, f"{path}\n".encode()) and None)
        train(Settings.from_values(shop.values("listed", cache_folder=shop.folder / "listed.cache")))

    code, printed = outcome(listing)
    assert code == 0, printed
    by_name = defaultdict(list)
    for moment, path in enumerate(listed.read_text().splitlines()):
        by_name[re.sub(r"\.\d+\.part$", "", Path(path).name)].append(moment)
    print(f"files that a run writes: {', '.join(by_name)}", flush=True)
    turns = [(turn, moment, name) for name, found in by_name.items() for turn, moment in _shuffled(found)]
    return [(moment, name) for _, moment, name in sorted(turns)[:count]]


def _shuffled(moments: list[int]) -> list[tuple[int, int]]:
    return [*enumerate(random.sample(moments, len(moments)))]


def damaged_files(shop: Shop, count: int) -> tuple[int, int, str]:
    """Damage one of the files of an interrupted run and its domain, and resume it, ``count`` times.

    The run must end with one line, or with the weights of an unbroken run.
    """
    whole = shop.folder / "whole"
    _with_images(whole)
    for name in ("users.tsv", "items.tsv"):
        shutil.copy(shop.folder / name, whole)
    shutil.copytree(shop.folder / "backbone", whole / "backbone")
    train(Settings.from_values(_moved(shop, whole) | {"epochs": 1}))
    (whole / "run" / "result.json").unlink()
    pixels = ImageDatabase(whole / "images.lmdb").read(IMAGES)
    files = sorted(path for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    survived, refused, lost = 0, 0, 0
    for number in range(count):
        folder = shop.folder / f"damaged{number}"
        shutil.copytree(whole, folder)
        file = folder / files[number % len(files)].relative_to(whole)
        file.write_bytes(damaged(random.Random(number), file.read_bytes()))

        def resumed(folder: Path = folder) -> None:
            train(Settings.from_values(_moved(shop, folder)))
            assert np.array_equal(ImageDatabase(folder / "images.lmdb").read(IMAGES), pixels)

        code, printed = outcome(resumed)
        fault = "" if code in (0, 2) and "Traceback" not in printed else f"exit code {code}\n{printed}"
        if code == 0 and not fault:
            state = load_file(folder / "run" / "last.safetensors")
            same = all(torch.equal(state[name], values) for name, values in shop.unbroken.items())
            fault = "" if same else f"other weights than those of the unbroken run\n{printed}"
            at = re.search(r"resuming at epoch (\d+), step (\d+)", printed)
            lost = max(lost, STEPS - ((int(at[1]) - 1) * STEPS + int(at[2]) if at else 0))
        survived, refused = survived + (not fault), refused + (code == 2)
        if fault:
            print(f"damaged {file.relative_to(folder)}, number {number}: {fault}", flush=True)
        shutil.rmtree(folder)
    return count, survived, f"{lost} steps; {refused} named the file and the cause"


def _moved(shop: Shop, folder: Path) -> dict[str, Any]:
    paths = {"users": "users.tsv", "items": "items.tsv", "backbone": "backbone", "cache_folder": "cache"}
    return (
        shop.values("")
        | {name: folder / file for name, file in paths.items()}
        | {"run_folder": folder / "run"}
    )


def _with_images(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    chance = np.random.default_rng(0)
    for name in IMAGES:
        pixels = chance.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name.decode()}.png")
    (folder / "images.tsv").write_text("".join(f"{name.decode()}\n" for name in IMAGES))
    into, images = folder / "images.lmdb", folder / "images"
    build(ImageLmdbSettings(items=folder / "images.tsv", images=images, into=into, size=16, workers=1))
    shutil.rmtree(images)
