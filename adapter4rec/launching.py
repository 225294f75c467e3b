"""Launchers: a page of hyperparameters becomes one run, or a sweep of runs.

``launch`` merges the inline settings with the command line, expands lists into all combinations, prints the
command of each run and carries it out, with torchrun where a run has several processes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import (
    Option,
    Settings,
    Values,
    as_argument,
    option,
    options_of,
    require_known,
)

_ONE_RUN_EACH = ("run_folder", "export")
"""Settings that name a place which a run writes to."""

Swept = dict[str, list[Any]]
"""For each setting the values that it takes in a sweep; one value where it is not swept."""


@dataclass(frozen=True)
class LaunchSettings(Settings):
    """How a launcher carries out its runs."""

    processes: int | None = option(None, "processes on this machine; by default one a GPU, else 1", least=1)
    nodes: int = option(1, "machines that share the run", least=1)
    node_rank: int = option(0, "number of this machine, from 0", least=0)
    master_address: str = option("127.0.0.1", "the first machine")
    port: int | None = option(None, "where the processes meet; by default a free one", least=1, most=65535)
    dry_run: bool = option(False, "print the commands and run nothing")


def launch(module: str, settings: type[Settings], inline: Mapping[str, Any]) -> NoReturn:
    """Carry out what a launcher's page describes and end with the exit code of what ran.

    Args:
        module: the tree's training module, as ``Downstream.Text.train``.
        settings: its settings class.
        inline: the launcher's hyperparameters. A list is swept; relative paths start at the repository.
    """
    run_main(lambda: _launch(module, settings, inline, sys.argv[1:]))


def settings_from_command_line(cls: type[Settings], arguments: Sequence[str]) -> Settings:
    """Settings of one run from ``--name value`` arguments; relative paths start at the current folder.

    Raises:
        UserError: an unknown name, a missing or an impossible value, several values for one name.
    """
    known = _run_options(cls, arguments, {})
    swept = _anchored(parsed_command_line(arguments, known, cls.__doc__ or ""), known, Path.cwd())
    return cls.from_values({name: _single(name, swept) for name in swept})


def _launch(module: str, cls: type[Settings], inline: Mapping[str, Any], arguments: Sequence[str]) -> int:
    run_options = _run_options(cls, arguments, inline)
    launch_options = options_of(LaunchSettings)
    page_options = _run_options(cls, (), inline)
    require_known(inline, page_options | launch_options)
    page = {name: value if isinstance(value, list) else [value] for name, value in inline.items()}
    given = parsed_command_line(arguments, run_options | launch_options, f"{module}, launched")
    swept = _anchored(page, page_options, REPOSITORY) | _anchored(given, run_options, Path.cwd())
    for name, values in swept.items():
        if not values:
            raise UserError(f"{name}: the list is empty, so there is nothing to run")
    how = LaunchSettings.from_values({name: _single(name, swept) for name in launch_options if name in swept})
    if how.node_rank >= how.nodes:
        raise UserError(f"--node_rank {how.node_rank}: must be below --nodes {how.nodes}; the first is 0")
    runs = _runs(cls, {name: values for name, values in swept.items() if name not in launch_options}, given)
    codes = []
    for number, values in enumerate(runs, 1):
        if len(runs) > 1:
            print(f"run {number} of {len(runs)}", flush=True)
        codes.append(_carry_out(module, values, how))
    return next((code for code in codes if code), 0)


def _run_options(
    cls: type[Settings], arguments: Sequence[str], inline: Mapping[str, Any]
) -> dict[str, Option]:
    """The options of a page's runs; which they are depends on the method, or on each method of a sweep."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--method", nargs="*")
    given = parser.parse_known_args(arguments)[0].method or inline.get("method")
    options: dict[str, Option] = {}
    for method in given if isinstance(given, list) else [given]:
        options |= cls.options({} if method is None else {"method": method})
    return options


def _single(name: str, swept: Swept) -> Any:
    if len(swept[name]) > 1:
        raise UserError(f"--{name} {' '.join(map(str, swept[name]))}: one value; it cannot be swept")
    return swept[name][0]


def parsed_command_line(arguments: Sequence[str], known: Mapping[str, Option], description: str) -> Swept:
    """The values of ``--name value …`` arguments, unchecked.

    Raises:
        UserError: an unknown name, a word without one, or a name without a value.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    for name, one in known.items():
        shown = " (required)" if one.default is MISSING else f" (default {as_argument(one.default)})"
        names = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        parser.add_argument(
            *names, nargs="*", dest=name, metavar="VALUE", help=one.help.replace("%", "%%") + shown
        )
    found, rest = parser.parse_known_args(arguments)
    for word in rest:
        if word.startswith("--"):
            require_known({word[2:].split("=")[0].replace("-", "_"): None}, known)
        raise UserError(f"{word!r} stands alone; settings are given as --name value")
    given = {name: values for name, values in vars(found).items() if values is not None}
    for name, values in given.items():
        if not values and known[name].kind is not bool:
            raise UserError(f"--{name}: a value is needed: {known[name].help}")
    return {name: values or [True] for name, values in given.items()}


def _anchored(swept: Swept, options: Mapping[str, Option], base: Path) -> Swept:
    return {
        name: [options[name].anchored(value, base) if name in options else value for value in values]
        for name, values in swept.items()
    }


def _runs(cls: type[Settings], swept: Swept, given: Collection[str]) -> list[Values]:
    """The checked settings of each run. What the page alone says counts for the methods that know it."""
    runs: list[Values] = []
    for combination in product(*swept.values()):
        values = dict(zip(swept, combination, strict=True))
        known = cls.options({"method": values["method"]} if "method" in values else {})
        values = {name: value for name, value in values.items() if name in known or name in given}
        cls.from_values(values)
        if values not in runs:
            runs.append(values)
    for name in _ONE_RUN_EACH:
        places = [values[name] for values in runs if values.get(name) not in (None, "none")]
        if len(set(map(str, places))) < len(places):
            raise UserError(f"--{name} {places[0]}: {len(runs)} runs would write there; give --{name} none")
    return runs


def _carry_out(module: str, values: Values, how: LaunchSettings) -> int:
    arguments = [part for name, value in values.items() for part in (f"--{name}", as_argument(value))]
    processes = how.processes or max(1, gpus_here())
    if processes * how.nodes == 1:
        command = [sys.executable, "-m", module, *arguments]
        print(shlex.join(["python", *command[1:]]), flush=True)
        return 0 if how.dry_run else _exit_code(_waited_for(command))
    options = [f"--nnodes={how.nodes}", f"--nproc-per-node={processes}", *_meeting_place(how)]
    command = [*options, "-m", module, *arguments]
    print(shlex.join(["torchrun", *command]), flush=True)
    return 0 if how.dry_run else _torchrun(command, processes, how)


def gpus_here() -> int:
    """How many GPUs this machine has."""
    import torch

    return torch.cuda.device_count()


def _meeting_place(how: LaunchSettings) -> list[str]:
    if how.nodes == 1 and how.port is None:
        return ["--standalone"]
    port = how.port or 29500
    if how.node_rank == 0 and not how.dry_run:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise UserError(f"--port {port}: {error.strerror}; choose another, or none") from None
    return [f"--node-rank={how.node_rank}", f"--master-addr={how.master_address}", f"--master-port={port}"]


def _waited_for(command: list[str]) -> int:
    """Run a command to its own end: an interrupted one may be writing a file."""
    with subprocess.Popen(command, cwd=REPOSITORY) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            return process.wait()


def _torchrun(command: list[str], processes: int, how: LaunchSettings) -> int:
    """What the ``torchrun`` program does, but ending with the exit code of the process that failed."""
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import parse_args, run

    os.chdir(REPOSITORY)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        run(parse_args(command))
    except ChildFailedError as error:
        return _exit_code(error.get_first_failure()[1].exitcode)
    except SignalException as error:
        print("interrupted", file=sys.stderr, flush=True)
        return 128 + int(error.sigval)
    except (DistError, RendezvousError) as error:
        place = f"--master_address {how.master_address} --port {how.port or 'none'}"
        raise UserError(f"the processes could not meet at {place}: {str(error).splitlines()[0]}") from None
    return 0


def _exit_code(returned: int) -> int:
    """The shell's exit code of a process; one that a signal ended gives 128 + its number."""
    return 128 - returned if returned < 0 else returned
