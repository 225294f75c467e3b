"""Programs that start others: the environment that these get, signals, exit codes, and no orphans."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, write_domain

from adapter4rec.launching import launch
from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.process_group import Process, process_group
from Pretraining.Text.train import Settings, train

ANOTHER_JOB = {
    "WORLD_SIZE": "4",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "9",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "another",
}
"""What torchrun sets; nobody listens at that address."""
LAUNCHER = REPOSITORY / "Pretraining" / "Text" / "script" / "sm_base_sasrec.py"
POPULARITY = REPOSITORY / "Downstream" / "Text" / "script" / "popularity.py"
EPOCHS = 100_000  # none of these runs reaches its end

pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")


@pytest.fixture
def values(tmp_path, tiny_bert_folder):
    chance = np.random.default_rng(0)
    words = ["red", "blue", "house", "river", "snow"]
    items = {f"i{number}": " ".join(chance.choice(words, 3)) for number in range(20)}
    users = {f"u{user}": [f"i{item}" for item in chance.integers(0, 20, 8)] for user in range(30)}
    users_path, items_path = write_domain(tmp_path / "sample" / "source", users, items)
    return {
        "users": users_path,
        "items": items_path,
        "backbone": tiny_bert_folder,
        "cache_folder": tmp_path / "cache",
        "run_folder": tmp_path / "run",
        "max_seq_len": 8,
        "embedding_dim": 16,
        "batch_size": 16,
        "precision": "fp32",
        "device": "cpu",
        "epochs": EPOCHS,
    }


def words_of(values):
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def started():
    """Starts a Python program beside the test, as a shell does; what still runs at the end is killed."""
    programs = []

    def start(*command, **environment):
        program = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        programs.append(program)
        return program

    yield start
    for program in programs:
        program.kill()


def processes_with(word):
    """The command lines that name ``word``; worker processes of a data loader have that of their parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:  # it has ended
            continue
        if str(word) in line:
            found.append(line)
    return found


def wait_until(condition, what):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def ended_by(program, number, folder):
    """What a program printed and its exit code, after a signal while it trained in ``folder``."""
    metrics = folder / "metrics.jsonl"
    wait_until(lambda: metrics.exists() or program.poll() is not None, "no epoch was trained")
    program.send_signal(number)
    printed, _ = program.communicate(timeout=60)
    return printed, program.returncode


def resumed(values):
    """Resume a run for one more epoch; its folder must not be locked."""
    metrics = values["run_folder"] / "metrics.jsonl"
    epochs = len(metrics.read_text().splitlines()) + 2 if metrics.exists() else 2
    train(Settings.from_values(values | {"resume": True, "epochs": epochs}))
    assert json.loads((values["run_folder"] / "result.json").read_text())["requested_epochs"] == epochs


def test_a_signal_in_a_destructor_interrupts():
    class Signalled:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def main():
        Signalled()
        time.sleep(30)

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize("signalled", [False, True])
def test_what_fails_in_a_destructor_after_a_signal_is_not_shown(monkeypatch, signalled):
    class HalfBuilt:
        def __del__(self):
            raise AttributeError("workers")

    def main():
        half_built = HalfBuilt()
        if signalled:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        del half_built

    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    with pytest.raises(SystemExit) as ended:
        run_main(main)
    del ended
    gc.collect()
    assert len(shown) == (0 if signalled else 1)


def test_a_launcher_trains_under_the_variables_of_another_job(values, started):
    words = words_of(values | {"epochs": 1, "export": "none", "processes": 1})
    printed, _ = (program := started(LAUNCHER, *words, **ANOTHER_JOB)).communicate(timeout=120)
    assert program.returncode == 0, printed
    assert (values["run_folder"] / "result.json").exists()


@pytest.mark.parametrize(
    ("processes", "number"), [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGTERM)]
)
def test_a_signal_to_a_launcher_ends_its_training(values, processes, number, started):
    words = words_of(values | {"export": "none", "workers": 2, "processes": processes})
    printed, code = ended_by(started(LAUNCHER, *words), number, values["run_folder"])
    assert code == 128 + number, printed
    assert processes_with(values["run_folder"]) == []
    assert f"interrupted by {number.name}" in printed
    assert "saved: epoch" in printed
    assert "Traceback" not in printed
    assert "terminate called" not in printed
    assert (values["run_folder"] / "curves.png").stat().st_size
    resumed(values)


def remove_run_folders(printed):
    """Remove the run folders that a sweep made in the repository: its runs cannot be given one folder."""
    for line in printed.splitlines():
        if line.startswith("run folder: "):
            shutil.rmtree(line.removeprefix("run folder: "))


def test_a_sweep_ends_with_a_table_of_its_runs(values, started):
    ledger = values["cache_folder"] / "ledger.jsonl"
    given = {name: values[name] for name in ("users", "items", "cache_folder")} | {"ledger": ledger}
    sweep = (*words_of(given), "--method", "popularity", "--processes", "1", "--max_seq_len", "4", "8")
    printed, _ = (program := started(POPULARITY, *sweep)).communicate(timeout=120)
    remove_run_folders(printed)
    assert program.returncode == 0, printed
    rows = [line.split("|") for line in printed.splitlines() if "|" in line][-2:]
    records = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [row[1].strip() for row in rows] == ["4", "8"]
    for row, record in zip(rows, records, strict=True):
        assert float(row[2]) == round(record["validation"]["HR@10"], 2)
        assert float(row[3]) == round(record["test"]["HR@10"], 2)


def test_a_signal_ends_a_whole_sweep(values, started):
    del values["run_folder"]
    words = words_of(values | {"export": "none", "ledger": values["cache_folder"] / "ledger.jsonl"})
    program = started(LAUNCHER, *words, "--processes", "1", "--seed", "1", "2")
    line = next(line for line in iter(program.stdout.readline, "") if line.startswith("run folder: "))
    program.send_signal(signal.SIGINT)
    printed, _ = program.communicate(timeout=60)
    remove_run_folders(line + printed)
    assert program.returncode == 130
    assert "run 2 of 2" not in printed


def test_a_killed_launcher_leaves_no_training_running(values, started):
    words = words_of(values | {"export": "none", "workers": 2, "processes": 1})
    _, code = ended_by(started(LAUNCHER, *words), signal.SIGKILL, values["run_folder"])
    assert code == -signal.SIGKILL
    wait_until(lambda: processes_with(values["run_folder"]) == [], "the training goes on")


def test_a_killed_training_leaves_neither_lock_nor_workers(values, started):
    words = words_of(values | {"workers": 2})
    program = started("-m", "Pretraining.Text.train", *words)
    wait_until(lambda: len(processes_with(values["run_folder"])) == 3, "no worker processes")
    program.kill()
    program.wait()
    resumed(values)
    wait_until(lambda: processes_with(values["run_folder"]) == [], "worker processes go on")


STUDY = """
from adapter4rec.studies.launching import launch_study
from adapter4rec.studies.plan import Study, StudyRow
launch_study(Study("study_test", "Text", "A test", "Why?", [StudyRow("id", {values!r} | {{"method": "id"}})]))
"""
QUICKSTART = """
from dataclasses import replace
from pathlib import Path
from adapter4rec import quickstart
from adapter4rec.utils.errors import run_main
options = {{"method": "all", "device": "cpu", "epochs": {epochs}}}
quickstart.QUICKSTARTS["text"] = replace(
    quickstart.QUICKSTARTS["text"],
    sample=Path({folder!r}) / "sample",
    runs=Path({folder!r}) / "runs",
    backbone={backbone!r},
    prepare=lambda plan: None,
    source_stages={{"source": options}},
)
run_main(quickstart.main)
"""


def test_a_signal_to_a_study_ends_its_runs(values, tmp_path, started):
    del values["backbone"], values["run_folder"]
    program = tmp_path / "study_test.py"
    plain = {name: value if isinstance(value, int) else str(value) for name, value in values.items()}
    program.write_text(STUDY.format(values=plain), encoding="utf-8")
    study = started(program, "--into", tmp_path / "study", **ANOTHER_JOB)
    wait_until(lambda: list((tmp_path / "study").glob("**/metrics.jsonl")) or study.poll() is not None, "")
    study.send_signal(signal.SIGTERM)
    printed, _ = study.communicate(timeout=60)
    assert study.returncode == 128 + signal.SIGTERM, printed
    assert "Traceback" not in printed
    assert processes_with(tmp_path) == []


def test_a_signal_to_the_quickstart_ends_its_run(values, tmp_path, started):
    program = tmp_path / "program.py"
    parts = {"folder": str(tmp_path), "backbone": str(values["backbone"]), "epochs": EPOCHS}
    program.write_text(QUICKSTART.format(**parts), encoding="utf-8")
    folder = tmp_path / "runs" / "source"
    printed, code = ended_by(started(program, **ANOTHER_JOB), signal.SIGTERM, folder)
    assert code == 128 + signal.SIGTERM, printed
    assert "Traceback" not in printed
    assert processes_with(tmp_path) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_several_processes_says_whom_it_waits_for_and_can_be_stopped(values, rank, free_port, started):
    variables = {"WORLD_SIZE": "4", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port}
    program = started("-m", "Pretraining.Text.train", *words_of(values), **variables)
    line = program.stdout.readline()
    assert f"127.0.0.1:{free_port}" in line
    assert "minutes" in line
    program.send_signal(signal.SIGTERM)
    printed, _ = program.communicate(timeout=60)
    assert program.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in printed


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"RANK": "abc"},
        {"RANK": "4"},
        {"RANK": "-1"},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "many"},
        {"LOCAL_RANK": "x"},
        {"MASTER_PORT": "http"},
        {"MASTER_PORT": "70000"},
        {"MASTER_ADDR": ""},
    ],
)
def test_impossible_variables_are_named(monkeypatch, wrong):
    for name, value in (ANOTHER_JOB | wrong).items():
        monkeypatch.setenv(name, value)
    (name,) = wrong
    with pytest.raises(UserError, match=f"^[^\n]*{name}[^\n]*$"), process_group("cpu"):
        pass


@pytest.mark.parametrize("rank", ["1", "abc"])
def test_a_launcher_reports_its_error_at_once_under_the_variables_of_another_job(monkeypatch, capsys, rank):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("the message is delayed"))
    monkeypatch.setattr(sys, "argv", ["launcher.py", "--epoch", "3"])
    with pytest.raises(SystemExit) as ended:
        launch("Pretraining.Text.train", {})
    assert ended.value.code == 2
    assert "--epoch" in capsys.readouterr().err


def test_an_error_that_a_signal_causes_is_an_interruption(capsys):
    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("as of an extension module that was being loaded") from None

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == 128 + signal.SIGTERM
    assert "SIGTERM" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "left"), [("cpu", 1), ("cuda", 0)])
def test_a_failing_process_does_not_wait_for_the_others_with_nccl(monkeypatch, device, left):
    """There, leaving the group waits for all processes. With gloo, not leaving it aborts the process."""
    calls = []
    place = torch.device(device, 0) if device == "cuda" else torch.device(device)
    monkeypatch.setattr("adapter4rec.utils.process_group._ready_device", lambda *_: place)
    monkeypatch.setattr("adapter4rec.utils.process_group.reset_peak_memory", lambda _: None)
    monkeypatch.setattr("adapter4rec.utils.process_group._join", lambda *_: torch.distributed.HashStore())
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: calls.append("left"))
    monkeypatch.setattr(Process, "largest", lambda _, number: number)
    monkeypatch.setattr(Process, "barrier", lambda _: None)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="of this process alone"), process_group(device):
        raise UserError("of this process alone")
    assert len(calls) == left
    with process_group(device):
        pass
    assert len(calls) == left + 1
