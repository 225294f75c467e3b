"""Launchers: run one experiment, or a sweep, from hyperparameters in a script.

``launch`` merges the hyperparameters of the script with the command line and expands lists into all
combinations. It prints and executes the command of each run, with torchrun if it uses several processes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from adapter4rec.runs.records import Record
from adapter4rec.runs.settings import RunSettings
from adapter4rec.utils import processes
from adapter4rec.utils.command_line import Swept, from_script, options_for, parse_command_line, single_values
from adapter4rec.utils.errors import EXIT_USER_ERROR, UserError, message_of, run_main
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.machine import gpu_count
from adapter4rec.utils.settings import Settings, Values, as_argument, as_arguments, option, options_of

_OUTPUTS = ("run_folder", "export")
"""Settings that name outputs of a run; runs of a sweep must not share them."""


_LOOPBACK = ("127.0.0.1", "localhost")
_RENDEZVOUS_SECONDS = 300
"""Time in which a machine waits for the first one."""
_OUT_OF_MEMORY = (
    ", probably because memory ran out (--workers, --prefetch, --batch_size and --processes lower its use)"
)


@dataclass(frozen=True)
class LaunchSettings(Settings):
    """Launcher."""

    processes: int | None = option(
        None, "processes on this machine; default: one per GPU, or 1 with --device cpu or cuda:N", least=1
    )
    nodes: int = option(1, "number of machines", least=1)
    node_rank: int = option(0, "index of this machine, from 0", least=0)
    master_address: str = option("127.0.0.1", "address of the first machine")
    port: int | None = option(
        None, "rendezvous port; default: a free one, or 29500 with --nodes", least=1, most=65535
    )
    restarts: int = option(
        0, "restarts of all processes from the last checkpoint after one has failed", least=0
    )
    dry_run: bool = option(False, "print the commands without running them")


_SWEEP = "Several values of an option, separated by spaces, are a sweep: one run for each combination."


def launch(module: str, inline: Mapping[str, Any]) -> NoReturn:
    """Execute the runs of a launcher and exit with the first non-zero exit code, or 0.

    Args:
        module: the training module, as ``Downstream.Text.train``; its ``Settings`` define the options.
        inline: hyperparameters of the launcher. Lists are swept; paths are relative to the repository.
    """
    run_main(lambda: _launch(module, inline, sys.argv[1:]))


def _launch(module: str, inline: Mapping[str, Any], arguments: Sequence[str]) -> int:
    cls = import_module(module).Settings
    launch_options = options_of(LaunchSettings)
    page = from_script(inline, options_for(cls, (), inline) | launch_options)
    known = options_for(cls, arguments, inline) | launch_options
    given = parse_command_line(arguments, known, f"{cls.__doc__} {_SWEEP}", inline)
    swept = {name: value if isinstance(value, list) else [value] for name, value in page.items()} | given
    for name, values in swept.items():
        if not values:
            raise UserError(f"{name}: the list is empty, nothing to run")
    how = LaunchSettings.from_values(
        single_values({name: swept.pop(name) for name in launch_options if name in swept})
    )
    if how.node_rank >= how.nodes:
        raise UserError(f"--node_rank {how.node_rank}: must be less than --nodes {how.nodes}")
    runs = _runs(cls, swept, given)
    folder = Path.cwd()
    if len(runs) == 1:
        return _execute(module, runs[0], how, folder)
    codes = []
    for number, settings in enumerate(runs, 1):
        print(f"run {number} of {len(runs)}", flush=True)
        try:
            codes.append(_execute(module, settings, how, folder))
        except UserError as error:  # the other runs may finish
            print(f"error: {message_of(error)}", file=sys.stderr, flush=True)
            codes.append(EXIT_USER_ERROR)
    if 0 in codes and not how.dry_run:
        _print_sweep([cls.from_values(one) for one in runs], [name for name in swept if len(swept[name]) > 1])
    return next((code for code in codes if code), 0)


def _print_sweep(runs: Sequence[RunSettings], swept: Sequence[str]) -> None:
    """Print a table of the runs, mark the best by validation HR@10, and draw its recommendations."""
    from adapter4rec.report.rendering import aligned

    records = [_record_of(one) for one in runs]
    best = max((record["validation"]["HR@10"] for record in records if record), default=None)
    rows = []
    for settings, record in zip(runs, records, strict=True):
        plain = settings.plain()
        cells = [as_argument(plain[name]) if name in plain else "-" for name in swept]
        if record is None:
            rows.append((*cells, "-", "-", "-", "no result"))
            continue
        validation, test = record["validation"]["HR@10"], record["test"]
        metrics = (f"{validation:.2f}", f"{test['HR@10']:.2f}", f"{test['NDCG@10']:.2f}")
        rows.append((*cells, *metrics, "best" if validation == best else ""))
    if best is not None:
        head = (*swept, "validation HR@10", "test HR@10", "test NDCG@10", "")
        print(f"\n{aligned(head, rows)}")
        from adapter4rec.studies.launching import draw_examples

        if sheet := draw_examples([record for record in records if record]):
            print(f"recommendations of the best run on images: {sheet}")


def _record_of(settings: RunSettings) -> Record | None:
    """The record of a finished run; None if it has not finished, as when one of its files is missing."""
    from adapter4rec.runs.ledger import finished_runs, run_key

    finished = finished_runs(settings.ledger_path)
    try:
        return finished.get(run_key(settings)) if finished else None
    except UserError:
        return None


def _say(folder: Path, program: str, arguments: Sequence[str]) -> None:
    """Print a shell command that works in a folder and uses this environment.

    Args:
        folder: where the launcher was started.
        program: ``python`` or ``torchrun``, as long as the shell finds those of this environment.
        arguments: its arguments.
    """
    found, python = shutil.which(program), Path(sys.executable)
    words = [program]
    if found is None or Path(found).parent != python.parent:
        words = [str(python)] if program == "python" else [str(python), "-m", "torch.distributed.run"]
    command = shlex.join([*words, *arguments])
    print(
        command if folder == REPOSITORY else f"(cd {shlex.quote(str(REPOSITORY))} && {command})", flush=True
    )


def _runs(cls: type[Settings], swept: Swept, given: Collection[str]) -> list[Values]:
    """The validated settings of each run.

    Settings that only the launcher's script sets are ignored by methods that do not have them.
    """
    runs: list[Values] = []
    seen: list[Values] = []
    for combination in product(*swept.values()):
        values = dict(zip(swept, combination, strict=True))
        known = cls.options({"method": values["method"]} if "method" in values else {})
        values = {name: value for name, value in values.items() if name in known or name in given}
        settings = cls.from_values(values)
        plain = settings.plain()
        if isinstance(settings, RunSettings):
            _require_different_runs(settings, swept)
        if plain not in seen:
            seen.append(plain)
            runs.append(values)
    for name in _OUTPUTS:
        paths = [values[name] for values in runs if values.get(name) not in (None, "none")]
        if len(set(map(str, paths))) < len(paths):
            raise UserError(
                f"--{name} {paths[0]}: {len(runs)} runs would write to the same path; use --{name} none"
            )
    return runs


def _require_different_runs(settings: RunSettings, swept: Swept) -> None:
    """Refuse a sweep over the length of one run.

    Raises:
        UserError: it is one.
    """
    for name in ("epochs", "patience"):
        values = swept.get(name, ())
        if len(values) > 1 and (name == "patience" or settings.extendable):
            raise UserError(
                f"--{name} {' '.join(map(as_argument, values))}: runs that differ in it alone are one run, "
                "longer or shorter; take the largest, metrics.jsonl has every epoch"
            )


def _execute(module: str, values: Values, how: LaunchSettings, folder: Path) -> int:
    """Print the command of a run for the shell in ``folder`` and execute it. Returns its exit code."""
    arguments = as_arguments(values)
    device = str(values.get("device", "auto"))
    one = device == "cpu" or ":" in device  # such as cuda:1
    count = how.processes or (1 if one else max(1, gpu_count()))
    if count * how.nodes == 1 and not how.restarts:
        command = [sys.executable, "-m", module, *arguments]
        _say(folder, "python", command[1:])
        return 0 if how.dry_run else processes.run(command, cwd=REPOSITORY).returncode
    where = ["--standalone"] if how.nodes == 1 and how.port is None else _rendezvous(how)
    if how.restarts:
        where.append(f"--max-restarts={how.restarts}")
    command = [f"--nnodes={how.nodes}", f"--nproc-per-node={count}", *where, "-m", module, *arguments]
    _say(folder, "torchrun", command)
    return 0 if how.dry_run else _torchrun(command, count, how)


def _rendezvous(how: LaunchSettings) -> list[str]:
    """Options of torchrun with which machines find each other, also after one has been started again."""
    host = str(how.node_rank == 0).lower()
    options = [
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={how.master_address}:{how.port or 29500}",
        "--rdzv-id=adapter4rec",
        f"--rdzv-conf=is_host={host},read_timeout={_RENDEZVOUS_SECONDS}",
    ]
    return [*options, "--local-addr=127.0.0.1"] if how.master_address in _LOOPBACK else options


def _torchrun(command: list[str], count: int, how: LaunchSettings) -> int:
    """Run torchrun in this process, and return the exit code of the first process that failed.

    Raises:
        SystemExit: the processes were terminated by a signal.
        UserError: a process was killed, or the rendezvous failed.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    # Not those that this process ignores, as SIGHUP under nohup.
    forwarded = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handled = ",".join(one.name for one in forwarded if signal.getsignal(one) != signal.SIG_IGN)
    os.chdir(REPOSITORY)
    environment = processes.child_environment()
    os.environ.clear()
    os.environ.update(environment)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    if how.nodes > 1:  # or else the processes of a restart would find the addresses of those before
        os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    for restarts_left in reversed(range(how.restarts + 1)):
        try:
            _run_agent([f"--signals-to-handle={handled}", *command])
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode < 0:
                name = signal.Signals(-failure.exitcode).name
                raise UserError(
                    f"process {rank} (pid {failure.pid}) was killed by {name}"
                    f"{_OUT_OF_MEMORY * (name == 'SIGKILL')}; the others were ended. To "
                    "resume from the last checkpoint, repeat the command with --resume"
                ) from None
            return processes.exit_code(failure.exitcode)
        except SignalException as error:
            print(f"interrupted by {error.sigval.name}", file=sys.stderr, flush=True)
            raise SystemExit(128 + error.sigval) from None
        except (DistError, RendezvousError) as error:
            address = f"--master_address {how.master_address} --port {how.port or 'none'}"
            reason = str(error.__cause__ or error).splitlines()[0]
            message = f"rendezvous failed at {address}: {reason}"
            if not restarts_left:
                raise UserError(message) from None
            print(f"{message}; trying again", file=sys.stderr, flush=True)
            os.environ[processes.RESTARTED] = "1"  # the processes of a new agent do not know of those before
        else:
            break
    return 0


def _run_agent(command: list[str]) -> None:
    from torch.distributed.run import parse_args, run

    with processes.interruptible():  # torchrun does not restore the signal handlers
        # torch.distributed.run has no types.
        arguments = parse_args(command)  # type: ignore[no-untyped-call]
        run(arguments)  # type: ignore[no-untyped-call]
