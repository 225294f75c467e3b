"""Files that are damaged, edited or made to do harm: every reader reads them or refuses them."""

from __future__ import annotations

import json
import os
import pickle
import signal
from pathlib import Path
from random import Random

import pytest
from conftest import SECONDS
from faults.damage import DEEP, TEXTS, WEIRD, changed, damaged, places
from faults.readers import READERS, REFUSALS, Reader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
