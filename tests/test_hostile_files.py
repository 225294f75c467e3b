"""Files that are damaged, edited or made to do harm: every reader reads them or refuses them."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from conftest import SECONDS
from faults.damage import DEEP, TEXTS, WEIRD, changed, damaged, places
from faults.readers import FINISHED, READERS, REFUSALS, Reader, lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapter4rec.report.results import results
from adapter4rec.runs.run import Run
from adapter4rec.utils.errors import UserError, message_of
from adapter4rec.utils.files import atomic_file
from adapter4rec.utils.process_group import single_process

pytestmark = pytest.mark.usefixtures("no_hang")
PARTS = ("image LMDB", "released LMDB", "cache of states")
"""Parts of files, and one that is computed again."""
NAMES = [reader.name for reader in READERS]


@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_a_valid_file_is_read(reader: Reader, tmp_path: Path):
    for seed in reader.seeds:
        path = tmp_path / reader.file
        path.write_bytes(seed)
        reader.read(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS, ids=NAMES)
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chance=st.randoms(use_true_random=False), which=st.integers(0, 3))
def test_a_damaged_file_is_read_or_refused(reader: Reader, tmp_path: Path, chance: Random, which: int):
    reader.try_bytes(tmp_path, damaged(chance, reader.seeds[which % len(reader.seeds)]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_files_of_something_else_are_read_or_refused(reader: Reader, tmp_path: Path):
    for content in (*TEXTS, *DEEP):
        reader.try_bytes(tmp_path, content)


def is_json(reader: Reader) -> bool:
    return all(seed.startswith(b"{") for seed in reader.seeds) and reader.name not in (
        "config.json",
        "report of a ledger",
    )


@pytest.mark.parametrize("reader", [*filter(is_json, READERS)], ids=lambda reader: reader.name)
def test_every_value_of_our_own_json_may_be_wrong(reader: Reader, tmp_path: Path):
    for seed in reader.seeds:
        content = json.loads(seed.splitlines()[0])
        for number, place in enumerate(places(content)):
            signal.alarm(SECONDS)
            for change in ("remove", "add") if place else ():
                reader.try_bytes(tmp_path, json.dumps(changed(content, place, change, 1)).encode())
            for value in WEIRD[number % 4 :: 4]:
                reader.try_bytes(tmp_path, json.dumps(changed(content, place, "replace", value)).encode())


WRONG = (
    ("settings.json", ("parameters", "trained"), "10"),
    ("settings.json", ("hardware", "processes"), None),
    ("settings.json", ("domain", "users"), -1),
    ("settings.json", ("parameters", "trained"), 10**400),
    ("result.json", ("epoch",), "1"),
    ("result.json", ("peak_memory_bytes",), 2**63),
    ("result.json", ("seconds",), -0.5),
    ("result.json", ("test", "HR@10"), math.nan),
    ("result.json", ("trained_share",), math.inf),
    ("metrics.jsonl", ("epoch",), "1"),
    ("metrics.jsonl", ("epoch",), -1),
    ("metrics.jsonl", ("loss",), None),
    ("metrics.jsonl", ("loss",), math.nan),
    ("metrics.jsonl", ("loss",), 10**400),
    ("study.json", ("rows", 0, "runs", 0, "seed"), "1"),
    ("study.json", ("groups",), None),
    ("study.json", ("study",), "../another folder"),
    ("study.json", ("study",), "a\0b"),
    ("study.json", ("rows", 0, "runs", 0, "seed"), 10**400),
    ("progress of a run", ("step",), -1),
    ("progress of a run", ("step",), "2"),
    ("progress of a run", ("history", 0, "loss"), math.nan),
    ("image LMDB", ("images",), "1"),
    ("image LMDB", ("options", "size"), 0),
    ("image LMDB", ("left_out",), None),
)


@pytest.mark.parametrize(("name", "place", "value"), WRONG)
def test_a_value_of_another_type_is_named(tmp_path: Path, name: str, place: tuple[str | int, ...], value):
    """``null``, text in place of a number, a negative count, NaN and infinity."""
    reader = READERS[NAMES.index(name)]
    path = tmp_path / reader.file
    content = json.loads(reader.seeds[0].splitlines()[0])
    path.write_text(json.dumps(changed(content, place, "replace", value)))
    with pytest.raises(UserError, match=rf"{path}.*({place[-1]}|\$\[\.\.\.\]|not a finite number)"):
        reader.read(path)


@pytest.mark.parametrize("parameters", [{}, {"trained": 10**400, "total": 10**400, "share": 1.0}])
def test_a_ledger_without_numbers_of_parameters_that_a_table_can_hold(tmp_path: Path, parameters, capsys):
    whole, damaged_one = FINISHED, FINISHED | {"key": "another", "parameters": parameters}
    (tmp_path / "ledger.jsonl").write_bytes(lines(whole, damaged_one))
    assert len(results(tmp_path / "ledger.jsonl")) == 1
    assert "ledger.jsonl:2: skipped damaged line" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["remove", "add"])
@pytest.mark.parametrize("reader", [*filter(is_json, READERS)], ids=lambda reader: reader.name)
def test_missing_and_unknown_fields(reader: Reader, tmp_path: Path, change: str, capsys):
    """Missing ones are named. Unknown ones are, too, where a part that is not read would be lost."""
    path = tmp_path / reader.file
    content = json.loads(reader.seeds[0].splitlines()[0])
    first = next(iter(content))
    path.write_text(json.dumps(changed(content, (first,), change, 1)))
    if reader.name == "ledger":
        reader.read(path)
        assert ("ledger.jsonl:1: skipped damaged line" in capsys.readouterr().err) == (change == "remove")
    elif change == "add" and reader.name not in ("progress of a run", "image LMDB"):
        reader.read(path)
    else:
        with pytest.raises(UserError, match=rf"{path}.*{first if change == 'remove' else 'newer version'}"):
            reader.read(path)


@pytest.mark.parametrize("kind", ["fifo", "link to a fifo", "device", "folder"])
@pytest.mark.parametrize(
    "reader",
    [one for one in READERS if one.name not in PARTS],
    ids=lambda reader: reader.name,
)
def test_what_is_no_file_is_refused(reader: Reader, tmp_path: Path, kind: str):
    path = tmp_path / reader.file
    if kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "fifo" if "link" in kind else path)
        if "link" in kind:
            path.symlink_to(tmp_path / "fifo")
    if reader.name == "cache of tokens" and kind != "folder":
        reader.read(path)  # computed again, and replaced
        assert path.is_file()
        return
    with pytest.raises((*REFUSALS, IsADirectoryError)):
        reader.read(path)


def test_a_log_that_is_no_file_is_not_written_to(tmp_path: Path):
    os.mkfifo(tmp_path / "log.txt")
    run = SimpleNamespace(process=single_process("cpu"), folder=tmp_path)
    with pytest.raises(UserError, match=r"log\.txt: expected a file, found a FIFO"):
        Run.log(run, "text")


def test_a_long_line_of_a_message_keeps_its_ends():
    shown, last = message_of(UserError(f"file: {'x' * 10**6} is no number\nlast")).split("\n")
    assert len(shown) < 3_000
    assert shown.startswith("file: x")
    assert (shown[-13:], last) == (" is no number", "last")


class Harmful:
    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("reader", READERS, ids=NAMES)
def test_no_code_of_a_file_runs(reader: Reader, tmp_path: Path):
    harmful = Harmful()
    harmful.marker = tmp_path / "ran"
    for content in (pickle.dumps(harmful), pickle.dumps({"model_state_dict": harmful}, 0)):
        reader.try_bytes(tmp_path, content)
    assert not harmful.marker.exists()


@pytest.mark.parametrize("kind", ["fifo", "link to a device", "folder"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str):
    path = tmp_path / "output"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(UserError, match=f"{path}: expected a file, found a"), atomic_file(path) as temporary:
        temporary.write_text("new")
    assert not path.is_file()
    assert [*tmp_path.iterdir()] == [path]
