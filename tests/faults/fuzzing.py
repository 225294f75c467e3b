"""Coverage-guided fuzzing of every reader: ``python -m tests.faults.fuzzing --inputs 100000``.

Each reader gets its share of the inputs in a process of its own, so that a crash, a hang (20 s) and memory
beyond the limit are seen. Prints one row of the table of ``make test-faults``. Without atheris, the inputs
are random damage to valid files, which is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parent
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
SECONDS = 20
LIMIT_MB = 200
"""Memory beyond what the process has before the first input; inputs are at most 64 KB, or 400 KB nested."""
_TAIL = 12


def main() -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="number of inputs, shared by the readers")
    parser.add_argument("--reader", help="only the reader of this name, in this process")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.reader is not None:
        return fuzz_one(options.reader, options.inputs, options.seed)
    return fuzz_all(options.inputs, options.seed)


def fuzz_all(inputs: int, seed: int) -> int:
    """Fuzz every reader and print a row; 1 if any input was not survived."""
    names = reader_names()
    share = -(-inputs // len(names))
    failed = 0
    for name in names:
        command = [sys.executable, "-m", "tests.faults.fuzzing", "--reader", name, "--inputs", str(share)]
        done = subprocess.run(
            [*command, "--seed", str(seed)], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        if done.returncode:
            failed += 1
            tail = "\n  ".join((done.stdout + done.stderr).splitlines()[-_TAIL:])
            print(f"{name}: exit code {done.returncode}\n  {tail}", file=sys.stderr, flush=True)
    kind = "atheris" if HAS_ATHERIS else "random damage: atheris is not installed"
    what = f"fuzzed inputs, {len(names)} readers ({kind})"
    outcome = "all" if not failed else f"all but those of {failed} readers"
    print(f"| {what} | {share * len(names):,} | {outcome} | - |")
    return 1 if failed else 0


def reader_names() -> list[str]:
    """Names of the readers."""
    _tests_importable()
    from faults.readers import READERS

    return [reader.name for reader in READERS]


def fuzz_one(name: str, inputs: int, seed: int) -> int:
    """Fuzz one reader in this process, which ends with another exit code than 0 at the first fault."""
    _tests_importable()
    warnings.simplefilter("ignore")
    if HAS_ATHERIS:
        import atheris

        with atheris.instrument_imports(include=["adapter4rec"]):
            import faults.readers as found
    else:
        import faults.readers as found
    reader = next(one for one in found.READERS if one.name == name)
    with TemporaryDirectory() as folder:
        for content in reader.seeds:
            reader.try_bytes(Path(folder), content)  # libraries are loaded before memory is measured
        limit = _resident_mb() + LIMIT_MB

        def attempt(content: bytes) -> None:
            signal.alarm(SECONDS)
            reader.try_bytes(Path(folder), content)
            signal.alarm(0)
            if _resident_mb() > limit:
                raise MemoryError(f"{_resident_mb()} MB after {len(content):,} bytes; the limit is {limit}")

        if HAS_ATHERIS:
            _guided(attempt, reader.seeds, inputs, seed, Path(folder))
        else:
            _random(attempt, reader.seeds, inputs, seed)
    return 0


def _random(attempt: Callable[[bytes], None], seeds: tuple[bytes, ...], inputs: int, seed: int) -> None:
    from faults.damage import damaged

    chance = Random(seed)
    for number in range(inputs):
        attempt(damaged(chance, seeds[number % len(seeds)]))


def _guided(
    attempt: Callable[[bytes], None], seeds: tuple[bytes, ...], inputs: int, seed: int, folder: Path
) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    from faults.damage import damaged

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)

    def mutate(data: bytes, most: int, chance: int) -> bytes:
        drawn = Random(chance)
        if drawn.random() < 0.5:
            return damaged(drawn, data)[:most]
        return atheris.Mutate(data, most)

    options = [f"-runs={inputs}", f"-seed={seed}", "-max_len=400000", "-verbosity=0", "-rss_limit_mb=0"]
    options += [f"-timeout={SECONDS}", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], attempt, custom_mutator=mutate)
    atheris.Fuzz()


def _resident_mb() -> int:
    """Most memory that this process has had, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _tests_importable() -> None:
    sys.path.insert(0, str(TESTS))


if __name__ == "__main__":
    sys.exit(main())
