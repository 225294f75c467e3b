"""Whole runs on small domains: source to target, resume, several processes, and what goes wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, write_domain
from PIL import Image
from safetensors.torch import load_file
from trees import (
    ImageSourceSettings,
    ImageTargetSettings,
    TextSourceSettings,
    TextTargetSettings,
    carry_out,
)

from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.checkpoints.settings import WITHOUT_MODEL
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.description import DESCRIPTION_KEY, SOURCES_KEY
from adapter4rec.evaluation.leave_one_out import USERS_AT_ONCE
from adapter4rec.runs import run as runs
from adapter4rec.training import cached_states, fit
from adapter4rec.utils import checkpoint_file as checkpoints
from adapter4rec.utils import precision
from adapter4rec.utils.command_line import settings_from_command_line
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import options_of

WORDS = ["red", "blue", "green", "big", "small", "house", "garden", "river", "football", "snow", "music"]
USERS, ITEMS = 37, 25


both_modalities = pytest.mark.parametrize("common", ["text", "image"], indirect=True)
"""Runs a test with texts and with images; the others have texts."""


def clicks(chance):
    return {
        f"u{user}": [f"i{i}" for i in chance.integers(0, ITEMS, chance.integers(5, 14))]
        for user in range(USERS)
    }


@pytest.fixture(scope="module")
def text_domain(tmp_path_factory):
    chance = np.random.default_rng(3)
    items = {f"i{number}": " ".join(chance.choice(WORDS, chance.integers(1, 9))) for number in range(ITEMS)}
    users, items = write_domain(tmp_path_factory.mktemp("domain"), clicks(chance), items)
    return {"users": users, "items": items}


@pytest.fixture(scope="module")
def image_domain(tmp_path_factory):
    chance = np.random.default_rng(3)
    folder = tmp_path_factory.mktemp("image_domain")
    users, items = write_domain(folder, clicks(chance), {f"i{number}": () for number in range(ITEMS)})
    (folder / "images").mkdir()
    for number in range(ITEMS):
        pixels = np.full((20, 20, 3), chance.integers(0, 256, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"i{number}.png")
    database = folder / "images.lmdb"
    build(ImageLmdbSettings(items=items, images=folder / "images", into=database, size=16, workers=1))
    return {"users": users, "items": items, "images": database}


@pytest.fixture
def common(request, tmp_path):
    modality = getattr(request, "param", "text")
    domain = request.getfixturevalue("text_domain" if modality == "text" else "image_domain")
    folders = {"text": "tiny_bert_folder", "image": "tiny_vit_folder", "mae": "tiny_mae_folder"}
    backbone = request.getfixturevalue(folders[modality])
    return domain | {
        "backbone": str(backbone),
        "cache_folder": tmp_path / "cache",
        "max_seq_len": 8,
        "embedding_dim": 16,
        "batch_size": 16,
        "precision": "fp32",
        "device": "cpu",
        "lr_backbone": 1e-3,
        "lr_item_head": 1e-3,
        "lr_user_encoder": 1e-3,
        "epochs": 2,
        "seed": 1,
    }


def run_source(common, folder, **options):
    kind = ImageSourceSettings if "images" in common else TextSourceSettings
    settings = kind.from_values(common | {"run_folder": folder} | options)
    carry_out(settings)
    return folder


def run_target(common, folder, **options):
    kind = ImageTargetSettings if "images" in common else TextTargetSettings
    settings = kind.from_values(common | {"run_folder": folder} | options)
    carry_out(settings)
    return json.loads((folder / "result.json").read_text())


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(record):
    return {key: value for key, value in record.items() if "second" not in key and key != "input_wait"}


def assert_same_file(first, second):
    one, two = load_file(first), load_file(second)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@pytest.fixture
def source(common, tmp_path):
    run_source(common, tmp_path / "source", export=tmp_path / "source.safetensors", epochs=1)
    return tmp_path / "source.safetensors"


def test_a_run_leaves_a_folder_that_tells_all(common, tmp_path):
    folder = run_source(common, tmp_path / "run")
    names = {path.name for path in folder.iterdir()}
    assert {"settings.json", "metrics.jsonl", "result.json", "log.txt", "curves.png"} <= names
    assert {"best.safetensors", "best.json", "last.safetensors"} <= names
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    *epochs, test = records(folder)
    assert [record["epoch"] for record in epochs] == [1, 2]
    assert test["split"] == "test"
    best = max(epochs, key=lambda record: record["HR@10"])
    assert test["epoch"] == best["epoch"]
    description = json.loads((folder / "settings.json").read_text())
    assert description["parameters"]["trained"] == description["parameters"]["total"]
    assert description["identity"]["settings"]["lr_backbone"] == 1e-3
    assert "learning rate 0.001" in (folder / "log.txt").read_text()


@pytest.mark.parametrize("common", ["text", "image", "mae"], indirect=True)
@pytest.mark.parametrize("objective", ["sasrec", "cpc"])
def test_source_to_target_by_every_method(common, source, tmp_path, objective):
    if objective == "cpc":
        source = tmp_path / "cpc.safetensors"
        run_source(common, tmp_path / "cpc", export=source, objective="cpc")
    options = {"source_checkpoint": source, "objective": objective}
    start = load_file(source)
    trained = {}
    for method in ("houlsby", "finetune", "head", "frozen", "scratch", "id", *WITHOUT_MODEL):
        result = run_target(common, tmp_path / method, method=method, **options)
        assert 0 <= result["test"]["HR@10"] <= 100
        trained[method] = result["trained_parameters"]
    assert trained["frozen"] == trained["popularity"] == trained["item_knn"] == 0
    fixed = [name for name in start if "mae" in common["backbone"] and name.endswith("position_embeddings")]
    whole = sum(tensor.numel() for name, tensor in start.items() if name not in fixed)
    assert trained["finetune"] == trained["scratch"] == whole
    kept = load_file(tmp_path / "houlsby" / "best.safetensors")
    assert all(name.startswith("adapters.") for name in kept)
    head = load_file(tmp_path / "head" / "best.safetensors")
    assert {name.split(".")[0] for name in head} == {"item_encoder", "user_encoder"}
    assert not any("backbone" in name for name in head)


@both_modalities
def test_a_head_without_a_source_model_starts_from_the_pretrained_backbone(common, tmp_path):
    source = run_source(common, tmp_path / "source", method="head")
    result = run_target(common, tmp_path / "target", method="head")
    assert result["test"] == json.loads((source / "result.json").read_text())["test"]
    tested = run_target(common, tmp_path / "target", method="head", mode="test")
    assert tested["test"] == result["test"]


@both_modalities
@pytest.mark.parametrize("objective", ["sasrec", "cpc"])
def test_every_adapter_family_runs_to_the_end(common, tmp_path, objective):
    source = tmp_path / "source.safetensors"
    run_source(common, tmp_path / "source", export=source, objective=objective, epochs=1)
    options = {"source_checkpoint": source, "objective": objective, "epochs": 1}
    for family in FAMILIES:
        if family == "pfeiffer_after_layernorm" and "images" in common:
            continue  # refused there, see test_adapter_families.py
        small = {
            "item_bottleneck": 8,
            "user_bottleneck": 4,
            "item_inner": 96,
            "item_rank": 96,
            "prompt_tokens": 3,
        }
        known = options_of(FAMILIES[family])
        own = {name: value for name, value in small.items() if name in known}
        result = run_target(common, tmp_path / family, method=family, **options, **own)
        assert result["trained_parameters"] > 0
        log = (tmp_path / family / "log.txt").read_text(encoding="utf-8")
        assert ("warning: with this adapter" in log) == (result["trained_share"] > 25)
        assert family not in ("k_adapter", "lora") or result["trained_share"] > 25
        kept = load_file(tmp_path / family / "best.safetensors")
        assert sum(tensor.numel() for tensor in kept.values()) == result["trained_parameters"]
        assert all(name.startswith("adapters.") for name in kept)


@both_modalities
def test_head_from_cached_states_is_the_head_on_the_frozen_backbone(common, source, tmp_path, monkeypatch):
    """Without dropout, training from states equals training through the frozen backbone."""
    options = {"method": "head", "source_checkpoint": source, "dropout": 0.0}
    cached = run_target(common, tmp_path / "cached", **options)
    tree = import_module("Downstream.CV.train" if "images" in common else "Downstream.Text.train")
    build_model = tree.build_model

    def in_eval_mode(*arguments):
        model = build_model(*arguments)
        model.item_encoder.backbone.train = lambda mode=True: model.item_encoder.backbone
        model.item_encoder.backbone.eval()
        return model

    monkeypatch.setattr(tree, "build_model", in_eval_mode)
    monkeypatch.setattr(cached_states, "cache_hidden_states", lambda domain, *_: domain)
    plain = run_target(common, tmp_path / "plain", **options)
    assert cached["test"] == plain["test"]
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("cached", "plain"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


@both_modalities
def test_a_resumed_run_equals_one_that_was_never_stopped(common, tmp_path, monkeypatch):
    whole = run_source(common, tmp_path / "whole", epochs=3)
    step, taken = fit.train_step, []

    def stops(setup, batch, *at):
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append(1)
        return step(setup, batch, *at)

    # Saved after every step, stopped in the middle of the second epoch.
    monkeypatch.setattr(fit, "train_step", stops)
    with pytest.raises(KeyboardInterrupt):
        run_source(common, tmp_path / "stopped", epochs=3, save_minutes=1e-9)
    monkeypatch.setattr(fit, "train_step", step)
    state = json.loads((tmp_path / "stopped" / "last.json").read_text())["record"]["progress"]
    assert (state["epoch"], state["step"]) == (2, 2)
    resumed = run_source(common, tmp_path / "stopped", epochs=3, resume=True)
    for name in ("best.safetensors", "last.safetensors"):
        assert_same_file(whole / name, resumed / name)
    assert list(map(without_times, records(whole))) == list(map(without_times, records(resumed)))


def test_more_epochs_go_on_from_a_finished_run(common, tmp_path):
    folder = run_source(common, tmp_path / "run", epochs=1)
    first = (folder / "result.json").read_text()
    run_source(common, folder, epochs=1, resume=True)
    assert (folder / "result.json").read_text() == first
    run_source(common, folder, epochs=2, resume=True)
    whole = run_source(common, tmp_path / "whole", epochs=2)
    assert_same_file(whole / "last.safetensors", folder / "last.safetensors")


def test_a_finished_run_without_its_weights_is_not_exported(common, tmp_path):
    folder = run_source(common, tmp_path / "run", epochs=1)
    (folder / "best.safetensors").unlink()
    exported = tmp_path / "out.safetensors"
    refused("no such checkpoint", run_source, common, folder, epochs=1, resume=True, export=exported)
    assert not exported.exists()


def test_a_run_that_was_interrupted_before_its_settings_were_written_is_begun_anew(
    common, tmp_path, monkeypatch
):
    def stops(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("adapter4rec.runs.run.input_hashes", stops)
        run_source(common, tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "log.txt").exists()
    run_source(common, tmp_path / "run", epochs=1, resume=True)


def test_the_result_of_a_shorter_training_does_not_outlive_it(common, tmp_path, monkeypatch):
    folder = run_source(common, tmp_path / "run", epochs=1)

    def stops(*_):
        raise KeyboardInterrupt

    (folder / "recommendations.png").write_bytes(b"of the first epoch")
    monkeypatch.setattr(fit, "train_step", stops)
    with pytest.raises(KeyboardInterrupt):
        run_source(common, folder, epochs=2, resume=True)
    assert not (folder / "result.json").exists()
    assert not (folder / "recommendations.png").exists()


def test_metrics_without_a_validation_are_damaged(common, tmp_path):
    folder = run_source(common, tmp_path / "run", epochs=1)
    (folder / "metrics.jsonl").write_text("")
    refused(
        "metrics.jsonl: no validation; the file is damaged", run_source, common, folder, epochs=1, resume=True
    )


def test_an_export_must_be_readable_again(common, tmp_path):
    for name in ("m.json", "m.pt"):
        refused(r"must end in \.safetensors", run_source, common, tmp_path / "run", export=tmp_path / name)


@both_modalities
def test_accumulation_does_not_change_the_result(common, tmp_path):
    options = {"dropout": 0.0, "method": "head"}
    once = run_source(common, tmp_path / "once", **options)
    parts = run_source(common, tmp_path / "parts", accumulation_steps=5, **options)
    for one, other in zip(records(once)[:2], records(parts)[:2], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


@both_modalities
def test_the_seed_fixes_where_adapters_start(common, source, tmp_path):
    """Nothing of the source checkpoint's making plays a part, and nothing drawn before."""
    options = {"method": "houlsby", "source_checkpoint": source, "epochs": 1, "lr_adapter": 1e-9}
    first = run_target(common, tmp_path / "first", **options)
    torch.rand(7)
    run_target(common, tmp_path / "second", **options)
    run_target(common, tmp_path / "other", **options | {"seed": 2})
    assert first["epoch"] == 1
    assert_same_file(tmp_path / "first" / "best.safetensors", tmp_path / "second" / "best.safetensors")
    one, other = (load_file(tmp_path / name / "best.safetensors") for name in ("first", "other"))
    assert not torch.equal(*(state["adapters.item.layers.0.attention.down.weight"] for state in (one, other)))


@both_modalities
def test_worker_processes_prepare_the_same_batches(common, tmp_path):
    alone = run_source(common, tmp_path / "alone", workers=0, epochs=1)
    helped = run_source(common, tmp_path / "helped", workers=2, prefetch=1, pin_memory=False, epochs=1)
    assert_same_file(alone / "best.safetensors", helped / "best.safetensors")


def launched_on_two_processes(values):
    """Carry out a run by its launcher on two processes."""
    values = {"export": "none"} | values
    arguments = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    tree, page = ("CV", "sm_vit_sasrec.py") if "images" in values else ("Text", "sm_base_sasrec.py")
    launcher = REPOSITORY / "Pretraining" / tree / "script" / page
    command = [sys.executable, str(launcher), *arguments, "--processes", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@both_modalities
@pytest.mark.parametrize(("objective", "loss"), [("sasrec", "bce"), ("cpc", "mixed")])
def test_two_processes_have_the_loss_of_one(common, tmp_path, objective, loss):
    """The same global batches give the same loss within 1e-5; the last batch is divided unevenly."""
    options = {"dropout": 0.0, "objective": objective, "loss": loss, "epochs": 1, "method": "head"}
    options |= {"negatives": 5}
    one = run_source(common, tmp_path / "one", **options)
    done = launched_on_two_processes(common | options | {"run_folder": tmp_path / "two"})
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "two")[0]["loss"] == pytest.approx(records(one)[0]["loss"], rel=1e-5)


@both_modalities
def test_two_processes_rank_every_user_once(common, tmp_path):
    """The same weights give the same metrics, whatever the number of processes; each ranks some batches."""
    lines = Path(common["users"]).read_text().splitlines()
    users = tmp_path / "users.tsv"
    users.write_text("".join(f"{n}{lines[n % len(lines)]}\n" for n in range(USERS_AT_ONCE + len(lines))))
    options = {"epochs": 1, "method": "head", "users": users, "user_share": 0.01}
    one = run_source(common, tmp_path / "one", **options)
    test = records(one)[-1]
    done = launched_on_two_processes(common | options | {"run_folder": one, "mode": "test"})
    assert f"HR@10 {test['HR@10']:.4f} %  NDCG@10 {test['NDCG@10']:.4f} %" in done.stdout, done.stderr


def without_dropout(backbone, into):
    """A copy of a backbone's folder: which numbers dropout draws depends on how often layers are called."""
    shutil.copytree(backbone, into)
    config = json.loads((into / "config.json").read_text())
    none = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    (into / "config.json").write_text(json.dumps(config | none))
    return str(into)


@both_modalities
@pytest.mark.parametrize("method", ["k_adapter", "houlsby"])
def test_a_run_from_cached_layers_equals_one_through_them(common, source, tmp_path, method):
    """In float32, and where the frozen part has no dropout that it would be without."""
    common["backbone"] = without_dropout(Path(common["backbone"]), tmp_path / "backbone")
    small = {
        "k_adapter": {"item_inner": 8, "item_inner_heads": 2, "user_inner": 4, "adapter_dropout": 0.0},
        "houlsby": {"item_layers": "last:1", "item_bottleneck": 4},
    }
    options = common | small[method] | {"method": method, "source_checkpoint": source, "dropout": 0.0}
    plain = run_target(options, tmp_path / "plain")
    cached = run_target(options, tmp_path / "cached", cache_frozen=True, cache_format="fp32")
    losses = [[one["loss"] for one in records(tmp_path / name)[:2]] for name in ("plain", "cached")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert cached["trained_parameters"] == plain["trained_parameters"]
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("plain", "cached"))
    assert all(torch.allclose(one[name], two[name], atol=2e-4) for name in one)
    with pytest.raises(UserError, match="cache_frozen"):  # another run: it computes something else
        run_target(options, tmp_path / "plain", cache_frozen=True, resume=True)


def test_what_cannot_be_cached(common, source, tmp_path):
    options = common | {"source_checkpoint": source, "cache_frozen": True}
    for method, message in (("houlsby", "from its first layer"), ("finetune", "from its first layer")):
        with pytest.raises(UserError, match=message):
            run_target(options | {"method": method}, tmp_path / method)
    with pytest.raises(UserError, match="does not encode content"):
        run_target(common | {"method": "id", "cache_frozen": True}, tmp_path / "id")


def test_input_wait_is_told(common, tmp_path, capsys):
    folder = run_source(common, tmp_path / "run", epochs=1)
    assert 0 <= records(folder)[0]["input_wait"] <= 100
    assert "input wait" in capsys.readouterr().out


def test_recomputing_changes_no_result(common, tmp_path):
    plain = run_source(common, tmp_path / "plain", epochs=1)
    again = run_source(common, tmp_path / "again", epochs=1, recompute=True)
    losses = [records(folder)[0]["loss"] for folder in (plain, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_what_the_first_of_two_processes_refuses_ends_both_with_one_message(common, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    done = launched_on_two_processes(common | {"run_folder": tmp_path / "other"})
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "not a run folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_mode_test_evaluates_a_finished_run_again(common, source, tmp_path, capsys):
    options = {"method": "houlsby", "source_checkpoint": source}
    result = run_target(common, tmp_path / "run", **options)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "run").glob("*.safetensors"))
    capsys.readouterr()
    run_target(common, tmp_path / "run", mode="test", **options)
    assert f"HR@10 {result['test']['HR@10']:.4f} %" in capsys.readouterr().out
    after = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / "run").glob("*.safetensors"))
    assert after == before


@both_modalities
def test_bf16_trains_and_evaluates_in_float32(common, tmp_path):
    folder = run_source(common, tmp_path / "run", precision="bf16", epochs=1)
    full = run_source(common, tmp_path / "full", precision="fp32", epochs=1)
    assert records(folder)[0]["loss"] != records(full)[0]["loss"]
    assert records(folder)[0]["loss"] == pytest.approx(records(full)[0]["loss"], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in load_file(folder / "best.safetensors").values())


def refused(message, run, *arguments, **options):
    with pytest.raises(UserError, match=message):
        run(*arguments, **options)


def test_run_folders_of_others_are_refused(common, tmp_path):
    folder = run_source(common, tmp_path / "run", epochs=1)
    refused("resume it with --resume", run_source, common, folder, epochs=1)
    refused("--lr_backbone: was 0.001, now 0.002", run_source, common, folder, lr_backbone=2e-3, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    refused("not a run folder", run_source, common, tmp_path / "other")
    refused("no run to test", run_source, common, tmp_path / "nothing", mode="test")
    (folder / "settings.json").write_text('{"identity": ')
    refused("settings.json: damaged", run_source, common, folder, epochs=1)
    (folder / "settings.json").write_text('{"identity": [1]}')
    refused("settings.json: damaged", run_source, common, folder, epochs=1)


def test_resuming_nothing_begins_a_run_and_names_what_differs(common, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "REPOSITORY", tmp_path)
    carry_out(TextSourceSettings.from_values(common | {"epochs": 1}))
    capsys.readouterr()
    carry_out(TextSourceSettings.from_values(common | {"epochs": 1, "resume": True, "lr_backbone": 2e-3}))
    (first, _) = sorted((tmp_path / "runs").glob("*/settings.json"), key=lambda path: path.stat().st_mtime)
    output = capsys.readouterr().out
    assert f"a new run begins. {first.parent} has nearly the same run:\n" in output
    assert "\n  --lr_backbone: was 0.001, now 0.002\nrun folder" in output
    # Another experiment, and a folder that the user named, have no nearly equal run.
    many = {"resume": True, "embedding_dim": 8, "max_seq_len": 5, "dropout": 0.2, "lr_item_head": 5e-3}
    for chosen in (many, {"resume": True, "run_folder": tmp_path / "runs" / "named"}):
        carry_out(TextSourceSettings.from_values(common | {"epochs": 1} | chosen))
        output = capsys.readouterr().out
        assert "nothing to resume in " in output
        assert "nearly the same" not in output


def test_settings_that_differ_from_those_of_the_source_are_said(common, source, tmp_path, capsys):
    options = {"method": "frozen", "source_checkpoint": source}
    refused(
        r"trained with --max_seq_len 8, not 6", run_target, common | {"max_seq_len": 6}, tmp_path, **options
    )
    run_target(common, tmp_path / "tokens", **options, title_tokens=4, body_tokens=9)
    output = capsys.readouterr().out
    assert output.count("warning: the source model was trained with") == 1
    assert "warning: the source model was trained with --title_tokens 30, not 4 as here" in output
    run_target(common, tmp_path / "cosine", **options, loss="in_batch", cosine=True)
    warning = "warning: the source model was trained with --cosine false, not true as here"
    assert warning in capsys.readouterr().out
    run_source(common, tmp_path / "again", epochs=1, start_from=source, loss="in_batch", cosine=True)
    assert warning in capsys.readouterr().out
    run_target(common, tmp_path / "equal", **options)
    assert "warning" not in capsys.readouterr().out


def test_weights_of_another_run_or_kind_are_not_taken_up(common, tmp_path):
    folder = run_source(common, tmp_path / "run", epochs=1)
    other = run_source(common, tmp_path / "other", epochs=1, lr_backbone=2e-3)
    for suffix in (".safetensors", ".json"):
        shutil.copy(folder / f"last{suffix}", tmp_path / f"last{suffix}")
    for file in (other / "last", folder / "best"):
        for suffix in (".safetensors", ".json"):
            shutil.copy(file.with_suffix(suffix), folder / f"last{suffix}")
        refused("of another run or kind", run_source, common, folder, epochs=2, resume=True)
    for suffix in (".safetensors", ".json"):
        shutil.copy(tmp_path / f"last{suffix}", folder / f"last{suffix}")
        shutil.copy(other / f"best{suffix}", folder / f"best{suffix}")
    refused("of another run or kind", run_source, common, folder, mode="test")


@pytest.mark.parametrize("common", ["text"], indirect=True)
@pytest.mark.parametrize("method", [*WITHOUT_MODEL, "frozen"])
def test_testing_again_writes_nothing(common, source, tmp_path, capsys, method):
    options = {"method": method, "source_checkpoint": source}
    folder = tmp_path / "run"
    run_target(common, folder, **options, epochs=1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_target(common, folder, **options, epochs=9, mode="test")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert re.search(r"test of epoch 0: +HR@10", capsys.readouterr().out)


def test_a_run_goes_on_in_its_number_format(common, tmp_path, monkeypatch):
    folder = run_source(common, tmp_path / "run", epochs=1, precision="auto")
    trained_in = json.loads((folder / "last.json").read_text())["record"]["progress"]["precision"]
    elsewhere = {"bf16": "fp32", "fp32": "bf16"}[trained_in]
    monkeypatch.setattr(precision, "_best", lambda device: elsewhere)
    refused(f"trained in {trained_in}", run_source, common, folder, epochs=2, resume=True, precision="auto")
    assert (folder / "result.json").is_file()


def test_a_full_disk_is_told_and_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    checkpoints.write_checkpoint(path, {"a": torch.ones(3)}, {"what": "first"})
    before = path.read_bytes()

    def full(*_, **__):
        raise checkpoints.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoints.write_checkpoint(path, {"a": torch.zeros(3)}, {"what": "second"})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".part")] == []


def test_source_checkpoints_that_do_not_fit(common, source, tmp_path):
    options = {"method": "houlsby", "source_checkpoint": source}
    run = tmp_path / "run"
    refused(
        r"position_embedding.weight: \[8, 16\] in the file", run_target, common, run, **options, max_seq_len=9
    )
    refused("--objective sasrec", run_target, common, run, **options, objective="cpc")
    missing = {"method": "frozen", "source_checkpoint": tmp_path / "x.safetensors"}
    refused("no such checkpoint", run_target, common, run, **missing)
    refused("--source_checkpoint is", run_target, common, run, method="frozen")
    half = tmp_path / "half.safetensors"
    half.write_bytes(source.read_bytes()[:2000])
    refused("not a safetensors file", run_target, common, run, method="frozen", source_checkpoint=half)
    best = tmp_path / "source" / "best.safetensors"
    refused("not a source model", run_target, common, run, method="frozen", source_checkpoint=best)


@pytest.mark.parametrize("common", ["image"], indirect=True)
def test_images_that_do_not_do(common, tmp_path, image_domain, tiny_mae_folder):
    run = tmp_path / "run"
    refused("--images is required", run_source, common | {"images": None}, run)
    refused("no such LMDB", run_source, common, run, images=tmp_path / "no.lmdb")
    larger = tmp_path / "larger.lmdb"
    folder = Path(image_domain["images"]).parent / "images"
    build(ImageLmdbSettings(items=image_domain["items"], images=folder, into=larger, size=24, workers=1))
    refused("images are 24 x 24, but the image encoder expects 16", run_source, common, run, images=larger)
    other = tmp_path / "items.tsv"
    other.write_text(Path(common["items"]).read_text() + "elsewhere\n")
    refused("built from another item list", run_source, common, run, items=other)
    refused("only (a |by )?ViTMAE", run_source, common, run, release_masking=True)
    mae = common | {"backbone": str(tiny_mae_folder), "release_masking": True}
    refused("cannot be cached", run_source, mae, run, method="head")


@pytest.mark.parametrize("common", ["image"], indirect=True)
def test_a_source_of_another_kind_of_backbone(common, source, tmp_path, tiny_mae_folder):
    """A ViT's weights fit a ViTMAE by name and shape, and are not meant for it."""
    options = {"method": "frozen", "source_checkpoint": source, "backbone": str(tiny_mae_folder)}
    message = r"trained with the backbone vit, 2 layers .* not with vit_mae, 2 layers"
    refused(message, run_target, common, tmp_path / "run", **options)


@pytest.mark.parametrize("common", ["text"], indirect=True)
def test_a_prompt_needs_places_beside_the_title(common, source, tmp_path):
    options = {"method": "prompt", "source_checkpoint": source, "prompt_tokens": 30, "title_tokens": 40}
    message = "--title_tokens 40 .*30 tokens of the adapter.* 64 positions"
    refused(message, run_target, common, tmp_path / "run", **options)


def damaged(whole, broken):
    """A copy of an image database with a flipped bit in each image."""
    shutil.copytree(whole, broken)
    with lmdb.open(str(broken)) as env, env.begin(write=True) as transaction:
        for name, value in list(transaction.cursor()):
            if name not in (DESCRIPTION_KEY, SOURCES_KEY):
                transaction.put(name, value[:300] + bytes([value[300] ^ 1]) + value[301:])
    return broken


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("common", ["image"], indirect=True)
def test_a_damaged_image_stops_the_run_and_is_named(common, tmp_path, image_domain, workers):
    options = {"images": damaged(image_domain["images"], tmp_path / "broken.lmdb"), "workers": workers}
    refused(r"^[^\n]*the image of item 'i\d+' is damaged", run_source, common, tmp_path / "run", **options)
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("common", ["image"], indirect=True)
def test_trouble_of_one_process_ends_both_with_its_message(common, tmp_path):
    """Only the second of two processes reads its share from a damaged database."""
    broken = damaged(common["images"], tmp_path / "broken.lmdb")
    whole = tmp_path / "whole.lmdb"
    shutil.copytree(common["images"], whole)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from adapter4rec.utils.errors import run_main\n"
        "from adapter4rec.data.images.store import ImageStore\n"
        "from adapter4rec.data.images.database import ImageDatabase\n"
        "from adapter4rec.utils.command_line import settings_from_command_line\n"
        "from Pretraining.CV.train import Settings, train\n"
        "fetch = ImageStore.fetch\n"
        "def elsewhere(self, items):\n"
        "    if os.environ['RANK'] == '1':\n"
        f"        self.database = ImageDatabase(Path({str(broken)!r}))\n"
        "    return fetch(self, items)\n"
        "ImageStore.fetch = elsewhere\n"
        "settings = settings_from_command_line(Settings, sys.argv[1:])\n"
        "run_main(lambda: train(settings), one_of_several=True)\n"
    )
    (tmp_path / "program.py").write_text(code)
    values = common | {"run_folder": tmp_path / "run", "images": whole}
    values = {"export": "none"} | values
    arguments = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*command, str(tmp_path / "program.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert re.search(r"error: .*the image of item 'i\d+' is damaged", done.stderr), done.stderr
    assert "Connection closed" not in done.stderr


@pytest.mark.parametrize("common", ["image"], indirect=True)
def test_states_of_other_items_of_the_same_database_are_not_taken(common, tmp_path):
    """The cache knows which items, in which order, its rows are."""
    run_source(common, tmp_path / "all", method="head", epochs=1)
    lines = Path(common["items"]).read_text().splitlines()
    reordered = tmp_path / "items.tsv"
    reordered.write_text("".join(f"{line}\n" for line in reversed(lines)))
    shared = run_source(common, tmp_path / "shared", items=reordered, method="head", epochs=1)
    alone = run_source(
        common, tmp_path / "alone", items=reordered, method="head", epochs=1, cache_folder=tmp_path / "own"
    )
    assert_same_file(shared / "best.safetensors", alone / "best.safetensors")


@pytest.mark.parametrize("common", ["image"], indirect=True)
def test_an_image_list_may_have_an_empty_second_column(common, tmp_path):
    items = tmp_path / "items.tsv"
    items.write_text("".join(f"{line}\t\n" for line in Path(common["items"]).read_text().splitlines()))
    run_source(common, tmp_path / "run", items=items, epochs=1)


def test_impossible_settings(common, tmp_path):
    refused("must divide --embedding_dim", run_source, common, tmp_path / "a", user_heads=3)
    refused("--title_tokens 65: exceeds the 64", run_source, common, tmp_path / "b", title_tokens=65)
    refused("requires a GPU", run_source, common, tmp_path / "c", precision="fp16")
    refused("GPUs", run_source, common, tmp_path / "d", device="cuda:99")
    refused("expected auto, cpu, cuda", run_source, common, tmp_path / "e", device="meta")
    refused("at most", run_source, common, tmp_path / "f", seed=2**64)
    refused("duplicate value", run_source, common, tmp_path / "g", attributes="title,title")


def test_fewer_users_than_the_global_batch(common, tmp_path):
    folder = run_source(common, tmp_path / "run", batch_size=1000, epochs=1)
    assert json.loads((folder / "last.json").read_text())["record"]["progress"]["epoch"] == 2
    assert records(folder)[0]["loss"] > 0


def test_attributes_are_averaged_and_missing_ones_are_named(common, tmp_path):
    users, items = common["users"], tmp_path / "items.tsv"
    lines = Path(common["items"]).read_text().splitlines()
    items.write_text("".join(f"{line}\tsnow and music\n" for line in lines))
    run_source(common, tmp_path / "both", users=users, items=items, attributes="title,abstract", epochs=1)
    refused("no abstract", run_source, common, tmp_path / "no", attributes=("title", "abstract"))


@pytest.mark.parametrize("arguments", [["--users", "nowhere.tsv"], ["--epoch", "3"]])
def test_the_terminal_gets_a_message_and_no_traceback(common, tmp_path, arguments):
    values = common | {"run_folder": tmp_path / "run"}
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "Pretraining.Text.train", *words, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr


def test_command_line_of_a_run(common):
    words = ["--method", "houlsby", "--users", "u", "--items", "i", "--item_bottleneck", "8", "--resume"]
    settings = settings_from_command_line(TextTargetSettings, words)
    assert settings.adapter.item_bottleneck == 8
    assert settings.resume
    assert settings.users == Path.cwd() / "u"
