"""Interrupted runs: what a signal, a kill or a damaged file leaves, and how the run continues."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from test_runs import (  # noqa: F401 (fixtures)
    assert_same_file,
    common,
    records,
    run_source,
    text_domain,
    without_times,
)

from adapter4rec.training import fit
from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file, atomic_folder, remove_abandoned
from adapter4rec.utils.processes import Interrupted, interruptible, signals_deferred

STATES = ("best.safetensors", "last.safetensors", "previous.safetensors")


def signalled(monkeypatch, name, call, number=signal.SIGTERM):
    """Send a signal to this process during a call of a function of the training loop."""
    function, calls = getattr(fit, name), []

    def wrapped(*arguments):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return function(*arguments)

    monkeypatch.setattr(fit, name, wrapped)


@pytest.mark.parametrize(("where", "call", "at"), [("train_step", 5, "2, 2"), ("ranking_of", 2, "2, 3")])
def test_a_signal_loses_no_step(common, tmp_path, monkeypatch, where, call, at, capsys):
    whole = run_source(common, tmp_path / "whole", epochs=3)
    signalled(monkeypatch, where, call)
    with pytest.raises(Interrupted) as ended, interruptible():
        run_source(common, tmp_path / "run", epochs=3)
    monkeypatch.undo()
    assert ended.value.signal == signal.SIGTERM
    said = capsys.readouterr().out
    assert f"saved: epoch {at} of 3 steps" in said
    assert f"to resume, repeat the command with --resume ({tmp_path / 'run'})" in said
    resumed = run_source(common, tmp_path / "run", epochs=3, resume=True)
    epoch, step = at.split(", ")
    assert f"resuming at epoch {epoch}, step {step}" in capsys.readouterr().out
    for name in STATES[:2]:
        assert_same_file(whole / name, resumed / name)
    assert list(map(without_times, records(whole))) == list(map(without_times, records(resumed)))


def test_a_second_signal_ends_at_once():
    with pytest.raises(SystemExit) as ended, signals_deferred() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received() == signal.SIGTERM
        time.sleep(1.1)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("goes on")
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_damaged_last_state_falls_back_to_the_one_before(common, tmp_path, capsys):
    whole = run_source(common, tmp_path / "whole", epochs=3)
    run = run_source(common, tmp_path / "run", epochs=2)
    with (run / "last.safetensors").open("r+b") as file:
        file.truncate(1000)
    capsys.readouterr()
    run_source(common, run, epochs=3, resume=True)
    said = capsys.readouterr().out
    assert "last.safetensors: SHA-256 does not match" in said
    assert "previous.safetensors" in said
    assert "resuming at epoch 2, step 0" in said
    for name in STATES:
        assert_same_file(whole / name, run / name)


class KilledError(BaseException):
    """What is done after it fails, too."""


def killed_at(patch, number):
    """Kill this process before it renames or removes a checkpoint for the ``number``-th time."""
    calls = []

    def ended(function):
        def wrapped(path, *arguments, **options):
            if Path(path).name.strip(".").startswith(("last", "previous")):
                calls.append(path)
                if len(calls) > number:
                    raise KilledError
            return function(path, *arguments, **options)

        return wrapped

    for name in ("replace", "unlink"):
        patch.setattr(os, name, ended(getattr(os, name)))


@pytest.mark.parametrize("damage", [False, True])
def test_a_kill_at_any_step_of_saving_leaves_a_state(common, tmp_path, monkeypatch, damage):
    options = common | {"method": "id"}
    whole = run_source(options, tmp_path / "whole", epochs=3)
    before = run_source(options, tmp_path / "before", epochs=2)
    if damage:
        os.truncate(before / "last.safetensors", 1000)
    for number in count():
        run = shutil.copytree(before, tmp_path / str(number))
        try:
            with monkeypatch.context() as patch:
                killed_at(patch, number)
                run_source(options, run, epochs=3, resume=True)
        except KilledError:
            run_source(options, run, epochs=3, resume=True)
            assert_same_file(whole / "last.safetensors", run / "last.safetensors")
        else:
            break  # fewer steps than that
    assert number > 5


def test_a_kill_while_a_checkpoint_is_replaced_leaves_no_wrong_hash(tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    for number in range(3):
        write_checkpoint(path, {"weight": torch.zeros(1)}, {"what": "old"})
        with pytest.raises(KilledError), monkeypatch.context() as patch:
            killed_at(patch, number)
            write_checkpoint(path, {"weight": torch.ones(1)}, {"what": "new"})
        read_checkpoint(path)


def test_a_state_with_other_fields_is_refused(common, tmp_path):
    """Also with the right SHA-256, as one that was edited or that another version has written."""
    run = run_source(common, tmp_path / "run", epochs=1)
    (run / "previous.safetensors").unlink(missing_ok=True)
    path = run / "last.safetensors"
    state = read_checkpoint(path)
    record = state.description["record"]
    progress = record["progress"]
    for fields, fault in (
        ({"of a newer version": 1}, "unknown: of a newer version"),
        ({"progress": progress | {"of a newer version": 1}}, "unknown: of a newer version"),
        ({"progress": {name: value for name, value in progress.items() if name != "step"}}, "missing: step"),
        ({"progress": progress | {"step": -1}}, r"\$\.step"),
        ({"progress": progress | {"epoch": 5}}, "epoch 5"),
    ):
        write_checkpoint(path, state.tensors, state.description | {"record": record | fields})
        with pytest.raises(UserError, match=rf"{path}: .*{fault}"):
            run_source(common, run, epochs=2, resume=True)


def test_a_state_with_a_part_of_the_optimizer_is_refused(common, tmp_path):
    run = run_source(common, tmp_path / "run", epochs=1)
    path = run / "last.safetensors"
    state = read_checkpoint(path)
    tensors = {name: one for name, one in state.tensors.items() if not name.startswith("optimizer/step/")}
    write_checkpoint(path, tensors, state.description)
    with pytest.raises(UserError, match=rf"{path}: .*incomplete state of the optimizer"):
        run_source(common, run, epochs=2, resume=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file, atomic_folder
with atomic_file(Path(sys.argv[1])) as file, atomic_folder(Path(sys.argv[2])) as folder:
    file.write_text("half"), (folder / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_parts(folder):
    arguments = [str(folder / "last.safetensors"), str(folder / "backbone")]
    subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    parts = list(folder.glob(".*.part"))
    assert len(parts) == 2
    return parts


def test_unfinished_files_of_a_killed_run_are_removed_by_the_next(common, tmp_path):
    run = run_source(common, tmp_path / "run", epochs=1)
    leave_parts(run)
    run_source(common, run, epochs=2, resume=True)
    assert list(run.glob(".*.part")) == []


def test_unfinished_files_are_removed_by_the_next_write_unless_another_process_writes_them(tmp_path):
    parts = leave_parts(tmp_path)
    with atomic_file(tmp_path / "last.safetensors") as file, atomic_folder(tmp_path / "backbone") as folder:
        assert not any(path.exists() for path in parts)
        remove_abandoned(tmp_path)
        assert file.exists()
        assert folder.exists()
        file.write_text("whole")
    assert (tmp_path / "last.safetensors").read_text() == "whole"


@pytest.mark.parametrize(("module", "moment", "times"), [(fcntl, "flock", 2), (os, "fsync", 100)])
def test_a_file_is_in_use_until_it_has_its_name(module, moment, times, tmp_path, monkeypatch):
    """Another process removes abandoned files while a new one is locked, or flushed to the disk."""
    function, inside = getattr(module, moment), []

    def interrupted(*arguments):
        nonlocal times
        if not inside and times:
            times -= 1
            inside.append(True)
            remove_abandoned(tmp_path)
            inside.clear()
        return function(*arguments)

    monkeypatch.setattr(module, moment, interrupted)
    with atomic_file(tmp_path / "file") as file:
        file.write_text("whole")
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "file").write_text("whole")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "file").read_text() == "whole"
