"""The ledger: a line a run, appended whole, and keys that tell runs apart."""

import errno
import json
import multiprocessing
import shlex
import sys

import pytest
import torch
from conftest import write_domain
from test_recommend import COMMON, TITLES, clicks  # noqa: F401 (a fixture)
from test_tensorboard import scalars_in
from trees import TextSourceSettings, TextTargetSettings, carry_out

from adapter4rec.runs.ledger import (
    FAILED,
    FINISHED,
    append,
    command_of,
    failed_record,
    finished_record,
    latest,
    read_ledger,
    run_key,
)
from adapter4rec.utils.command_line import settings_from_command_line
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import locked_file
from adapter4rec.utils.machine import peak_memory, reset_peak_memory

SEVERAL = multiprocessing.get_context("fork")  # a process that is spawned imports torch for seconds


@pytest.fixture
def values(tmp_path, clicks, tiny_bert_folder):
    users, items = write_domain(tmp_path, clicks, TITLES)
    places = {"users": users, "items": items, "cache_folder": tmp_path / "cache"}
    return COMMON | places | {"backbone": str(tiny_bert_folder), "run_folder": tmp_path / "runs" / "one"}


def failed(key, **more):
    texts = dict.fromkeys(("stage", "name", "folder", "command", "message"), "")
    values = {
        "outcome": FAILED,
        "key": key,
        "settings": {},
        "identity": {"method": ""},
        "seed": 1,
        "exit_code": 1,
    }
    return texts | values | more


def append_many(path, writer):
    for number in range(50):
        append(path, failed(writer, number=number, filling="x" * 3000))


class TestAppending:
    def test_several_processes_keep_lines_whole(self, tmp_path):
        path = tmp_path / "ledger.jsonl"
        writers = [SEVERAL.Process(target=append_many, args=(path, name)) for name in "ab"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        numbers = {"a": [], "b": []}
        for record in read_ledger(path):
            numbers[record["key"]].append(record["number"])
        assert numbers == {"a": list(range(50)), "b": list(range(50))}

    def test_an_unfinished_line_stays_alone_and_is_named(self, tmp_path, capsys):
        path = tmp_path / "ledger.jsonl"
        append(path, failed("a"))
        with path.open("a") as file:
            file.write('{"ledger": 1, "outc')
        append(path, failed("b"))
        assert [record["key"] for record in read_ledger(path)] == ["a", "b"]
        assert "ledger.jsonl:2: skipped damaged line" in capsys.readouterr().err

    def test_a_line_may_hold_what_ends_lines_elsewhere(self, tmp_path):
        message = "one\ntwo\r\nthree\x85four\u2028five\x0csix"
        append(tmp_path / "ledger.jsonl", failed("a", message=message))
        (record,) = read_ledger(tmp_path / "ledger.jsonl")
        assert record["message"] == message

    def test_a_newer_form_is_refused(self, tmp_path):
        (tmp_path / "ledger.jsonl").write_text('{"ledger": 2, "outcome": "finished", "key": "a"}\n')
        with pytest.raises(UserError, match=r"ledger\.jsonl:1: unsupported ledger version 2"):
            read_ledger(tmp_path / "ledger.jsonl")
        with pytest.raises(UserError, match="no such ledger"):
            read_ledger(tmp_path / "none.jsonl")

    def test_a_finished_run_counts_before_a_failure(self):
        said = [("a", FAILED, 1), ("a", FINISHED, 2), ("a", FAILED, 3), ("b", FAILED, 4), ("b", FAILED, 5)]
        said += [("c", FINISHED, 6), ("c", FINISHED, 7)]
        records = [{"key": key, "outcome": outcome, "n": n} for key, outcome, n in said]
        assert {key: record["n"] for key, record in latest(records).items()} == {"a": 2, "b": 5, "c": 7}


class TestKeys:
    def test_what_changes_a_key(self, values, tmp_path):
        def key(**changes):
            return run_key(TextSourceSettings.from_values(values | changes))

        same = key()
        assert key(run_folder=tmp_path / "elsewhere", threads=1, workers=2, k="5,10") == same
        moved = tmp_path / "moved.tsv"
        moved.write_bytes(values["users"].read_bytes())
        assert key(users=moved) == same
        moved.write_bytes(values["users"].read_bytes() + b"u99\ti1 i2 i3 i4 i5\n")
        others = [key(users=moved), key(epochs=2), key(seed=2), key(user_share=0.5), key(method="head")]
        others += [key(patience=2)]
        assert len({same, *others}) == 7
        with pytest.raises(UserError, match=r"--users .*none\.tsv: no such file"):
            key(users=tmp_path / "none.tsv")

    def test_the_command_repeats_the_run(self, values):
        settings = TextTargetSettings.from_values(values | {"method": "lora", "item_rank": 3, "k": "5,20"})
        words = shlex.split(command_of(settings))
        assert words[:3] == ["python", "-m", "Downstream.Text.train"]
        assert settings_from_command_line(TextTargetSettings, words[3:]) == settings
        assert "--item_rank" in words
        assert "--item_rank" not in command_of(settings, without=["item_rank"])


class TestRuns:
    def test_tensorboard_shows_what_the_metrics_say(self, values, tmp_path):
        carry_out(TextSourceSettings.from_values(values | {"tensorboard": True}))
        folder = values["run_folder"]
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        expected = {
            f"{record['split']}/{name}": [(record["epoch"], pytest.approx(value, rel=1e-6))]
            for record in map(json.loads, lines)
            for name, value in record.items()
            if name not in ("epoch", "split")
        }
        assert scalars_in(folder / "tensorboard") == expected

    def test_each_finished_training_leaves_one_line(self, values, tmp_path):
        ledger = tmp_path / "runs" / "ledger.jsonl"

        def run(**changes):
            carry_out(TextSourceSettings.from_values(values | changes))
            return read_ledger(ledger)

        (record,) = run(k="5,10")
        result = json.loads((tmp_path / "runs" / "one" / "result.json").read_text())
        assert record["outcome"] == FINISHED
        assert record["test"] == result["test"]
        assert {"HR@5", "NDCG@5", "HR@10", "MRR", "coverage@5", "coverage@10"} <= set(record["test"])
        assert [one["epoch"] for one in record["epochs"]] == [1]
        assert record["parameters"]["trained"] == result["trained_parameters"]
        assert record["domain"]["users"] == 12
        assert record["identity"] == TextSourceSettings.from_values(values).plain(runtime=False)
        assert sum(group["users"] for group in record["groups"]["target item"]) == 12
        assert len(run(resume=True)) == 1
        assert [one["settings"]["epochs"] for one in run(resume=True, epochs=2)] == [1, 2]
        assert len(run(resume=True, epochs=1)) == 2  # there is no training of one epoch any more
        ledger.unlink()  # one that was lost comes back
        assert len(run(resume=True, epochs=2)) == 1
        elsewhere = tmp_path / "all.jsonl"
        run(resume=True, epochs=1, ledger=elsewhere)
        (there,) = read_ledger(elsewhere)
        assert (there["settings"]["epochs"], len(there["epochs"])) == (2, 2)
        assert there["key"] == read_ledger(ledger)[0]["key"] != record["key"]

    def test_a_share_of_the_users_is_trained_on(self, values, tmp_path):
        carry_out(TextSourceSettings.from_values(values | {"user_share": 0.5}))
        (record,) = read_ledger(tmp_path / "runs" / "ledger.jsonl")
        (epoch,) = record["epochs"]
        assert epoch["sequences_per_second"] * epoch["seconds"] == pytest.approx(6)
        assert record["settings"]["user_share"] == 0.5

    def test_two_runs_do_not_share_a_folder(self, values):
        folder = values["run_folder"]
        folder.mkdir(parents=True)
        with locked_file(folder / ".lock"), pytest.raises(UserError, match="in use by another process"):
            carry_out(TextSourceSettings.from_values(values))
        carry_out(TextSourceSettings.from_values(values))

    def test_a_failure_says_how_it_ended(self, values, tmp_path):
        settings = TextSourceSettings.from_values(values)
        append(
            tmp_path / "l.jsonl", failed_record(values["run_folder"], settings, "0123", 2, "error: no disk")
        )
        (record,) = read_ledger(tmp_path / "l.jsonl")
        assert (record["outcome"], record["exit_code"], record["message"]) == (FAILED, 2, "error: no disk")
        assert record["key"] == "0123"

    def test_the_key_is_that_of_the_data_that_were_read(self, values, tmp_path):
        settings = TextSourceSettings.from_values(values)
        carry_out(settings)
        (record,) = read_ledger(tmp_path / "runs" / "ledger.jsonl")
        assert record["key"] == run_key(settings)
        with values["users"].open("ab") as users:  # while the run was trained
            users.write(b"u99\ti1 i2 i3 i4 i5\n")
        assert finished_record(values["run_folder"], settings)["key"] == record["key"] != run_key(settings)


@pytest.mark.parametrize("reason", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_used_without_them(tmp_path, monkeypatch, reason):
    def refuses(*_):
        raise OSError(getattr(errno, reason), "no locks here")

    monkeypatch.setattr("fcntl.flock", refuses)
    append(tmp_path / "ledger.jsonl", {"a": 1})
    assert (tmp_path / "ledger.jsonl").read_text().count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot count anew")
def test_the_peak_memory_of_a_second_training_is_its_own():
    before = peak_memory()
    assert len(bytearray(300 << 20)) > 0
    assert peak_memory() > before + (250 << 20)
    reset_peak_memory(torch.device("cpu"))
    assert peak_memory() < before + (100 << 20)
