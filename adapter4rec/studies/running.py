"""Executing runs in subprocesses, several in parallel. Failed runs are recorded and do not stop the rest."""

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

_LOG_TAIL_LINES = 12


@dataclass
class Runner:
    """Executes the runs of a study.

    Attributes:
        ledger: ledger of the study.
        logs: folder of the log files.
        jobs: number of runs in parallel.
        processes: number of processes per run.
        gpus: number of GPUs of the machine; parallel runs use different ones.
        failed: names of the failed runs.
        done: number of runs that have ended.
        total: number of runs, for progress messages.
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
        self._print_lock = threading.Lock()
        self._slots: Queue[int] = Queue()
        for slot in range(self.jobs):
            self._slots.put(slot)

    def finished(self) -> set[str]:
        """Keys of the finished runs in the ledger."""
        records = read_ledger(self.ledger) if self.ledger.exists() else []
        return {key for key, record in latest(records).items() if record["outcome"] == FINISHED}

    def carry_out(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Execute tasks that call :meth:`run`, ``jobs`` in parallel.

        Raises:
            KeyboardInterrupt: the study or one of its runs was interrupted. All runs have ended by then.
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
            child.terminate()  # safe at any time: runs write files atomically

    def run(self, planned: PlannedRun) -> bool:
        """Execute a run. Returns whether it finished."""
        if self._stopping.is_set():
            return False
        slot = self._slots.get()
        started = time.monotonic()
        log = self.logs / f"{planned.folder.name}.txt"
        try:
            self._print(f"started  {planned.name}  ({log})")
            code = self._execute(planned, slot, log)
        finally:
            self._slots.put(slot)
        if self._stopping.is_set() or code in processes.INTERRUPTED_CODES:
            self._stopping.set()
            self._print(f"stopped  {planned.name}")
            return False
        took = f"{time.monotonic() - started:,.0f} s"
        self.done += 1
        message = "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])
        if code == 0 and planned.key in self.finished():
            self._print(f"finished {planned.name}, {took}")
            return True
        if code == 0:
            message = (
                f"the ledger record differs from the planned run: {planned.folder} contains a run with more "
                "epochs, or an input file has changed during the run; remove the folder to train again"
            )
        self.failed.append(planned.name)
        append(self.ledger, failed_record(planned.folder, planned.settings, code, message))
        self._print(f"FAILED   {planned.name}, exit code {code}, {took}:\n{_indented(message)}")
        return False

    def _execute(self, planned: PlannedRun, slot: int, log: Path) -> int:
        """Execute a run with its output in a log file. Returns the exit code."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            child = processes.start(
                command_of_run(planned, self.processes, self.ledger),
                cwd=REPOSITORY,
                env=self._environment(slot),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            self._children.add(child)
            if self._stopping.is_set():  # set before the child was registered
                child.terminate()
            try:
                return processes.exit_code(child.wait())
            finally:
                self._children.discard(child)

    def _environment(self, slot: int) -> dict[str, str]:
        """Environment of a run, so that parallel runs share neither GPUs nor cores."""
        environment = processes.child_environment()
        if self.jobs > 1 and self.gpus:
            visible = environment.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",") if visible else [str(gpu) for gpu in range(self.gpus)]
            first = slot * self.processes
            mine = [names[gpu % self.gpus] for gpu in range(first, first + self.processes)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(mine))
        if self.jobs * self.processes > 1:
            threads = max(1, (os.cpu_count() or 1) // (self.jobs * self.processes))
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        return environment

    def _print(self, text: str) -> None:
        with self._print_lock:
            print(f"{time.strftime('%H:%M')} {self.done:>3}/{self.total} {text}", flush=True)


def command_of_run(planned: PlannedRun, processes: int, ledger: Path) -> list[str]:
    """The command that executes a run and records it in the study's ledger."""
    values = planned.settings.plain() | {"ledger": str(ledger)}
    arguments = [part for name, value in values.items() for part in (f"--{name}", as_argument(value))]
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return [*start, planned.module, *arguments]


def exit_code(failed: Sequence[str]) -> int:
    """Exit code of a study: 0 if no run has failed."""
    return EXIT_USER_ERROR if failed else 0


def _indented(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
