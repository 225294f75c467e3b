"""Studies: rows become runs, finished ones are not done again, failures are passed over.

Few runs are real, since each takes seconds to begin; others are a script that leaves a line in the
ledger.
"""

import json
import os
import re
import runpy
import shlex
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import REPOSITORY, write_domain
from test_recommend import TITLES, clicks  # noqa: F401 (a fixture)

from adapter4rec.runs.ledger import FAILED, FINISHED, command_of, read_ledger
from adapter4rec.studies import launching, running
from adapter4rec.studies.campaign import Campaign
from adapter4rec.studies.paper import source
from adapter4rec.studies.plan import PlannedRun, Study, StudyRow
from adapter4rec.studies.running import Runner, command_of_run
from adapter4rec.utils.errors import EXIT_USER_ERROR, UserError

PAGES = sorted(REPOSITORY.glob("*/*/script/study_*.py"))
SMALL = {
    "embedding_dim": 8,
    "max_seq_len": 6,
    "batch_size": 8,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "epochs": 1,
}


@pytest.fixture
def study(tmp_path, clicks, tiny_bert_folder):
    users, items = write_domain(tmp_path, clicks, TITLES)
    common = SMALL | {"users": users, "items": items, "cache_folder": tmp_path / "cache"}
    content = common | {"backbone": str(tiny_bert_folder)}
    rows = [
        StudyRow("popularity", common | {"method": "popularity"}),
        StudyRow("frozen", content | {"method": "frozen"}, source="a source"),
        StudyRow("id", common | {"method": "id"}),
    ]
    return Study("study_test", "Text", "A test", "Why?", rows, {"a source": content}, seeds=[1, 2])


def carried_out(study, tmp_path, *options):
    arguments = ["--into", str(tmp_path / "study"), *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{study.name}.py", *arguments])
        return launching.carry_out(Campaign(study, arguments))


def campaign(study, tmp_path, *options):
    return Campaign(study, ["--into", str(tmp_path / "study"), *options])


FAKE = """
import json, os, sys, time
folder, name, key, ledger, export, settings = sys.argv[1:]
def say(what):
    descriptor = os.open(folder + "/events", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{what}|{name}|{os.getpid()}\\n".encode())
def begun():
    return [line for line in open(folder + "/events") if line.startswith("begin")]
def wait_for(what):
    until = time.monotonic() + 60
    while not what():
        time.sleep(0.02)
        if time.monotonic() > until:
            say("gave up")
            sys.exit("nothing came")
say("begin")
if os.path.exists(folder + "/broken") and "broken" in name:
    sys.exit("this row is broken")
if "slow" in name:
    wait_for(lambda: os.path.exists(folder + "/hurry"))
if "together" in name:
    wait_for(lambda: len(begun()) >= 2)
if export:
    os.makedirs(os.path.dirname(export), exist_ok=True)
    open(export, "w").close()
if "silent" not in name:
    line = {"ledger": 1, "outcome": "finished", "key": key, "settings": json.loads(settings)}
    line |= {"seconds": 7200.0, "epochs": [], "name": name, "folder": folder, "seed": 1}
    line |= {"domain": {"name": "", "users": 12, "items": 9, "clicks": 99}, "versions": {}}
    line |= {"parameters": {"trained": 1, "total": 4, "share": 25.0}}
    line |= {"hardware": {"device": "cpu", "processes": 1, "threads": 1, "platform": "linux"}, "test": {}}
    line |= dict.fromkeys(("start", "seconds_per_epoch", "peak_memory_bytes")) | {"validation": {}}
    line |= {"identity": {"method": ""}, "groups": {}, "stage": "", "command": "", "data": ""}
    line |= {"best_epoch": 0}
    with open(ledger, "a") as file:
        file.write(json.dumps(line) + "\\n")
say("end")
"""


@dataclass
class Fakes:
    """What runs did that were a script instead; where ``broken`` or ``hurry`` lies, they do otherwise."""

    folder: Path

    def events(self):
        """Each as what, name and process."""
        path = self.folder / "events"
        return [line.split("|") for line in path.read_text().splitlines()] if path.exists() else []

    def names(self, what="begin"):
        return [name for kind, name, _ in self.events() if kind == what]

    def wait_for(self, name):
        until = time.monotonic() + 60
        while name not in self.names():
            assert time.monotonic() < until
            time.sleep(0.02)

    def command(self, planned, processes, ledger):
        del processes
        settings = planned.settings
        arguments = [planned.name, planned.key, ledger, getattr(settings, "export", None) or ""]
        plain = json.dumps(settings.plain())
        return [sys.executable, "-S", "-c", FAKE, *map(str, [self.folder, *arguments, plain])]


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    folder = tmp_path / "fakes"
    folder.mkdir()
    fakes = Fakes(folder)
    monkeypatch.setattr(running, "command_of_run", fakes.command)
    monkeypatch.setattr(launching, "_report", lambda *_: None)  # it would take most of the time
    return fakes


class TestWhole:
    def test_from_start_to_page_and_nothing_twice(self, study, tmp_path, capsys):
        study = replace(study, rows=study.rows[:2])
        assert carried_out(study, tmp_path, "--jobs", "2", "--k", "5,10") == 0
        folder = tmp_path / "study"
        records = read_ledger(folder / "ledger.jsonl")
        assert sorted(record["stage"] for record in records) == ["text source", *["text target"] * 4]
        assert all(record["outcome"] == FINISHED for record in records)
        assert all("HR@5" in record["test"] for record in records if record["stage"] == "text target")
        (exported,) = (folder / "sources").glob("*.safetensors")
        starts = {record["settings"].get("source_checkpoint") for record in records}
        assert starts == {None, str(exported)}
        plan = json.loads((folder / "study.json").read_text())
        keys = {run["key"] for row in plan["rows"] for run in row["runs"]}
        assert keys == {record["key"] for record in records if record["stage"] == "text target"}
        page = (folder / "report" / "study_test.html").read_text()
        assert "A test" in page
        assert "not run" not in (folder / "report" / "table.md").read_text()
        capsys.readouterr()
        assert carried_out(study, tmp_path) == 0
        printed = capsys.readouterr().out
        assert "4 of 4 runs are already finished" in printed
        assert "started" not in printed
        assert len(read_ledger(folder / "ledger.jsonl")) == 5

    def test_a_row_that_fails_is_recorded_and_passed_over(self, study, tmp_path, capsys):
        few = tmp_path / "few.tsv"
        few.write_text("u1\ti1 i2 i3 i1 i2 i3\n", encoding="utf-8")
        broken = StudyRow("broken", study.rows[2].settings | {"users": few})
        study = replace(study, rows=[broken, study.rows[0]], sources={}, seeds=[1])
        assert carried_out(study, tmp_path) == EXIT_USER_ERROR
        records = read_ledger(tmp_path / "study" / "ledger.jsonl")
        assert [one["outcome"] for one in records] == [FAILED, FINISHED]
        assert "cannot sample a negative" in records[0]["message"]
        printed = capsys.readouterr().out
        assert "FAILED   broken, seed 1, exit code 2" in printed
        assert printed.rstrip().endswith("failed: broken, seed 1")
        assert "failed (exit code 2)" in (tmp_path / "study" / "report" / "table.md").read_text()


class TestCarryingOut:
    """Runs are fakes."""

    def test_a_failed_run_is_tried_again_and_no_other(self, study, tmp_path, fakes):
        rows = [replace(study.rows[2], name="broken"), study.rows[0]]
        study = replace(study, rows=rows, sources={}, seeds=[1])
        (fakes.folder / "broken").touch()
        for _ in range(2):
            assert carried_out(study, tmp_path) == EXIT_USER_ERROR
        (fakes.folder / "broken").unlink()
        assert carried_out(study, tmp_path) == 0
        assert fakes.names() == ["broken, seed 1", "popularity, seed 1", *["broken, seed 1"] * 2]
        records = read_ledger(tmp_path / "study" / "ledger.jsonl")
        assert [one["outcome"] for one in records] == [FAILED, FINISHED, FAILED, FINISHED]
        assert records[0]["message"] == "this row is broken"

    def test_without_its_source_model_a_row_is_not_run(self, study, tmp_path, fakes, capsys):
        sources = {"broken": study.sources["a source"]}
        rows = [study.rows[0], replace(study.rows[1], source="broken")]
        (fakes.folder / "broken").touch()
        assert carried_out(replace(study, rows=rows, sources=sources), tmp_path) == EXIT_USER_ERROR
        assert fakes.names() == ["source broken", "popularity, seed 1", "popularity, seed 2"]
        assert "failed: frozen, seed 2 (no source model)" in capsys.readouterr().out

    def test_a_source_model_that_was_lost_or_is_to_have_more_epochs_is_trained_again(
        self, study, tmp_path, fakes
    ):
        study = replace(study, rows=[study.rows[1]], seeds=[1])
        assert carried_out(study, tmp_path) == 0
        assert fakes.names() == ["source a source", "frozen, seed 1"]
        first, row = (one["settings"] for one in read_ledger(tmp_path / "study" / "ledger.jsonl"))
        assert row["source_checkpoint"] == first["export"]
        Path(first["export"]).unlink()
        assert carried_out(study, tmp_path) == 0
        assert fakes.names()[2:] == ["source a source"]
        assert carried_out(study, tmp_path, "--source_epochs", "2") == 0
        assert fakes.names()[3] == "source a source"

    def test_a_row_and_a_seed_are_added(self, study, tmp_path, fakes, capsys):
        assert carried_out(study, tmp_path, "--only", "popularity", "--seeds", "1") == 0
        assert fakes.names() == ["popularity, seed 1"]  # and no source model
        assert carried_out(study, tmp_path, "--only", "popularity", "id", "--seeds", "1", "3") == 0
        assert fakes.names()[1:] == ["id, seed 1", "popularity, seed 3", "id, seed 3"]
        assert "1 of 4 runs are already finished" in capsys.readouterr().out

    def test_a_stopped_study_ends_its_runs_and_does_the_rest(self, study, tmp_path, fakes, monkeypatch):
        popularity, _, tower = study.rows
        late = StudyRow("late", tower.settings | {"dropout": 0.5})
        study = replace(study, rows=[popularity, replace(tower, name="slow"), late], sources={}, seeds=[1])
        monkeypatch.setattr(sys, "argv", ["study_test.py", "--into", str(tmp_path / "study")])

        def stop():
            fakes.wait_for("slow, seed 1")
            os.kill(os.getpid(), signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, lambda *_: None)  # the study has its own meanwhile
        stopper = threading.Thread(target=stop)
        stopper.start()
        try:
            with pytest.raises(SystemExit) as ended:
                launching.launch_study(study)
        finally:
            stopper.join()
            signal.signal(signal.SIGTERM, before)
        assert ended.value.code == 128 + signal.SIGTERM
        assert fakes.names() == ["popularity, seed 1", "slow, seed 1"]
        assert fakes.names("gave up") == []  # it was ended, and did not end by itself
        with pytest.raises(ProcessLookupError):
            os.kill(int(fakes.events()[-1][2]), 0)
        (record,) = read_ledger(tmp_path / "study" / "ledger.jsonl")  # what was stopped has not failed
        assert (record["outcome"], record["settings"]["method"]) == (FINISHED, "popularity")
        (fakes.folder / "hurry").touch()
        assert carried_out(study, tmp_path) == 0
        assert fakes.names()[2:] == ["slow, seed 1", "late, seed 1"]

    def test_two_at_once(self, study, tmp_path, fakes):
        rows = [replace(study.rows[0], name="together")]
        assert carried_out(replace(study, rows=rows, seeds=[1, 2, 3, 4]), tmp_path, "--jobs", "2") == 0
        going, most = 0, 0
        for what, *_ in fakes.events():
            going += 1 if what == "begin" else -1
            most = max(most, going)
        assert most == 2

    def test_a_run_that_left_another_line_has_failed(self, study, tmp_path, fakes):
        rows = [replace(study.rows[0], name="silent")]
        assert carried_out(replace(study, rows=rows, seeds=[1]), tmp_path) == EXIT_USER_ERROR
        (record,) = read_ledger(tmp_path / "study" / "ledger.jsonl")
        assert (record["outcome"], record["exit_code"]) == (FAILED, 0)
        assert "more epochs" in record["message"]

    def test_missing_data_is_noticed_before_a_source_is_trained(self, study, tmp_path, fakes):
        rows = [replace(study.rows[1], settings=study.rows[1].settings | {"users": tmp_path / "none.tsv"})]
        with pytest.raises(UserError, match=r"none\.tsv: no such file"):
            carried_out(replace(study, rows=rows), tmp_path)
        assert fakes.names() == []


class TestCommandLine:
    def test_seeds_and_settings_for_the_rows_that_know_them(self, study, tmp_path):
        options = ["--seeds", "7", "8", "9", "--lr_item_head", "0.25", "--backbone", "another"]
        mine = campaign(study, tmp_path, *options, "--source_epochs", "3", "--k", "5,10")
        assert mine.how.seeds == (7, 8, 9)
        popularity, frozen, tower = map(mine.row_values, study.rows)
        assert tower["lr_item_head"] == "0.25"
        assert frozen["backbone"] == popularity["backbone"] == "another"
        assert mine.source_values("a source")["epochs"] == "3"
        assert mine.target_run(study.rows[2], 7).settings.k == (5, 10)

    def test_an_adapters_setting_reaches_its_rows_alone(self, study, tmp_path):
        content = study.rows[1].settings
        rows = [StudyRow(name, content | {"method": name}, source="a source") for name in ("lora", "head")]
        mine = campaign(replace(study, rows=rows), tmp_path, "--item_rank", "3")
        assert ["item_rank" in mine.row_values(row) for row in rows] == [True, False]

    def test_a_row_without_a_method_is_at_its_default(self, study, tmp_path):
        plain = {name: value for name, value in study.rows[1].settings.items() if name != "method"}
        study = replace(study, rows=[replace(study.rows[1], settings=plain)])
        assert campaign(study, tmp_path).target.from_values(plain).method == "finetune"

    def test_few_steps(self, study, tmp_path):
        assert campaign(study, tmp_path).row_values(study.rows[2]).get("lr_item_head") is None
        values = campaign(study, tmp_path, "--few_steps").row_values(study.rows[2])
        assert (values["lr_item_head"], values["lr_user_encoder"]) == (1e-3, 1e-3)
        lora = StudyRow("LoRA", study.rows[1].settings | {"method": "lora"})
        assert campaign(study, tmp_path, "--few_steps").row_values(lora)["lr_adapter"] == 5e-3
        values = campaign(study, tmp_path, "--few_steps", "--lr_item_head", "2").row_values(study.rows[2])
        assert values["lr_item_head"] == "2"

    def test_only_some_rows(self, study, tmp_path):
        rows = [replace(row, section=section) for section in ("A, x", "B") for row in study.rows]
        study = replace(study, rows=rows)

        def only(*patterns):
            return [row.label for row in campaign(study, tmp_path, "--only", *patterns).rows]

        assert only("a, x: *") == ["A, x: popularity", "A, x: frozen", "A, x: id"]
        assert only("id") == ["A, x: id", "B: id"]
        assert only("B") == ["B: popularity", "B: frozen", "B: id"]
        assert only("id", "b: f*") == ["A, x: id", "B: frozen", "B: id"]
        with pytest.raises(UserError, match="did you mean 'B: frozen'"):
            only("B: frosen")

    def test_the_plan_has_the_selected_rows(self, study, tmp_path):
        absent = replace(
            study.rows[2], name="absent", settings=study.rows[2].settings | {"users": "none.tsv"}
        )
        study = replace(study, rows=[*study.rows, absent])
        campaign(study, tmp_path, "--only", "frozen", "id", "absent").write_plan()
        plan = json.loads((tmp_path / "study" / "study.json").read_text())
        known = {row["name"]: [run["key"] is not None for run in row["runs"]] for row in plan["rows"]}
        there, not_there = [True, True], [False, False]
        assert known == {"frozen": not_there, "id": there, "absent": not_there}

    def test_rows_that_would_be_one_are_an_error(self, study, tmp_path):
        tower = study.rows[2]
        same = [tower, replace(tower, name="id again")]
        with pytest.raises(UserError, match="'id again' has the same settings as row 'id'"):
            campaign(replace(study, rows=same), tmp_path)
        campaign(replace(study, rows=same), tmp_path, "--only", "id")
        wide = replace(tower, name="wide", settings=tower.settings | {"dropout": 0.5})
        campaign(replace(study, rows=[tower, wide]), tmp_path)
        with pytest.raises(UserError, match="overrides the setting"):
            campaign(replace(study, rows=[tower, wide]), tmp_path, "--dropout", "0.2")
        with pytest.raises(UserError, match="'id' has the same name as row 'id'"):
            campaign(replace(study, rows=[tower, replace(wide, name="id")]), tmp_path)

    def test_an_unknown_source_model_is_an_error(self, study, tmp_path):
        rows = [replace(study.rows[1], source="a sourse")]
        with pytest.raises(UserError, match="did you mean 'a source'"):
            campaign(replace(study, rows=rows), tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--seed", "1"], "did you mean 'seeds'"),  # these are the study's to give
            (["--ledger", "here"], "unknown option --ledger"),
            (["--source_run_folder", "here"], "unknown option --source_run_folder"),
            (["--source_export", "here"], "unknown option --source_export"),
            (["--method", "id"], "unknown option --method"),
            (["--lr_item_hed", "1"], "did you mean 'lr_item_head'"),
            (["--source_epoch", "1"], "did you mean 'source_epochs'"),
            (["--epochs", "1", "2"], "a single value"),
            (["--jobs", "0"], "at least 1"),
            (["--seeds", "1", "1"], "duplicate"),
        ],
    )
    def test_impossible_options(self, study, tmp_path, options, message):
        with pytest.raises(UserError, match=message):
            campaign(study, tmp_path, *options)

    def test_an_impossible_value_is_noticed_before_a_run(self, study, tmp_path, fakes):
        with pytest.raises(UserError, match="--dropout 2"):
            carried_out(study, tmp_path, "--dropout", "2")
        assert fakes.names() == []

    def test_one_source_model_for_all(self, study, tmp_path):
        given = ("--source_checkpoint", "one.safetensors")
        assert campaign(study, tmp_path, *given).wanted_sources() == []

    def test_a_source_model_that_is_there_is_used_unless_another_is_asked_for(self, study, tmp_path):
        ready = tmp_path / "ready.safetensors"
        ready.touch()
        content = study.sources["a source"]
        study = replace(study, sources={"a source": content | {"export": str(ready)}})
        run = campaign(study, tmp_path).target_run(study.rows[1], 1)
        assert run.settings.source_checkpoint == ready
        assert campaign(study, tmp_path, "--source_epochs", "3").target_run(study.rows[1], 1) is None

    def test_the_plan_says_a_command_that_can_be_given_again(self, study, tmp_path, fakes):
        options = ["--only", "id, or so", "--seeds", "1"]
        rows = [replace(study.rows[2], name="id, or so")]
        assert carried_out(replace(study, rows=rows), tmp_path, *options) == 0
        plan = json.loads((tmp_path / "study" / "study.json").read_text())
        said = ["python", "study_test.py", "--into", str(tmp_path / "study"), *options]
        assert shlex.split(plan["command"]) == said


class TestDryRun:
    def test_before_the_first_run_and_nothing_is_run(self, study, tmp_path, fakes, capsys):
        assert carried_out(study, tmp_path, "--dry-run") == 0
        printed = capsys.readouterr().out
        assert "source a source: not trained yet\n" in printed
        assert "frozen: 2 seeds, 0 finished\n" in printed
        assert "7 runs remain; their time can be estimated once one has finished" in printed
        assert fakes.names() == []
        assert not (tmp_path / "study").exists()

    def test_what_is_finished_is_not_to_do(self, study, tmp_path, fakes, capsys):
        assert carried_out(study, tmp_path) == 0
        capsys.readouterr()
        assert carried_out(study, tmp_path, "--dry-run") == 0
        printed = capsys.readouterr().out
        assert re.search(r"source a source: .*\.safetensors\n", printed)
        assert "id: 2 seeds, 2 finished\n" in printed
        assert "0 runs remain, roughly 0.0 hours of training\n" in printed

    def test_the_time_is_that_of_the_finished_runs_in_proportion_to_the_sequences(
        self, study, tmp_path, fakes, capsys
    ):
        users = len((tmp_path / "users.tsv").read_text().splitlines())
        study = replace(study, rows=[study.rows[2]])
        assert carried_out(study, tmp_path) == 0  # each took 2 hours, for 12 users and 1 epoch
        changed = ("--seeds", "3", "4", "--epochs", "6", "--user_share", "0.5", "--jobs", "2")
        assert carried_out(study, tmp_path, "--dry-run", *changed) == 0
        hours = 2 * 2 * users / 12 * 6 * 0.5 / 2
        assert f"2 runs remain, roughly {hours:,.1f} hours" in capsys.readouterr().out


class TestRunner:
    def environment(self, place=0, **changes):
        values = {"jobs": 1, "processes": 1, "gpus": 0} | changes
        return Runner(Path("ledger.jsonl"), **values)._environment(place)

    def test_runs_at_once_share_neither_gpus_nor_cores(self, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 8)

        def gpus(jobs, processes):
            them = [self.environment(place, jobs=jobs, processes=processes, gpus=4) for place in range(jobs)]
            return [one["CUDA_VISIBLE_DEVICES"] for one in them]

        assert gpus(3, 2) == ["0,1", "2,3", "0,1"]
        assert gpus(2, 1) == ["0", "1"]
        alone = self.environment(gpus=4)
        assert {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}.isdisjoint(alone)
        assert self.environment(jobs=2, processes=2)["OMP_NUM_THREADS"] == "2"
        assert self.environment(processes=2)["OMP_NUM_THREADS"] == "4"
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert self.environment(jobs=2)["OMP_NUM_THREADS"] == "1"

    def test_of_the_gpus_that_the_study_itself_was_given(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
        seen = [self.environment(place, jobs=2, gpus=2)["CUDA_VISIBLE_DEVICES"] for place in range(2)]
        assert seen == ["3", "5"]

    def test_a_places_environment_reaches_its_run(self, study, tmp_path, monkeypatch):
        runner = Runner(tmp_path / "ledger.jsonl", jobs=2, processes=1, gpus=2)
        run = campaign(study, tmp_path).target_run(study.rows[0], 1)
        program = "import os; print(os.environ['CUDA_VISIBLE_DEVICES']); raise SystemExit(1)"
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(running, "command_of_run", lambda *_: [sys.executable, "-S", "-c", program])
        runs = [PlannedRun(name, run.settings, tmp_path / name, run.key) for name in ("a", "b")]
        runner.carry_out(runs)
        assert {(tmp_path / "logs" / f"{name}.txt").read_text().strip() for name in "ab"} == {"0", "1"}

    def test_several_processes_are_started_by_torchrun(self, study, tmp_path):
        run = campaign(study, tmp_path).target_run(study.rows[2], 2)
        one = command_of_run(run, 1, tmp_path / "ledger.jsonl")
        assert one[:3] == [sys.executable, "-m", "Downstream.Text.train"]
        given = dict(zip(one[3::2], one[4::2], strict=True))
        assert (given["--ledger"], given["--seed"]) == (str(tmp_path / "ledger.jsonl"), "2")
        assert (given["--resume"], given["--run_folder"]) == ("true", str(run.folder))
        two = command_of_run(run, 2, tmp_path / "ledger.jsonl")
        assert two[2:7] == ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", one[2]]

    def test_a_longer_training_keeps_its_folder_and_nothing_else_does(self, study, tmp_path):
        def run(row=study.rows[2], seed=1, **changes):
            changed = replace(row, settings=row.settings | changes)
            return campaign(study, tmp_path).target_run(changed, seed)

        assert run(epochs=2).folder == run().folder
        assert run(epochs=2).key != run().key
        folders = [run(), run(seed=2), run(dropout=0.5), run(study.rows[0])]
        assert len({one.folder for one in folders}) == 4
        assert "--run_folder" in command_of(run().settings)


class TestPages:
    """The repository's."""

    @pytest.fixture(params=PAGES, ids=lambda path: "-".join((*path.parts[-4:-2], path.stem)))
    def page(self, request):
        return request.param

    def test_a_page_is_sound(self, page, tmp_path):
        study = runpy.run_path(str(page))["study"]
        assert study.name == page.stem
        assert study.tree == page.parts[-3]
        assert len({row.label for row in study.rows}) == len(study.rows)
        for options in ([], ["--few_steps"], ["--sample"]):
            mine = campaign(study, tmp_path, *options)
            settings = [mine.target.from_values(mine.row_values(row)).plain() for row in study.rows]
            rows = zip(study.rows, settings, strict=True)
            different = {json.dumps([row.section, row.source, plain], sort_keys=True) for row, plain in rows}
            assert len(different) == len(study.rows)
            for name in mine.wanted_sources():
                mine.source.from_values(mine.source_values(name))
        assert set(study.sources) == set(campaign(study, tmp_path).wanted_sources())

    @pytest.mark.parametrize("sample", [[], ["--sample"]], ids=["", "sample"])
    def test_a_dry_run_without_the_data_says_so(self, page, sample, tmp_path, capsys):
        study = runpy.run_path(str(page))["study"]
        none = str(tmp_path / "none.tsv")
        given = [f"--{stage}{name}={none}" for stage in ("", "source_") for name in ("users", "items")]
        assert carried_out(study, tmp_path, "--dry-run", *sample, *given) == 0
        printed = capsys.readouterr().out
        assert printed.count(": not trained yet") == len(study.sources)
        assert printed.count(f": {len(study.seeds)} seeds, 0 finished") == len(study.rows)

    def test_there_are_all(self):
        assert len(PAGES) == 16

    def test_unknown_settings_are_named(self, study, tmp_path):
        row = replace(study.rows[2], settings={"method": "id", "epoch": 1})
        with pytest.raises(UserError, match="'epochs'"):
            carried_out(replace(study, rows=[row]), tmp_path)
        sources = {"a source": {"epoch": 1}}
        with pytest.raises(UserError, match="'epochs'"):
            campaign(replace(study, sources=sources), tmp_path).source_run("a source")

    def test_a_source_that_is_changed_is_not_the_one_that_a_launcher_exports(self):
        script = "Pretraining/Text/script/sm_base_sasrec"
        said = source(script, backbone="bert/bert_base_uncased")["export"]
        assert said == runpy.run_path(str(REPOSITORY / f"{script}.py"))["hyperparameters"]["export"]
        assert "export" not in source(script, user_share=0.5)
        with pytest.raises(UserError, match="sm_base_sasrec"):
            source("Pretraining/Text/script/sm_base_sasrek")


def test_recommendations_of_the_best_run_on_images_are_drawn(tmp_path, monkeypatch):
    def record(name, method, hits, images="pictures"):
        values = {"method": method, "images": images}
        return {"folder": str(tmp_path / name), "settings": values, "validation": {"HR@10": hits}}

    drawn = []

    def drawing(command, **_):
        drawn.append(command[command.index("adapter4rec.recommend") + 1])
        Path(command[command.index("--sheet") + 1]).write_bytes(b"a sheet")

    monkeypatch.setattr("adapter4rec.studies.launching.run", drawing)
    runs = [record("id", "id", 9), record("weak", "head", 1), record("best", "finetune", 3)]
    (tmp_path / "best").mkdir()
    for _ in range(2):  # the second finds it
        assert launching.draw_examples(runs) == tmp_path / "best" / "recommendations.png"
    assert drawn == [str(tmp_path / "best")]
    assert launching.draw_examples([record("id", "id", 9), record("text", "head", 9, images=None)]) is None
