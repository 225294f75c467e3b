"""The study of real data: its order, its choices, and a part of it on a small model."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, write_domain

from adapter4rec.report.results import read_studies
from benchmarks.gpu_study_rows import FEW, FEWER, SEEDS, SOURCE, TRAINED, start_of
from benchmarks.gpu_study_runs import Study


def study_with(results):
    found = {name.replace(" ", "_"): {"validation": {"HR@10": value}} for name, value in results.items()}
    return Study(Path("/data"), Path("/study"), {"epochs": 1}, results=found)


def names_of(study):
    return [task.name for task in study.tasks()]


def search(name, scores, share=FEW):
    return {
        f"target {name} users {share} x{factor} seed{SEEDS[0]}": score for factor, score in scores.items()
    }


def heads(share, *seeds):
    """Scores of the heads from which adapters start."""
    return {f"target head users {share} x3.0 seed{seed}": 4.0 for seed in seeds}


FOUND = {1.0: 2.0, 3.0: 3.0, 10.0: 1.0}
"""Scores by factor of a finished search."""


HEAD = {"source head": 4.0}
SOURCES = HEAD | {"source all x1.0": 3.0, "source all x3.0": 5.0}


def test_at_first_only_the_head_of_the_source_and_what_needs_none_is_run():
    names = names_of(study_with({}))
    assert "source head" in names
    assert not [name for name in names if name.startswith("source all")]
    assert not [name for name in names if "Houlsby" in name or "fine-tuning" in name]
    assert f"target from scratch users {FEW} x1.0 seed1" in names


def test_all_weights_of_the_source_are_trained_from_its_head():
    tasks = {task.name: task for task in study_with(HEAD).tasks()}
    assert tasks["source all x3.0"].settings["start_from"] == Path("/study/source_head/source.safetensors")
    assert tasks["source all x3.0"].settings["lr_backbone"] == 3e-4


def test_targets_start_from_the_best_source():
    tasks = {task.name: task for task in study_with(SOURCES).tasks()}
    full = tasks[f"target full fine-tuning users {FEW} x1.0 seed1"]
    assert full.settings["source_checkpoint"] == Path("/study/source_all_x3.0/source.safetensors")
    head = tasks[f"target head users {FEW} x1.0 seed1"]
    assert head.settings["start_from"] == full.settings["source_checkpoint"]
    for name in ("from scratch", "id tower", "head without source"):
        settings = tasks[f"target {name} users {FEW} x1.0 seed1"].settings
        assert not {"source_checkpoint", "start_from"} & set(settings)


def test_adapters_start_from_the_head_that_was_adapted_to_the_same_users():
    found = SOURCES | search("head", FOUND) | search("head", FOUND, 1.0)
    found |= search("Houlsby", FOUND) | search("Houlsby", FOUND, 1.0)
    tasks = {task.name: task for task in study_with(found).tasks()}
    assert tasks[f"target Houlsby users {FEW} x1.0 seed1"].settings["source_checkpoint"] == Path(
        f"/study/target_head_users_{FEW}_x3.0_seed1/head.safetensors"
    )
    assert "target Houlsby users 1.0 x3.0 seed2" not in tasks  # its head is not known yet
    directly = tasks["target Houlsby, directly users 1.0 x3.0 seed1"]
    assert directly.settings["source_checkpoint"] == Path("/study/source_all_x3.0/source.safetensors")
    tasks = {task.name: task for task in study_with(found | heads(1.0, 2)).tasks()}
    assert tasks["target Houlsby users 1.0 x3.0 seed2"].settings["source_checkpoint"] == Path(
        "/study/target_head_users_1.0_x3.0_seed2/head.safetensors"
    )


def test_rows_have_the_rates_that_were_best_in_the_search():
    found = SOURCES | search("Houlsby", FOUND) | search("Houlsby", FOUND, 1.0)
    found |= search("head", FOUND) | search("head", FOUND, 1.0) | heads(1.0, *SEEDS)
    tasks = {task.name: task for task in study_with(found).tasks()}
    for seed in SEEDS:
        settings = tasks[f"target Houlsby users 1.0 x3.0 seed{seed}"].settings
        assert (settings["lr_adapter"], settings["seed"], settings["user_share"]) == (9e-3, seed, 1.0)
    assert tasks["target Houlsby, bce users 1.0 x3.0 seed1"].settings["loss"] == "bce"
    assert not [name for name in tasks if name.startswith("target LoRA users 1.0")]


@pytest.mark.parametrize(
    ("scores", "next_ones"),
    [
        ({}, {1.0, 3.0}),
        ({1.0: 5.0}, {3.0}),
        ({1.0: 5.0, 3.0: 4.0}, {0.3}),
        ({1.0: 4.0, 3.0: 5.0}, {10.0}),
        ({1.0: 4.0, 3.0: 5.0, 10.0: 6.0}, {30.0}),
        ({1.0: 4.0, 3.0: 3.0, 0.3: 5.0, 0.1: 6.0}, set()),
        (FOUND, set()),
    ],
)
def test_the_search_goes_on_until_the_rates_next_to_the_best_are_known(scores, next_ones):
    study = study_with(SOURCES | search("head", FOUND) | search("LoRA", scores))
    names = [name for name in names_of(study) if name.startswith(f"target LoRA users {FEW} x")]
    searched = {float(name.split(" x")[1].split()[0]) for name in names}
    assert searched - set(scores) == next_ones
    best = max(scores, key=scores.get) if not next_ones else None
    assert study.best_factor("LoRA") == best


def test_rows_without_a_source_start_from_the_head_without_one():
    plain = {name.replace("head", "head without source"): score for name, score in heads(1.0, 1).items()}
    found = plain | search("head without source", FOUND, 1.0)
    found |= search("Houlsby", FOUND) | search("Houlsby", FOUND, 1.0)
    tasks = {task.name: task for task in study_with(found).tasks()}  # no source model is known
    assert tasks[
        "target Houlsby, head and user encoder trained, without source users 1.0 x3.0 seed1"
    ].settings["source_checkpoint"] == Path(
        "/study/target_head_without_source_users_1.0_x3.0_seed1/head.safetensors"
    )
    assert "target Houlsby users 1.0 x3.0 seed1" not in tasks


def test_what_a_row_starts_from():
    assert start_of("full fine-tuning, bce") == start_of("Houlsby, directly") == SOURCE
    assert start_of("full fine-tuning, after the head") == start_of("LoRA") == "head"
    assert start_of("full fine-tuning, without source") == "head without source"
    assert start_of("from scratch") is None


def test_adapters_of_another_source_start_from_the_head_of_that_source():
    found = search("head", FOUND, 1.0) | search("Houlsby", FOUND) | search("Houlsby", FOUND, 1.0)
    found |= {
        "source head cpc": 1.0,
        "source all x1.0 cpc": 2.0,
        "target head source cpc users 1.0 x3.0 seed1": 3.0,
    }
    tasks = {task.name: task for task in study_with(SOURCES | found).tasks()}
    head = tasks["target head, source cpc users 1.0 x3.0 seed1"]
    assert head.settings["start_from"] == Path("/study/source_all_x1.0_cpc/source.safetensors")
    houlsby = tasks["target Houlsby, source cpc users 1.0 x3.0 seed1"]
    assert houlsby.settings["source_checkpoint"] == head.settings["export"]
    assert houlsby.settings["objective"] == head.settings["objective"] == "cpc"


HIGHER = {1.0: 1.0, 3.0: 2.0, 10.0: 3.0, 30.0: 1.0}


def test_rates_of_heads_and_ids_for_all_users_are_searched_on_all_users():
    study = study_with(SOURCES | search("head", FOUND, 1.0) | search("head", HIGHER))
    assert (study.best_factor("head"), study.best_factor("head", 1.0)) == (10.0, 3.0)
    names = names_of(study)
    assert "target head users 1.0 x3.0 seed2" in names
    assert f"target head users {FEW} x10.0 seed2" in names
    assert "target id tower users 1.0 x1.0 seed1" in names


def test_the_two_best_rates_of_few_users_are_compared_on_all_users():
    scores = SOURCES | search("head", FOUND, 1.0) | heads(1.0, *SEEDS) | search("Pfeiffer", HIGHER)
    scores |= search("full fine-tuning", HIGHER)
    names = names_of(study_with(scores))
    runs = [name for name in names if name.startswith("target full fine-tuning users 1.0")]
    assert sorted(runs) == [f"target full fine-tuning users 1.0 x{factor} seed1" for factor in (10.0, 3.0)]
    assert "target Pfeiffer users 1.0 x10.0 seed1" in names  # one seed: without this comparison
    higher_is_best = search("full fine-tuning", {3.0: 4.0, 10.0: 5.0}, 1.0)
    assert "target full fine-tuning users 1.0 x10.0 seed2" in names_of(study_with(scores | higher_is_best))
    scores |= search("full fine-tuning", {3.0: 5.0, 10.0: 4.0}, 1.0)
    assert study_with(scores).best_factor("full fine-tuning", 1.0) is None  # a lower one may be better
    scores |= search("full fine-tuning", {1.0: 4.5}, 1.0)
    assert "target full fine-tuning users 1.0 x3.0 seed2" in names_of(study_with(scores))


def test_a_given_source_takes_the_place_of_the_one_that_the_study_trains():
    study = study_with({})
    assert "source head" in names_of(study)
    study.source_file = Path("/models/source.safetensors")
    tasks = {task.name: task for task in study.tasks()}
    assert "source head" not in tasks
    full = tasks[f"target full fine-tuning users {FEW} x1.0 seed1"]
    assert full.settings["source_checkpoint"] == Path("/models/source.safetensors")


def test_fewer_users_have_more_epochs_and_fewer_validations():
    found = search("full fine-tuning", FOUND) | search("full fine-tuning", FOUND, 1.0)
    study = study_with(SOURCES | found | search("head", FOUND, 1.0))
    study.common["epochs"] = 6
    tasks = {task.name: task.settings for task in study.tasks()}
    settings = [tasks[f"target full fine-tuning users {share} x3.0 seed2"] for share in (1.0, FEW, FEWER)]
    assert [one["epochs"] for one in settings] == [6, 9, 24]
    assert [one["eval_every"] for one in settings] == [1, 3, 6]
    assert tasks["target head users 1.0 x3.0 seed2"]["epochs"] == 40


def test_names_of_runs_are_unique():
    results = dict(SOURCES)
    for row in TRAINED:
        results |= search(row, FOUND) | search(row, FOUND, 1.0)
    for share in (1.0, FEW, FEWER):
        results |= heads(share, *SEEDS)
    by_folder = {}
    for task in study_with(results).tasks():
        assert by_folder.setdefault(task.folder, task.settings) == task.settings


@pytest.fixture
def data(tmp_path):
    titles = {f"i{i}": ("red house", "blue snow")[i % 2] for i in range(520)}  # more than shared negatives
    clicks = {f"u{u}": [f"i{(8 * u + i) % 520}" for i in range(8)] for u in range(80)}
    for domain in ("Scientific", "Instruments"):
        write_domain(tmp_path / domain, clicks, titles)
    return tmp_path


def test_a_part_is_run_and_a_second_call_goes_on(data, tiny_bert_folder):
    def study(*only):
        words = ["--data", data, "--into", data / "runs", "--backbone", tiny_bert_folder, "--epochs", "1"]
        words += ["--jobs", "2", "--source-factors", "1", "--only", *only]
        command = [sys.executable, "-m", "benchmarks.gpu_study", *map(str, words)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    first = study("source head", "target popularity*seed1")
    assert first.count("on test") == 2, first
    assert study("source all x1.0").count("on test") == 1
    assert study("source*x1.0", "target frozen*", f"target head users {FEW} x1.0*").count("on test") == 2
    assert (data / "runs" / f"target_head_users_{FEW}_x1.0_seed1" / "head.safetensors").is_file()
    ledger = data / "runs" / "ledger.jsonl"
    assert ledger.read_text().count("\n") == 5
    _, source, target = read_studies([ledger])[0].sections
    assert list(source.rows.index) == ["head", "all x1.0"]
    assert list(target.rows.index) == ["popularity", "frozen"]
