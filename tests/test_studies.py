"""Studies: rows become runs, finished ones are not done again, failures are passed over."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from conftest import REPOSITORY, write_domain
from test_recommend import TITLES, clicks  # noqa: F401 (a fixture)

from adapter4rec.errors import UserError
from adapter4rec.ledger import FAILED, FINISHED, read_ledger
from adapter4rec.studies import launching, samples
from adapter4rec.studies.launching import Campaign
from adapter4rec.studies.plan import TARGET_SETTINGS, Row, Source, Study, require_sound
from adapter4rec.studies.running import Runner

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
def study(tmp_path, clicks, tiny_bert_folder):  # noqa: F811
    users, items = write_domain(tmp_path, clicks, TITLES)
    common = SMALL | {"users": users, "items": items, "cache_folder": tmp_path / "cache"}
    content = common | {"backbone": str(tiny_bert_folder)}
    rows = [
        Row("popularity", common | {"method": "popularity"}),
        Row("frozen", content | {"method": "frozen"}, source="a source"),
        Row("id", common | {"method": "id"}, few_steps={"lr_item_head": 0.5}),
    ]
    return Study("study_test", "text", "A test", "Why?", rows, {"a source": Source([content])}, seeds=[1, 2])


def carried_out(study, tmp_path, *options):
    arguments = ["--into", str(tmp_path / "study"), *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{study.name}.py", *arguments])
        return launching._launch(study, arguments)


def campaign(study, tmp_path, *options):
    return Campaign.of(study, ["--into", str(tmp_path / "study"), *options])


class TestWhole:
    def test_from_start_to_page_and_nothing_twice(self, study, tmp_path, capsys):
        assert carried_out(study, tmp_path, "--jobs", "2") == 0
        folder = tmp_path / "study"
        records = read_ledger(folder / "ledger.jsonl")
        assert sorted(record["stage"] for record in records) == ["text source", *["text target"] * 6]
        assert all(record["outcome"] == FINISHED for record in records)
        plan = json.loads((folder / "study.json").read_text())
        keys = {run["key"] for row in plan["rows"] for run in row["runs"]}
        assert keys == {record["key"] for record in records if record["stage"] == "text target"}
        page = (folder / "report" / "study_test.html").read_text()
        assert "A test" in page
        assert "not run" not in (folder / "report" / "table.md").read_text()
        capsys.readouterr()
        assert carried_out(study, tmp_path) == 0
        printed = capsys.readouterr().out
        assert "6 of 6 runs are finished already" in printed
        assert "begins" not in printed
        assert len(read_ledger(folder / "ledger.jsonl")) == 7

    def test_a_row_that_fails_is_recorded_and_tried_again(self, study, tmp_path, capsys):
        few = tmp_path / "few.tsv"
        few.write_text("u1\ti1 i2 i3 i1 i2 i3\n", encoding="utf-8")
        broken = Row("broken", study.rows[2].settings | {"users": few})
        study = replace(study, rows=[broken, study.rows[0]], sources={}, seeds=[1])
        for count in (1, 2):
            assert carried_out(study, tmp_path) != 0
            records = read_ledger(tmp_path / "study" / "ledger.jsonl")
            assert [one["outcome"] for one in records].count(FAILED) == count
            assert [one["outcome"] for one in records].count(FINISHED) == 1
        assert "no negative can be drawn" in records[0]["message"]
        printed = capsys.readouterr().out
        assert "FAILED   broken, seed 1, exit code 2" in printed
        assert "failed (exit code 2)" in (tmp_path / "study" / "report" / "table.md").read_text()

    def test_a_stopped_study_leaves_what_is_finished_and_goes_on(self, study, tmp_path):
        """Rows of many epochs; the study gets SIGTERM in the middle of one."""
        long = study.rows[2].settings | {"epochs": 100_000}
        rows = [study.rows[0], Row("long", long)]
        script = tmp_path / "stopped.py"
        script.write_text(
            "from pathlib import PosixPath\n"
            "from adapter4rec.studies.launching import launch_study\n"
            "from adapter4rec.studies.plan import Row, Study\n"
            f"rows = {rows!r}\n"
            "launch_study(Study('stopped', 'text', 'Stopped', 'Why?', rows, seeds=[1]))\n"
        )
        command = [sys.executable, str(script), "--into", str(tmp_path / "study")]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        with subprocess.Popen(command, env=environment, cwd=REPOSITORY) as process:
            best = "study/long_seed_1_*/best.safetensors"
            while not list(tmp_path.glob(best)) and process.poll() is None:
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 130
        (record,) = read_ledger(tmp_path / "study" / "ledger.jsonl")
        assert record["settings"]["method"] == "popularity"
        shorter = replace(study, rows=[rows[0], Row("long", long | {"epochs": 1})], sources={}, seeds=[1])
        assert carried_out(shorter, tmp_path) == 0
        finished = read_ledger(tmp_path / "study" / "ledger.jsonl")
        assert [one["settings"]["method"] for one in finished] == ["popularity", "id"]


class TestCommandLine:
    def test_seeds_and_settings_for_the_rows_that_know_them(self, study, tmp_path):
        options = [
            "--seeds",
            "7",
            "8,9",
            "--lr_item_head",
            "0.25",
            "--backbone",
            "another",
            "--source_epochs",
            "3",
        ]
        mine = campaign(study, tmp_path, *options)
        assert mine.seeds == (7, 8, 9)
        popularity, frozen, tower = map(mine.row_values, study.rows)
        assert tower["lr_item_head"] == "0.25"
        assert frozen["backbone"] == popularity["backbone"] == "another"
        assert [stage["epochs"] for stage in mine.stages("a source")] == ["3"]

    def test_few_steps(self, study, tmp_path):
        assert campaign(study, tmp_path).row_values(study.rows[2]).get("lr_item_head") is None
        values = campaign(study, tmp_path, "--few_steps").row_values(study.rows[2])
        assert (values["lr_item_head"], values["lr_user_encoder"]) == (0.5, 1e-3)

    def test_only_some_rows(self, study, tmp_path):
        rows = [replace(row, section=section) for section in ("A, x", "B") for row in study.rows]
        study = replace(study, rows=rows)

        def only(*patterns):
            return [row.label for row in campaign(study, tmp_path, "--only", *patterns).rows]

        assert only("a, x: *") == ["A, x: popularity", "A, x: frozen", "A, x: id"]
        assert only("id") == ["A, x: id", "B: id"]
        assert only("B") == ["B: popularity", "B: frozen", "B: id"]
        with pytest.raises(UserError, match="did you mean 'B: frozen'"):
            only("B: frosen")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--seed", "1"], None),
            (["--lr_item_hed", "1"], "did you mean 'lr_item_head'"),
            (["--epochs", "1", "2"], "one value"),
            (["--jobs", "0"], "at least 1"),
        ],
    )
    def test_impossible_options(self, study, tmp_path, options, message):
        if message is None:
            campaign(study, tmp_path, *options)  # each row's seed is the study's; this one changes nothing
            return
        with pytest.raises(UserError, match=message):
            campaign(study, tmp_path, *options)

    def test_rows_that_would_be_the_same(self, study, tmp_path):
        rows = [replace(study.rows[2], name=name) for name in ("one", "two")]
        with pytest.raises(UserError, match="'one' and 'two' would be the same runs"):
            carried_out(replace(study, rows=rows), tmp_path)

    def test_a_dry_run_says_time_and_disk_and_runs_nothing(self, study, tmp_path, capsys):
        assert carried_out(study, tmp_path, "--dry-run") == 0
        printed = capsys.readouterr().out
        assert "frozen: 2 seeds, 0 finished" in printed
        assert "still to do, roughly" in printed
        assert "GiB of disk" in printed
        assert not (tmp_path / "study").exists()


class TestRunner:
    def test_runs_at_once_share_neither_gpus_nor_cores(self, tmp_path):
        runner = Runner(tmp_path / "l.jsonl", tmp_path, jobs=3, processes=2, gpus=4)
        seen = [runner._environment(place)["CUDA_VISIBLE_DEVICES"] for place in range(3)]
        assert seen == ["0,1", "2,3", "0,1"]
        alone = Runner(tmp_path / "l.jsonl", tmp_path, jobs=1, processes=2, gpus=4)._environment(0)
        assert alone.get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")
        on_cpu = Runner(tmp_path / "l.jsonl", tmp_path, jobs=2, processes=1, gpus=0)._environment(0)
        assert int(on_cpu["OMP_NUM_THREADS"]) == max(1, (os.cpu_count() or 1) // 2)


class TestPages:
    @pytest.mark.parametrize("path", PAGES, ids=lambda path: "-".join((*path.parts[-4:-2], path.stem)))
    def test_a_page_is_sound(self, path, tmp_path):
        study = runpy.run_path(str(path))["study"]
        assert study.name == path.stem
        assert study.modality == {"Text": "text", "CV": "image"}[path.parts[-3]]
        require_sound(study)
        for one in (study, samples.on_sample(study)):
            mine = campaign(one, tmp_path)
            for row in mine.rows:
                TARGET_SETTINGS[one.modality].from_values(mine.row_values(row))
            for name in mine.wanted_sources():
                for stage in mine.stages(name):
                    mine.source.from_values(stage)

    def test_there_are_all(self):
        assert len(PAGES) == 12
