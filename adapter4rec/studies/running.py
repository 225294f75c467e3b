"""Executing runs in subprocesses, several in parallel. Failed runs are recorded and do not stop the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapter4rec.runs.ledger import append, failed_record, finished_runs
from adapter4rec.studies.plan import PlannedRun
from adapter4rec.utils import processes
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import as_arguments

_POLL_SECONDS = 0.1
_LOG_TAIL_LINES = 12


@dataclass(frozen=True)
class Runner:
    """Executes the runs of a study.

    Attributes:
        ledger: ledger of the study; logs are written to ``logs/`` next to it.
        jobs: number of runs in parallel.
        processes: number of processes per run.
        gpus: number of GPUs of the machine; parallel runs use different ones.
        failed: names of the failed runs.
    """

    ledger: Path
    jobs: int
    processes: int
    gpus: int
    failed: list[str] = field(default_factory=list)

    def carry_out(self, runs: Sequence[PlannedRun]) -> None:
        """Execute runs, ``jobs`` of them in parallel.

        Raises:
            KeyboardInterrupt: the study or one of its runs was interrupted. All runs have ended by then.
        """
        waiting = deque(runs)
        running: dict[int, tuple[PlannedRun, subprocess.Popen[bytes], float]] = {}
        try:
            while waiting or running:
                for slot in range(self.jobs):
                    if waiting and slot not in running:
                        run = waiting.popleft()
                        running[slot] = run, self._start(run, slot), time.monotonic()
                time.sleep(_POLL_SECONDS)
                for slot, (run, child, start) in list(running.items()):
                    code = child.poll()
                    if code is not None:
                        del running[slot]
                        self._end(run, processes.exit_code(code), f"{time.monotonic() - start:,.0f} s")
        finally:
            for _, child, _ in running.values():
                child.terminate()  # safe at any time: runs write files atomically
            for run, child, _ in running.values():
                child.wait()
                _print(f"stopped  {run.name}")

    def _log(self, run: PlannedRun) -> Path:
        return self.ledger.parent / "logs" / f"{run.folder.name}.txt"

    def _start(self, run: PlannedRun, slot: int) -> subprocess.Popen[bytes]:
        log = self._log(run)
        log.parent.mkdir(parents=True, exist_ok=True)
        _print(f"started  {run.name}  ({log})")
        with log.open("ab") as file:
            return processes.start(
                command_of_run(run, self.processes, self.ledger),
                cwd=REPOSITORY,
                env=self._environment(slot),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def _end(self, run: PlannedRun, code: int, took: str) -> None:
        """Report a run that has ended, and record it if it failed."""
        if code in processes.INTERRUPTED_CODES:
            _print(f"stopped  {run.name}")
            raise KeyboardInterrupt
        if code == 0 and run.key in finished_runs(self.ledger):
            _print(f"finished {run.name}, {took}")
            return
        message = "\n".join(
            self._log(run).read_text("utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        )
        if code == 0:
            message = (
                f"the ledger record differs from the planned run: {run.folder} contains a run with more "
                "epochs, or an input file has changed during the run; remove the folder to train again"
            )
        self.failed.append(run.name)
        append(self.ledger, failed_record(run.folder, run.settings, run.key, code, message))
        _print(f"FAILED   {run.name}, exit code {code}, {took}:\n{message}")

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


def command_of_run(planned: PlannedRun, processes: int, ledger: Path) -> list[str]:
    """The command that executes a run and records it in the study's ledger."""
    arguments = as_arguments(planned.settings.plain() | {"ledger": ledger})
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    return [*start, planned.settings.module, *arguments]


def _print(text: str) -> None:
    print(f"{time.strftime('%H:%M')} {text}", flush=True)
