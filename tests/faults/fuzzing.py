"""Coverage-guided fuzzing of every reader: ``python -m tests.faults.fuzzing --inputs 100000``.

Each reader gets its share of the inputs in a process of its own, so that a crash, a hang (20 s) and memory
beyond the limit are seen. The processes are forked from one that has imported everything. Prints one row of
the table of ``make test-faults``; inputs that were not survived are kept in ``cache/faults``. Without
atheris, the inputs are random damage to valid files, which is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.faults.damage import damaged

if TYPE_CHECKING:
    from tests.faults.readers import Reader

KEPT = Path(__file__).resolve().parents[2] / "cache" / "faults"
FORK = multiprocessing.get_context("fork")
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
SECONDS = 20
ALLOCATED_MB = 8192
"""No more than this is allocated in addition, so that a reader without limits does not stop the machine."""
_TAIL = 12


@dataclass(frozen=True)
class Outcome:
    """What became of the inputs of one reader.

    Attributes:
        tried: inputs that the reader was given.
        fault: how the reader failed on the last of them; empty if it did not.
        printed: the last lines that it printed.
        content: the last input.
    """

    tried: int
    fault: str
    printed: str
    content: bytes


def main() -> int:
    """Entry point of the command: fuzz the readers and print a row; 1 if any input was not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="number of inputs, shared by the readers")
    parser.add_argument("--reader", help="only the reader of this name")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    readers = [one for one in imported_readers() if options.reader in (None, one.name)]
    if not readers:
        parser.error(f"there is no reader {options.reader!r}")
    outcomes = fuzzed(readers, options.inputs, options.seed)
    failed = {name: outcome for name, outcome in outcomes.items() if outcome.fault}
    for name, outcome in failed.items():
        KEPT.mkdir(parents=True, exist_ok=True)
        path = KEPT / name.replace(" ", "_")
        path.write_bytes(outcome.content)
        print(f"{name}: {outcome.fault}, input kept as {path}\n{outcome.printed}", file=sys.stderr)
    tried = sum(outcome.tried for outcome in outcomes.values())
    kind = "atheris" if HAS_ATHERIS else "random damage: atheris is not installed"
    print(f"| fuzzed inputs, {len(readers)} readers ({kind}) | {tried:,} | {tried - len(failed):,} | - |")
    return int(bool(failed) or tried < options.inputs)


def imported_readers() -> tuple[Reader, ...]:
    """All readers; their code reports its coverage to atheris."""
    warnings.simplefilter("ignore")
    with ExitStack() as stack:
        if HAS_ATHERIS:
            import atheris

            stack.enter_context(atheris.instrument_imports(include=["adapter4rec"]))
        with redirect_stderr(StringIO()):  # the list of all modules
            from tests.faults.readers import READERS
    return READERS


def fuzzed(readers: Sequence[Reader], inputs: int, seed: int) -> dict[str, Outcome]:
    """Fuzz the readers with ``inputs`` together, as many at a time as the machine has cores."""
    share = -(-inputs // len(readers))
    waiting, outcomes = list(readers), {}
    running: dict[Any, tuple[Reader, BaseProcess, Any, Path, float]] = {}
    with TemporaryDirectory() as scratch:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                reader, folder = waiting.pop(), Path(scratch, str(len(waiting)))
                folder.mkdir()
                tried = FORK.Value("q", 0)
                child = FORK.Process(target=_fuzz, args=(reader, share, seed, folder, tried))
                child.start()
                running[child.sentinel] = reader, child, tried, folder, time.monotonic()
            for sentinel in wait(list(running)):
                reader, child, tried, folder, begin = running.pop(sentinel)
                child.join()
                outcomes[reader.name] = _outcome(reader, child.exitcode, tried.value, folder)
                outcome = outcomes[reader.name].fault or "survived"
                seconds = time.monotonic() - begin
                print(f"{reader.name}: {tried.value:,} inputs in {seconds:.0f} s, {outcome}", flush=True)
                shutil.rmtree(folder)
    return outcomes


def _outcome(reader: Reader, code: int | None, tried: int, folder: Path) -> Outcome:
    printed = "\n".join((folder / "output").read_text(errors="replace").splitlines()[-_TAIL:])
    content = (folder / reader.file).read_bytes() if (folder / reader.file).is_file() else b""
    fault = "" if code == 0 else f"exit code {code}"
    if code is not None and code < 0:
        hang = f"not read within {SECONDS} seconds"
        fault = hang if -code == signal.SIGALRM else f"ended by {signal.Signals(-code).name}"
    return Outcome(tried, fault, printed, content)


def _fuzz(reader: Reader, inputs: int, seed: int, folder: Path, tried: Any) -> None:
    """Fuzz one reader in this process, which ends with another exit code than 0 at the first fault.

    Memory is measured beyond what the process has before the first input. Inputs are at most 400 KB.
    """
    with (folder / "output").open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    for content in reader.seeds:
        reader.try_bytes(folder, content)  # libraries are loaded before memory is measured
    limit = _resident_mb() + reader.memory_mb
    allocated = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (allocated + (ALLOCATED_MB << 20),) * 2)

    def attempt(content: bytes) -> None:
        tried.value += 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, wherever it hangs
        signal.alarm(SECONDS)
        reader.try_bytes(folder, content)
        signal.alarm(0)
        if _resident_mb() > limit:
            raise MemoryError(f"{_resident_mb()} MB after {len(content):,} bytes; the limit is {limit}")

    if HAS_ATHERIS:
        _guided(attempt, reader.seeds, inputs, seed, folder)
    else:
        chance = Random(seed)
        for number in range(inputs):
            attempt(damaged(chance, reader.seeds[number % len(reader.seeds)]))


def _guided(
    attempt: Callable[[bytes], None], seeds: tuple[bytes, ...], inputs: int, seed: int, folder: Path
) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)

    def mutate(data: bytes, most: int, chance: int) -> bytes:
        drawn = Random(chance)
        if drawn.random() < 0.5:
            return damaged(drawn, data)[:most]
        return atheris.Mutate(data, most)

    # Limits of time and memory are those of ``attempt``; libFuzzer's timer would be the same as ``alarm``.
    options = [f"-runs={inputs}", f"-seed={seed}", "-max_len=400000", "-verbosity=0", "-rss_limit_mb=0"]
    options += ["-timeout=0", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], attempt, custom_mutator=mutate)
    atheris.Fuzz()


def _resident_mb() -> int:
    """Most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    sys.exit(main())
