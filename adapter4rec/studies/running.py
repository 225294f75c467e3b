"""Executing runs in subprocesses, several in parallel. Failed runs are recorded and do not stop the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.runs.ledger import FINISHED, append, failed_record, read_ledger
from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies.plan import PlannedRun
from adapter4rec.utils import processes
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import as_argument

_POLL_SECONDS = 0.1
_LOG_TAIL_LINES = 12


@dataclass(frozen=True)
class _Started:
    """A run in progress."""

    run: PlannedRun[RunSettings]
    child: subprocess.Popen[bytes]
    log: Path
    at: float


class Runner:
    """Executes the runs of a study.

    Args:
        into: folder of the study, with its ledger and logs.
        jobs: number of runs in parallel.
        processes: number of processes per run.
        gpus: number of GPUs of the machine; parallel runs use different ones.

    Attributes:
        failed: names of the failed runs.
    """

    def __init__(self, into: Path, jobs: int, processes: int, gpus: int) -> None:
        self.into = into
        self.ledger = into / "ledger.jsonl"
        self.jobs = jobs
        self.processes = processes
        self.gpus = gpus
        self.failed: list[str] = []

    def finished(self) -> set[str]:
        """Keys of the finished runs in the ledger."""
        records = read_ledger(self.ledger) if self.ledger.exists() else []
        return {record["key"] for record in records if record["outcome"] == FINISHED}

    def carry_out(self, runs: Sequence[PlannedRun[RunSettings]]) -> None:
        """Execute runs, ``jobs`` of them in parallel.

        Raises:
            KeyboardInterrupt: the study or one of its runs was interrupted. All runs have ended by then.
        """
        waiting = deque(runs)
        running: dict[int, _Started] = {}
        try:
            while waiting or running:
                for slot in range(self.jobs):
                    if waiting and slot not in running:
                        running[slot] = self._start(waiting.popleft(), slot)
                time.sleep(_POLL_SECONDS)
                for slot, one in list(running.items()):
                    code = one.child.poll()
                    if code is not None:
                        del running[slot]
                        self._end(one, processes.exit_code(code))
        finally:
            for one in running.values():
                one.child.terminate()  # safe at any time: runs write files atomically
            for one in running.values():
                one.child.wait()
                _print(f"stopped  {one.run.name}")

    def _start(self, run: PlannedRun[RunSettings], slot: int) -> _Started:
        log = self.into / "logs" / f"{run.folder.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        _print(f"started  {run.name}  ({log})")
        with log.open("ab") as file:
            child = processes.start(
                command_of_run(run, self.processes, self.ledger),
                cwd=REPOSITORY,
                env=self._environment(slot),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return _Started(run, child, log, time.monotonic())

    def _end(self, one: _Started, code: int) -> None:
        """Report a run that has ended, and record it if it failed."""
        if code in processes.INTERRUPTED_CODES:
            _print(f"stopped  {one.run.name}")
            raise KeyboardInterrupt
        took = f"{time.monotonic() - one.at:,.0f} s"
        if code == 0 and one.run.key in self.finished():
            _print(f"finished {one.run.name}, {took}")
            return
        message = "\n".join(one.log.read_text("utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])
        if code == 0:
            message = (
                f"the ledger record differs from the planned run: {one.run.folder} contains a run with more "
                "epochs, or an input file has changed during the run; remove the folder to train again"
            )
        self.failed.append(one.run.name)
        append(self.ledger, failed_record(one.run.folder, one.run.settings, code, message))
        _print(f"FAILED   {one.run.name}, exit code {code}, {took}:\n{message}")

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


def command_of_run(planned: PlannedRun[RunSettings], processes: int, ledger: Path) -> list[str]:
    """The command that executes a run and records it in the study's ledger."""
    values = planned.settings.plain() | {"ledger": str(ledger)}
    arguments = [part for name, value in values.items() for part in (f"--{name}", as_argument(value))]
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return [*start, planned.settings.module, *arguments]


def _print(text: str) -> None:
    print(f"{time.strftime('%H:%M')} {text}", flush=True)
