"""The limits of the fuzzing: readers that break them are seen, each with the input that did it."""

from __future__ import annotations

import faulthandler
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import fuzzing
from tests.faults.readers import Reader

SEED = b'{"a": 1}\n'


def hangs(_: Path) -> None:
    re.match("(a+)+$", "a" * 60 + "b")  # in C, where Python handles no signal


def allocates(_: Path) -> None:
    assert len(b"\1" * (300 << 20))


def raises(path: Path) -> None:
    raise KeyError(path)


def aborts(_: Path) -> None:
    faulthandler.disable()  # pytest enabled it: no stack in the output of the tests
    os.abort()


def survives(_: Path) -> None:
    pass


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (hangs, "within 4 seconds"),
        (allocates, "exit code"),
        (raises, "exit code"),
        (aborts, "SIGABRT|exit code"),
        (survives, ""),
    ],
)
def test_a_reader_that_breaks_a_limit_is_seen(
    monkeypatch: pytest.MonkeyPatch, guided: bool, read: Callable[[Path], Any], fault: str
):
    if guided:
        pytest.importorskip("atheris")
    monkeypatch.setattr(fuzzing, "HAS_ATHERIS", guided)
    monkeypatch.setattr(fuzzing, "SECONDS", 4)

    def read_damaged(path: Path) -> None:
        if path.read_bytes() not in (SEED, b""):  # libFuzzer begins with an empty input
            read(path)

    outcomes = fuzzing.fuzzed([Reader("one", "file", (SEED,), read_damaged)], 50, seed=1)
    found = outcomes["one"]
    if not fault:
        assert (found.tried, found.fault) == (50, "")
        return
    assert re.search(fault, found.fault)
    assert found.tried < 50
    assert found.content not in (SEED, b"")
    if read is allocates:
        assert "MemoryError" in found.printed
