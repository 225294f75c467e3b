"""Carrying out runs, several at once, in processes of their own; what fails is recorded and passed over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue

from adapter4rec.runs.ledger import FINISHED, append, failed_record, latest, read_ledger
from adapter4rec.studies.plan import PlannedRun
from adapter4rec.utils import processes
from adapter4rec.utils.errors import EXIT_USER_ERROR
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import as_argument

_LAST_LINES = 12


@dataclass
class Runner:
    """Carries out a study's runs.

    Attributes:
        ledger: where each leaves its line.
        logs: the folder of what they print.
        jobs: how many at once.
        processes: of each.
        gpus: how many the machine has; each run is given its own.
    """

    ledger: Path
    logs: Path
    jobs: int
    processes: int
    gpus: int
    failed: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        self._children: set[subprocess.Popen] = set()
        self._stopping = threading.Event()
        self._speaking = threading.Lock()
        self._places: Queue[int] = Queue()
        for place in range(self.jobs):
            self._places.put(place)

    def finished(self) -> set[str]:
        """Keys of the runs that the ledger has as finished."""
        records = read_ledger(self.ledger) if self.ledger.exists() else []
        return {key for key, record in latest(records).items() if record["outcome"] == FINISHED}

    def carry_out(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Carry out tasks that call :meth:`run`, ``jobs`` at once.

        Raises:
            KeyboardInterrupt: the study or one of its runs was interrupted; all runs have ended.
        """
        pool = ThreadPoolExecutor(self.jobs)
        try:
            for future in [pool.submit(task) for task in tasks]:
                future.result()
        except BaseException:
            self._stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if self._stopping.is_set():
            raise KeyboardInterrupt

    def _stop(self) -> None:
        self._stopping.set()
        for child in list(self._children):
            child.terminate()  # files are written whole, so that it may end at any time

    def run(self, planned: PlannedRun) -> bool:
        """Carry out a run; whether it finished."""
        if self._stopping.is_set():
            return False
        place = self._places.get()
        started = time.monotonic()
        log = self.logs / f"{planned.folder.name}.txt"
        try:
            self._say(f"begins   {planned.name}  ({log})")
            code = self._code_of(planned, place, log)
        finally:
            self._places.put(place)
        if self._stopping.is_set() or code in processes.INTERRUPTED_CODES:
            self._stopping.set()
            self._say(f"stopped  {planned.name}")
            return False
        took = f"{time.monotonic() - started:,.0f} s"
        self.done += 1
        message = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-_LAST_LINES:])
        if code == 0 and planned.key in self.finished():
            self._say(f"finished {planned.name}, {took}")
            return True
        if code == 0:
            message = (
                f"what it left in the ledger is not what was asked for: {planned.folder} holds a training of "
                "more epochs, or a file that it reads was changed meanwhile; remove the folder to train anew"
            )
        self.failed.append(planned.name)
        append(self.ledger, failed_record(planned.folder, planned.settings, code, message))
        self._say(f"FAILED   {planned.name}, exit code {code}, {took}; its last words:\n{_indented(message)}")
        return False

    def _code_of(self, planned: PlannedRun, place: int, log: Path) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            child = processes.start(
                command_of_run(planned, self.processes, self.ledger),
                cwd=REPOSITORY,
                env=self._environment(place),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            self._children.add(child)
            if self._stopping.is_set():  # since it was looked at, and before the child could be seen
                child.terminate()
            try:
                return processes.exit_code(child.wait())
            finally:
                self._children.discard(child)

    def _environment(self, place: int) -> dict[str, str]:
        """Runs that go on at once share neither GPUs nor cores."""
        environment = processes.child_environment()
        if self.jobs > 1 and self.gpus:
            visible = environment.get("CUDA_VISIBLE_DEVICES")  # the study itself may be given some of them
            names = visible.split(",") if visible else [str(gpu) for gpu in range(self.gpus)]
            first = place * self.processes
            mine = [names[gpu % self.gpus] for gpu in range(first, first + self.processes)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        if self.jobs * self.processes > 1:
            threads = max(1, (os.cpu_count() or 1) // (self.jobs * self.processes))
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        return environment

    def _say(self, text: str) -> None:
        with self._speaking:
            print(f"{time.strftime('%H:%M')} {self.done:>3}/{self.total} {text}", flush=True)


def command_of_run(planned: PlannedRun, processes: int, ledger: Path) -> list[str]:
    """The command that carries out a run, whose line goes to the study's ledger."""
    values = planned.settings.plain() | {"ledger": str(ledger)}
    arguments = [part for name, value in values.items() for part in (f"--{name}", as_argument(value))]
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return [*start, planned.module, *arguments]


def exit_code(failed: Sequence[str]) -> int:
    """Of a study: 0 where all runs have finished."""
    return EXIT_USER_ERROR if failed else 0


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
