"""The study of real data in ``docs/results.md``: does adaptation work? Made for nine minutes of one GPU.

    python -m benchmarks.gpu_study --data FOLDER --minutes 9 --jobs 8

FOLDER has the two domains, ``Scientific`` (source) and ``Instruments`` (target), each with ``users.tsv`` and
``items.tsv``. The most important runs come first, several at a time. A second call resumes: finished runs
are not repeated, and interrupted ones continue with their last checkpoint. On a CPU the same runs take
hours: ``--minutes 600 --jobs 1 --threads 2 --source-factors 1``.

The learning rates of each method are searched on a fifth of the target's users, with one seed, by
validation. All rates of a method are multiplied by the same factor.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

from adapter4rec.runs.ledger import FINISHED, read_ledger
from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.processes import start
from adapter4rec.utils.settings import as_argument

Values = dict[str, Any]

FACTORS = (1.0, 0.3, 3.0)
"""Factors of the learning rates that are tried."""
SEEDS = (1, 2, 3)
FEW, FEWER = 0.2, 0.05
"""Shares of the target's 10,000 users: 2,000, also for the search of rates, and 500."""

_ALL = {"lr_backbone": 1e-4, "lr_item_head": 1e-3, "lr_user_encoder": 1e-3}
_HEAD = {"lr_item_head": 1e-3, "lr_user_encoder": 1e-3}
_HOULSBY = {"method": "houlsby", "lr_adapter": 1e-3}

METHODS: dict[str, Values] = {
    "popularity": {"method": "popularity"},
    "head": {"method": "head"} | _HEAD,
    "id tower": {"method": "id", "lr_item_head": 1e-2, "lr_user_encoder": 1e-3},
    "full fine-tuning": {"method": "finetune"} | _ALL,
    "Houlsby": _HOULSBY,
    "from scratch": {"method": "scratch"} | _ALL,
    "LoRA": {"method": "lora", "lr_adapter": 3e-3},
}
"""Rows of three seeds; the backbone and the user encoder are adapted unless the method says otherwise."""
SINGLE: dict[str, Values] = {
    "frozen": {"method": "frozen"},
    "Houlsby, head trained": _HOULSBY | {"train_head": True, "lr_item_head": 1e-3},
    "Pfeiffer": {"method": "pfeiffer", "lr_adapter": 1e-3},
    "Compacter": {"method": "compacter", "lr_adapter": 4e-3, "lr_rule": 1e-3},
    "K-Adapter": {"method": "k_adapter", "item_inner": 192, "cache_frozen": True}
    | {"lr_adapter": 1e-4, "lr_item_join": 5e-4, "lr_user_join": 1e-3},
    "BitFit": {"method": "bitfit", "lr_adapter": 1e-3},
    "full fine-tuning, bce": {"method": "finetune", "loss": "bce"} | _ALL,
    "Houlsby, bce": _HOULSBY | {"loss": "bce"},
    "Houlsby, item encoder": _HOULSBY | {"encoders": "item"},
    "Houlsby, user encoder": _HOULSBY | {"encoders": "user"},
}
"""Rows of one seed, in the order of their importance."""
LOW_DATA = ("head", "from scratch", "full fine-tuning", "Houlsby", "LoRA")
TRAINED = {
    name: values
    for name, values in (METHODS | SINGLE).items()
    if values["method"] not in ("popularity", "frozen") and "," not in name
}
"""Rows whose learning rates are searched; "Houlsby, …" has those of Houlsby."""
_WITHOUT_SOURCE = ("popularity", "id tower", "from scratch")


@dataclass(frozen=True)
class Task:
    """One run: a name, the module of its tree, and its settings."""

    name: str
    module: str
    settings: Values

    @property
    def folder(self) -> str:
        """Name of the run folder."""
        return self.name.replace(",", "").replace(" ", "_")


@dataclass
class Study:
    """The runs of the study, as far as they are known from the results so far.

    Attributes:
        data: folder of the two domains.
        into: folder of the runs and of the ledger.
        common: settings of every run.
        source_factors: factors of the source's learning rates that are tried.
    """

    data: Path
    into: Path
    common: Values
    source_factors: tuple[float, ...] = FACTORS
    results: dict[str, Any] = field(default_factory=dict)

    def read(self) -> None:
        """Read the results of the finished runs."""
        ledger = self.into / "ledger.jsonl"
        records = read_ledger(ledger) if ledger.is_file() else []
        self.results = {one["name"]: one for one in records if one["outcome"] == FINISHED}

    def tasks(self) -> Iterator[Task]:
        """All runs that can be named now, the most important first."""
        yield from (self.source("head", {"method": "head"} | _HEAD), self.plain_head(1))
        sources = [
            self.source(f"all x{factor}", {"method": "all"} | _scaled(_ALL, factor))
            for factor in self.source_factors
        ]
        yield from sources
        best = self.best(sources)
        yield from self.searches(best)
        for seed in SEEDS:
            yield self.plain_head(seed)
            for name, values in METHODS.items():
                yield from self.target(name, values, best, seed)
        for name, values in SINGLE.items():
            yield from self.target(name, values, best, SEEDS[0], rates_of=name.split(",")[0])
        for share in (FEWER, FEW):
            for seed in SEEDS:
                for name in LOW_DATA:
                    yield from self.target(name, METHODS[name], best, seed, share=share)
        yield from self.further(best)

    def searches(self, source: Task | None) -> Iterator[Task]:
        """The runs that search the learning rates of each method."""
        for name, values in TRAINED.items():
            for factor in FACTORS:
                yield from self.of(name, _scaled(values, factor), source, SEEDS[0], FEW, f" x{factor}")

    def further(self, source: Task | None) -> Iterator[Task]:
        """Larger batches, fractions of the source's users, and CPC: what a CPU does not reach."""
        for name in ("full fine-tuning", "Houlsby"):
            yield from self.target(name, METHODS[name] | {"batch_size": 256}, source, 1, note=" batch 256")
        others = [(f"users {share}", {"user_share": share}) for share in (0.25, 0.5)]
        for note, changed in [*others, ("cpc", {"objective": "cpc"})]:
            other = self.source(f"all {note}", {"method": "all"} | _ALL | changed)
            yield other
            same = {key: value for key, value in changed.items() if key == "objective"}
            for name in ("full fine-tuning", "Houlsby"):
                start_from = other if other.folder in self.results else None
                yield from self.target(name, METHODS[name] | same, start_from, 1, note=f" source {note}")

    def source(self, name: str, values: Values) -> Task:
        """A run on the source domain that exports its best epoch."""
        task = Task(f"source {name}", "Pretraining.Text.train", {})
        export = self.into / task.folder / "source.safetensors"
        return Task(task.name, task.module, self._of_domain("Scientific") | values | {"export": export})

    def plain_head(self, seed: int) -> Task:
        """The head on cached hidden states of the pretrained backbone, without a source model."""
        values = self._of_domain("Instruments") | {"method": "head", "seed": seed} | _HEAD
        return Task(f"target head without source seed{seed}", "Pretraining.Text.train", values)

    def target(
        self,
        name: str,
        values: Values,
        source: Task | None,
        seed: int,
        *,
        share: float = 1.0,
        note: str = "",
        rates_of: str | None = None,
    ) -> Iterator[Task]:
        """The run of a row with the best rates of its method, as soon as they are known."""
        method = rates_of or name
        factor = self.best_factor(method) if method in TRAINED else 1.0
        if factor is not None:
            yield from self.of(name, _scaled(values, factor), source, seed, share, f" x{factor}{note}")

    def of(
        self, name: str, values: Values, source: Task | None, seed: int, share: float, note: str
    ) -> Iterator[Task]:
        """A run on the target domain; none if it needs a source model that is not known yet."""
        start_from: Values = {}
        if name not in _WITHOUT_SOURCE:
            if source is None:
                return
            start_from = {"source_checkpoint": source.settings["export"]}
        settings = self._of_domain("Instruments") | values | start_from | {"seed": seed}
        if values["method"] != "popularity":
            settings["user_share"] = share
        yield Task(f"target {name} users {share}{note} seed{seed}", "Downstream.Text.train", settings)

    def best(self, tasks: list[Task]) -> Task | None:
        """The run with the highest validation HR@10; None before all have finished."""
        if any(task.folder not in self.results for task in tasks):
            return None
        return max(tasks, key=lambda task: self.results[task.folder]["validation"]["HR@10"])

    def best_factor(self, name: str) -> float | None:
        """The factor of a method's rates with the highest validation HR@10 in the search."""
        folder = f"target {name} users {FEW} x{{}} seed{SEEDS[0]}".replace(",", "").replace(" ", "_")
        found = {factor: self.results.get(folder.format(factor)) for factor in FACTORS}
        scores = {factor: one["validation"]["HR@10"] for factor, one in found.items() if one}
        return max(scores, key=scores.__getitem__) if len(scores) == len(FACTORS) else None

    def _of_domain(self, name: str) -> Values:
        users, items = self.data / name / "users.tsv", self.data / name / "items.tsv"
        return {"users": users, "items": items} | self.common


def _scaled(values: Mapping[str, Any], factor: float) -> Values:
    """Settings with all learning rates multiplied by a factor."""
    return {
        name: float(f"{value * factor:.3g}") if name.startswith("lr_") else value
        for name, value in values.items()
    }


@dataclass
class Pool:
    """Runs tasks, several at a time, until the time is over.

    Attributes:
        study: the study.
        only: patterns of the names of the runs.
        ends: when the time is over, in seconds of ``time.monotonic``.
    """

    study: Study
    only: list[str]
    ends: float
    _started: set[str] = field(default_factory=set)
    _running: list[Popen[Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self) -> None:
        """Carry out one task after the other, until there is none or the time is over."""
        while time.monotonic() < self.ends:
            with self._lock:
                self.study.read()
                open_tasks = (task for task in self.study.tasks() if self._is_open(task))
                task = next(open_tasks, None)
                if task is not None:
                    self._started.add(task.folder)
            if task is not None:
                self._run(task)
            elif self._running:
                time.sleep(1)  # a running task may make others possible
            else:
                return

    def _is_open(self, task: Task) -> bool:
        wanted = any(fnmatch(task.name, pattern) for pattern in self.only)
        return wanted and task.folder not in self.study.results and task.folder not in self._started

    def _run(self, task: Task) -> None:
        folder = self.study.into / task.folder
        folder.mkdir(parents=True, exist_ok=True)
        settings = task.settings | {
            "run_folder": folder,
            "ledger": self.study.into / "ledger.jsonl",
            "resume": True,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", as_argument(value))]
        with (self.study.into / f"{task.folder}.txt").open("a") as output:
            command = [sys.executable, "-m", task.module, *words]
            child = start(command, cwd=REPOSITORY, stdin=DEVNULL, stdout=output, stderr=STDOUT)
            self._running.append(child)
            while child.poll() is None:
                if time.monotonic() > self.ends:
                    child.terminate()  # it saves its state and ends
                    child.wait()
                time.sleep(0.2)
        self._running.remove(child)
        self._say(task, child.returncode)

    def _say(self, task: Task, code: int) -> None:
        with self._lock:
            self.study.read()
            result = self.study.results.get(task.folder)
            if result is None:
                print(f"{task.name}: ended with exit code {code}; see {task.folder}.txt", flush=True)
                return
            validation, test = (result[split]["HR@10"] for split in ("validation", "test"))
            print(
                f"{task.name}: epoch {result['best_epoch']}, HR@10 {validation:.2f} on validation, "
                f"{test:.2f} on test",
                flush=True,
            )


def main() -> None:
    """Carry out the study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with Scientific and Instruments")
    parser.add_argument("--into", type=Path, default=Path("runs/gpu_study"), help="folder of the runs")
    parser.add_argument("--backbone", default="minilm/all_minilm_l6_v2", help="text backbone")
    parser.add_argument("--loss", default="in_batch", help="training loss")
    parser.add_argument("--minutes", type=float, default=9, help="stop after this time (9)")
    parser.add_argument("--jobs", type=int, default=8, help="runs at a time (8)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each run (1)")
    parser.add_argument("--epochs", type=int, default=40, help="at most this number of epochs (40)")
    parser.add_argument(
        "--source-factors", type=float, nargs="+", default=FACTORS, help="factors of the source's rates"
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], help="patterns of names, such as 'target Houlsby*'"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs that are known now")
    how = parser.parse_args()
    common = {"backbone": how.backbone, "loss": how.loss, "epochs": how.epochs, "threads": how.threads}
    common |= {
        "title_tokens": 24,
        "pooling": "cls",
        "batch_size": 64,
        "patience": 4,
        "precision": "bf16",
        "k": "5,10,20",
        "seed": 1,
    }
    study = Study(how.data.absolute(), how.into.absolute(), common, tuple(how.source_factors))
    for domain in ("Scientific", "Instruments"):
        if not (study.data / domain / "users.tsv").is_file():
            raise UserError(f"--data {how.data}: no {domain}/users.tsv there")
    pool = Pool(study, how.only, time.monotonic() + 60 * how.minutes)
    if how.dry_run:
        study.read()
        for task in study.tasks():
            print("finished" if task.folder in study.results else "open    ", task.name)
        return
    with ThreadPoolExecutor(how.jobs) as workers:
        try:
            for worker in [workers.submit(pool.work) for _ in range(how.jobs)]:
                worker.result()
        finally:
            pool.ends = 0  # after Ctrl-C: end the running tasks, too


if __name__ == "__main__":
    run_main(main)
