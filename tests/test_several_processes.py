"""Runs of several processes, or several launchers: a process is killed, and the run continues."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from test_processes import (  # noqa: F401 (fixtures)
    LAUNCHER,
    free_port,
    processes_with,
    started,
    values,
    wait_until,
    words_of,
)
from test_runs import assert_same_file

from adapter4rec.utils.processes import RESTARTED
from Pretraining.Text.train import Settings, train

pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")


def process_of(rank, folder):
    """The pid of a process of the run in ``folder``; None if there is none."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().decode(errors="replace")
            variables = (path / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if str(folder) in line and f"RANK={rank}" in variables:
            return int(path.name)
    return None


def trained_epochs(folder, count):
    metrics = folder / "metrics.jsonl"
    return metrics.exists() and len(metrics.read_text().splitlines()) >= count


def launched(start, values, *words):
    return start(LAUNCHER, *words_of({"export": "none"} | values), *words)


def test_a_killed_process_is_named_and_ends_the_others(values, started):
    program = launched(started, values, "--processes", "2")
    wait_until(lambda: trained_epochs(values["run_folder"], 1) or program.poll() is not None, "no epoch")
    killed, begin = process_of(1, values["run_folder"]), time.monotonic()
    os.kill(killed, signal.SIGKILL)
    printed, _ = program.communicate(timeout=60)
    assert time.monotonic() - begin < 60
    assert program.returncode == 2
    assert f"error: process 1 (pid {killed}) was killed by SIGKILL" in printed
    assert "repeat the command with --resume" in printed
    assert processes_with(values["run_folder"]) == []


@pytest.mark.long
def test_a_signal_to_one_process_stops_all_after_the_same_step(values, started):
    program = launched(started, values, "--processes", "2")
    wait_until(lambda: trained_epochs(values["run_folder"], 1) or program.poll() is not None, "no epoch")
    os.kill(process_of(1, values["run_folder"]), signal.SIGTERM)
    printed, _ = program.communicate(timeout=60)
    assert program.returncode == 128 + signal.SIGTERM, printed
    assert "saved: epoch" in printed
    assert processes_with(values["run_folder"]) == []


@pytest.mark.long
def test_restarts_continue_from_the_last_checkpoint(values, started, tmp_path):
    values |= {"epochs": 40, "eval_every": 20, "dropout": 0.0}
    program = launched(started, values | {"save_minutes": 0.001}, "--processes", "2", "--restarts", "1")
    log = values["run_folder"] / "log.txt"
    for reached in (lambda: trained_epochs(log.parent, 5), lambda: "resuming at" in log.read_text()):
        wait_until(reached, "no epochs")
        os.kill(process_of(0, log.parent), signal.SIGKILL)
    printed, _ = program.communicate(timeout=120)
    assert program.returncode == 2
    assert "error: process 0" in printed
    (epoch,) = re.findall(r"resuming at epoch (\d+)", printed)  # one restart
    assert int(epoch) >= 5
    launched(started, values | {"resume": "true"}, "--processes", "2").communicate(timeout=120)
    whole = launched(started, values | {"run_folder": tmp_path / "whole"}, "--processes", "2")
    whole.communicate(timeout=120)
    assert_same_file(values["run_folder"] / "last.safetensors", tmp_path / "whole" / "last.safetensors")


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
def test_one_of_two_machines_is_killed_and_started_again(values, started, tmp_path, free_port, killed):
    values |= {"epochs": 40, "eval_every": 20, "dropout": 0.0, "save_minutes": 0.001}
    words = ("--processes", "1", "--nodes", "2", "--port", free_port, "--restarts", "3")
    machines = [launched(started, values, *words, "--node_rank", str(node)) for node in (0, 1)]
    wait_until(lambda: trained_epochs(values["run_folder"], 5), "no epochs")
    machines[killed].kill()
    machines[killed].wait()
    machines[killed] = launched(started, values, *words, "--node_rank", str(killed))
    for machine in machines:
        printed, _ = machine.communicate(timeout=300)
        assert machine.returncode == 0, printed
        assert "already exists" not in printed  # the new launcher knows that the run goes on
    whole = launched(started, values | {"run_folder": tmp_path / "whole"}, "--processes", "2")
    whole.communicate(timeout=120)
    assert_same_file(values["run_folder"] / "last.safetensors", tmp_path / "whole" / "last.safetensors")


def test_all_processes_learn_that_one_was_restarted(free_port):
    code = (
        "from adapter4rec.utils.process_group import process_group\n"
        "with process_group('cpu') as process: print(process.restarted)"
    )
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | common | {"RANK": str(rank), RESTARTED: str(rank)},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    assert [program.communicate(timeout=120)[0] for program in programs] == ["True\n", "True\n"]


@pytest.mark.long
def test_another_number_of_processes_resumes(values, started):
    program = launched(started, values | {"epochs": 2}, "--processes", "2")
    printed, _ = program.communicate(timeout=120)
    assert program.returncode == 0, printed
    train(Settings.from_values(values | {"epochs": 3, "resume": True}))
