"""Injecting faults: processes are killed at random moments. Files are in ``files.py``."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from adapter4rec.data.images import updating
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.database import ImageDatabase, pack, sources_in
from adapter4rec.data.images.updating import unfinished_folder
from adapter4rec.training import fit
from adapter4rec.training.step import train_step
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY
from Pretraining.Text.train import Settings, train

FORK = multiprocessing.get_context("fork")  # a process that is spawned imports torch for seconds
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "green", "house", "river", "snow"]
USERS, ITEMS, EPOCHS, STEPS = 60, 30, 12, 4


class Shop:
    """A small domain and backbone, and the state of an unbroken training on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        chance = np.random.default_rng(0)
        titles = (" ".join(chance.choice(WORDS[5:], 4)) for _ in range(ITEMS))
        clicks = (" ".join(f"i{item}" for item in chance.integers(0, ITEMS, 9)) for _ in range(USERS))
        (folder / "items.tsv").write_text("".join(f"i{n}\t{title}\n" for n, title in enumerate(titles)))
        (folder / "users.tsv").write_text("".join(f"u{n}\t{names}\n" for n, names in enumerate(clicks)))
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder / "backbone")
        (folder / "backbone" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        self.unbroken = self.finished("unbroken")

    def values(self, name: str, **changes: Any) -> dict[str, Any]:
        """Settings of a run that saves after each step."""
        paths = {"users": self.folder / "users.tsv", "items": self.folder / "items.tsv"}
        paths |= {"backbone": self.folder / "backbone", "cache_folder": self.folder / "cache"}
        sizes = {"max_seq_len": 8, "embedding_dim": 16, "batch_size": 16, "epochs": EPOCHS, "eval_every": 10}
        how = {"device": "cpu", "precision": "fp32", "save_minutes": 1e-9, "resume": True, "threads": 1}
        return {**paths, **sizes, **how, "run_folder": self.folder / name, **changes}

    def finished(self, name: str) -> dict[str, torch.Tensor]:
        """The last state of a run, after it has been carried out or resumed."""
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            train(Settings.from_values(self.values(name)))
        return load_file(self.folder / name / "last.safetensors")

    def equals_unbroken(self, name: str) -> bool:
        """Whether a run, resumed to its end, is bit for bit the unbroken one and leaves nothing behind."""
        state = self.finished(name)
        same = state.keys() == self.unbroken.keys()
        same = same and all(torch.equal(state[key], self.unbroken[key]) for key in state)
        return same and not list((self.folder / name).glob(".*.part"))

    def saved_steps(self, name: str) -> int:
        """Steps that the saved state of a run has taken."""
        states = (self.folder / name / f"{state}.json" for state in ("last", "previous"))
        return max(((epoch - 1) * STEPS + step for epoch, step in map(_progress, states)), default=0)

    def age_of_state(self, name: str) -> float:
        """Seconds since a run has saved its state."""
        states = [self.folder / name / f"{state}.safetensors" for state in ("last", "previous")]
        return time.time() - max((path.stat().st_mtime for path in states if path.exists()), default=np.inf)


def started(action: Callable[[], Any], output: int) -> multiprocessing.process.BaseProcess:
    """A child process that carries out ``action`` and prints to the descriptor ``output``."""

    def carry_out() -> None:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        run_main(action)

    child = FORK.Process(target=carry_out)
    child.start()
    return child


def killed_at_random(action: Callable[[], Any], output: Path, most_seconds: float) -> bool:
    """Kill a child process at a random moment. Returns False if it has ended before."""
    with output.open("a") as file:
        child = started(action, file.fileno())
    child.join(random.uniform(0, most_seconds))
    killed = child.is_alive()
    child.kill()
    child.join()
    return killed


def killed_trainings(shop: Shop, count: int) -> tuple[int, int, str]:
    """Kill trainings until it has happened ``count`` times, and resume them."""
    kills, survived, runs, lost = 0, 0, 0, 0
    taken = FORK.Value("q", 0)  # steps of the run, by whichever process
    while kills < count:
        name, before = f"killed{runs}", kills
        action = partial(train_counting_steps, Settings.from_values(shop.values(name)), taken)
        taken.value = 0
        while kills < count and killed_at_random(action, shop.folder / "out", 3):
            kills += 1
            lost = max(lost, taken.value - shop.saved_steps(name))
        survived += (kills - before) * shop.equals_unbroken(name)
        runs += 1
    return kills, survived, f"{lost} steps, saved after each"


def train_counting_steps(settings: Settings, taken: Any) -> None:
    def counted(setup: Any, batch: Any, at: tuple[int, int, int], rate: float) -> float:
        loss = train_step(setup, batch, at, rate)
        taken.value = (at[1] - 1) * STEPS + at[2] + 1
        return loss

    fit.train_step = counted  # in this child process only
    train(settings)


def killed_lmdb_builds(shop: Shop, count: int) -> tuple[int, int, str]:
    """Kill builds of an LMDB until it has happened ``count`` times, and resume them."""
    images = shop.folder / "images"
    images.mkdir()
    chance = np.random.default_rng(0)
    names = [f"i{number}" for number in range(600)]
    for name in names:
        Image.fromarray(chance.integers(0, 256, (80, 80, 3), np.uint8)).save(images / f"{name}.png")
    (shop.folder / "images.tsv").write_text("".join(f"{name}\n" for name in names))

    def settings(name: str) -> ImageLmdbSettings:
        into = shop.folder / f"{name}.lmdb"
        return ImageLmdbSettings(
            items=shop.folder / "images.tsv", images=images, into=into, size=64, workers=1
        )

    whole, kills, survived, runs, lost = build(settings("whole")).content, 0, 0, 0, 0
    decoded = FORK.Value("q", 0)  # images of the build, by whichever process
    while kills < count:
        one, before = settings(f"killed{runs}"), kills
        decoded.value = 0
        action = partial(_build_counting_images, one, decoded)
        while kills < count and killed_at_random(action, shop.folder / "out", 0.5):
            kills += 1
            stored = _images_stored(one.into)
            lost = max(lost, decoded.value - stored)
            decoded.value = stored
        build(one)
        database = ImageDatabase(one.into)
        same = database.description.content == whole and len(database.read([b"i0", b"i599"])) == 2
        survived += (kills - before) * same
        runs += 1
    return kills, survived, f"{lost} images, decoded and not yet stored"


def _build_counting_images(settings: ImageLmdbSettings, decoded: Any) -> None:
    def counted(name: bytes, pixels: bytes) -> bytes:
        decoded.value += 1
        return pack(name, pixels)

    updating.pack = counted  # in this child process only
    build(settings)


def _images_stored(into: Path) -> int:
    """Images that an interrupted build has stored."""
    folder = into if into.exists() else unfinished_folder(into)
    try:
        with lmdb.open(str(folder), readonly=True, create=False, lock=False, max_dbs=1) as environment:
            return len(sources_in(environment))
    except lmdb.Error:  # nothing has been stored
        return 0


def killed_processes_of_two(shop: Shop, count: int) -> tuple[int, int, str]:
    """Kill one of two processes ``count`` times; the launcher restarts both from the last checkpoint."""
    values = shop.values("two", export="none", epochs=100_000)
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    launcher = REPOSITORY / "Pretraining" / "Text" / "script" / "sm_base_sasrec.py"
    command = [sys.executable, str(launcher), *words, "--processes", "2", "--restarts", str(count)]
    output, survived, lost, before = shop.folder / "two.txt", 0, 0.0, (0, -1)
    with output.open("w") as file:
        program = subprocess.Popen(command, cwd=REPOSITORY, stdout=file, stderr=subprocess.STDOUT)
        for number in range(count):
            resumed = _progress_after(output, shop.folder / "two", number, program)
            survived += resumed > before
            before = resumed
            time.sleep(random.uniform(0, 1))
            os.kill(_worker(number % 2, shop.folder / "two"), signal.SIGKILL)
            lost = max(lost, shop.age_of_state("two"))
        last = _progress_after(output, shop.folder / "two", count, program)
        program.send_signal(signal.SIGTERM)
        code = program.wait(timeout=120)
    # The first wait was for the start of the run, which is no fault.
    survived += (last > before and code == 128 + signal.SIGTERM) - 1
    return count, survived, f"{lost:.1f} s of training"


def _progress_after(output: Path, run: Path, restarts: int, program: subprocess.Popen) -> tuple[int, int]:
    """Epoch and step at which a run has resumed after some restarts, once it has saved again."""
    until = time.monotonic() + 180
    while time.monotonic() < until and program.poll() is None:
        found = re.findall(r"resuming at epoch (\d+), step (\d+)", output.read_text())
        begun = "trained parameters" in output.read_text() if restarts == 0 else len(found) >= restarts
        if begun and (run / "last.json").exists():
            at = tuple(map(int, found[-1])) if found else (0, 0)
            progress = _progress(run / "last.json")
            if progress > at:
                return at
        time.sleep(0.05)
    return (0, -1)


def _progress(path: Path) -> tuple[int, int]:
    try:
        progress = json.loads(path.read_text())["record"]["progress"]
    except (OSError, ValueError):  # it is just being replaced
        return (1, 0)
    return progress["epoch"], progress["step"]


def _worker(rank: int, run: Path) -> int:
    """The pid of a process of a run."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().decode(errors="replace")
            variables = (path / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if str(run) in line and f"RANK={rank}" in variables:
            return int(path.name)
    raise RuntimeError(f"rank {rank} of {run} is not running")
