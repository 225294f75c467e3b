"""A study of real data: does adaptation work? Made for nine minutes of one GPU.

    python -m benchmarks.gpu_study --data FOLDER --minutes 9 --jobs 8

FOLDER has the two domains, ``Scientific`` (source) and ``Instruments`` (target), each with ``users.tsv`` and
``items.tsv``. The most important runs come first, several at a time. A second call resumes: finished runs
are not repeated, and interrupted ones continue with their last checkpoint. On a CPU the same runs take
hours: ``--minutes 600 --jobs 2 --epochs 6 --source-factors 1``.

``python -m adapter4rec.report FOLDER/ledger.jsonl`` makes the tables, with FOLDER that of ``--into``: rows
are compared with full fine-tuning.

The source model is a head, then all weights from that head. On the target, full fine-tuning starts from the
source model; adapters start from the head that was adapted to the target, on cached states, in minutes
(linear probing, then fine-tuning: Kumar et al., ICLR 2022). "Houlsby, directly" starts from the source model.

The learning rates of each method are searched on a fifth of the target's users, with one seed, by
validation. All rates of a method are multiplied by the same factor, in steps of about three, until those
next to the best one are known. For all users they are searched on all users: those of heads and ids in the
same way, the others with the two best factors of a fifth and lower ones.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from subprocess import DEVNULL, STDOUT

from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.processes import start
from adapter4rec.utils.settings import as_arguments
from benchmarks.gpu_study_runs import Study, Task


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
    _running: set[str] = field(default_factory=set)
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
                    self._running.add(task.folder)
                elif not self._running:
                    return
            if task is None:
                time.sleep(1)  # a running task may make others possible
                continue
            code = self._run(task)
            with self._lock:
                self._running.remove(task.folder)
                self._say(task, code)

    def _is_open(self, task: Task) -> bool:
        wanted = any(fnmatch(task.name, pattern) for pattern in self.only)
        return wanted and task.folder not in self.study.results and task.folder not in self._started

    def _run(self, task: Task) -> int:
        """Run a task and return its exit code."""
        folder = self.study.into / task.folder
        folder.mkdir(parents=True, exist_ok=True)
        settings = task.settings | {
            "run_folder": folder,
            "ledger": self.study.into / "ledger.jsonl",
            "resume": True,
        }
        with (self.study.into / f"{task.folder}.txt").open("a") as output:
            command = [sys.executable, "-m", task.module, *as_arguments(settings)]
            child = start(command, cwd=REPOSITORY, stdin=DEVNULL, stdout=output, stderr=STDOUT)
            while child.poll() is None:
                if time.monotonic() > self.ends:
                    child.terminate()  # it saves its state and ends
                    child.wait()
                time.sleep(0.2)
        return child.returncode

    def _say(self, task: Task, code: int) -> None:
        self.study.read()
        self.study.write_plan()
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
    parser.add_argument("--loss", default="in_batch", help="loss of all rows but heads and ids (in_batch)")
    parser.add_argument("--minutes", type=float, default=9, help="stop after this time (9)")
    parser.add_argument("--jobs", type=int, default=8, help="runs at a time (8)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each run (1)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of other rows than heads and ids (10)")
    parser.add_argument(
        "--source-factors", type=float, nargs="+", default=[1, 3], help="factors of the source's rates (1 3)"
    )
    parser.add_argument("--source", type=Path, help="source model of the target's rows; default: train it")
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
        "evaluation_precision": "bf16",
        "k": "5,10,20",
        "seed": 1,
    }
    source = how.source and how.source.absolute()
    if source and not source.is_file():
        raise UserError(f"--source {how.source}: no such file")
    study = Study(how.data.absolute(), how.into.absolute(), common, tuple(how.source_factors), source)
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
