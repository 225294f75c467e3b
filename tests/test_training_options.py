"""Losses, schedules, early stopping and intervals of validation in whole runs."""

import json
import os

import numpy as np
import pytest
import torch
from conftest import write_domain
from safetensors.torch import load_file

import adapter4rec
from adapter4rec.models.registry import LOSSES, OBJECTIVES
from adapter4rec.models.transrec import TransRec
from adapter4rec.training import fit
from adapter4rec.training.fit import standstill
from adapter4rec.training.schedule import learning_rate_factor
from adapter4rec.utils.errors import UserError
from Pretraining.Text.train import run as run_source

USERS, ITEMS = 60, 30
WORDS = ["red", "blue", "green", "big", "small", "house", "garden", "river", "football", "snow", "music"]


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    """Sequences that go up by one: the next item can be learned."""
    starts = np.random.default_rng(0).integers(0, ITEMS, USERS)
    clicks = {f"u{u}": [f"i{(start + n) % ITEMS}" for n in range(9)] for u, start in enumerate(starts)}
    items = {f"i{i}": f"{WORDS[i % 11]} {WORDS[i // 11]}" for i in range(ITEMS)}
    users, items = write_domain(tmp_path_factory.mktemp("domain"), clicks, items)
    return {"users": users, "items": items}


@pytest.fixture
def common(domain, tiny_bert_folder, tmp_path):
    return domain | {
        "method": "id",
        "backbone": str(tiny_bert_folder),
        "cache_folder": tmp_path / "cache",
        "max_seq_len": 8,
        "embedding_dim": 16,
        "batch_size": 16,
        "precision": "fp32",
        "device": "cpu",
        "lr_item_head": 0.03,
        "lr_user_encoder": 3e-3,
        "dropout": 0.0,
        "epochs": 12,
        "seed": 1,
    }


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_learns(common, tmp_path, loss, objective):
    options = {"loss": loss, "objective": objective}
    options |= {} if loss in ("bce", "in_batch", "full") else {"negatives": 20}
    result = run_source(**common | options, run_folder=tmp_path / "run")
    losses = [record["loss"] for record in records(tmp_path / "run") if "loss" in record]
    assert losses[-1] < losses[0]
    assert result["test"]["HR@10"] > 55  # a third by chance


def test_a_run_stops_when_validation_does_not_improve(common, tmp_path):
    folder = tmp_path / "run"
    result = run_source(**common | {"epochs": 60, "patience": 3}, run_folder=folder)
    validated = [record["HR@10"] for record in records(folder) if record["split"] == "validation"]
    assert len(validated) == result["epoch"] + 3 < 60
    assert validated[-4] == max(validated)
    assert all(value < validated[-4] for value in validated[:-4])
    before = (folder / "last.safetensors").read_bytes()
    again = run_source(**common | {"epochs": 60, "patience": 3}, run_folder=folder, resume=True)
    assert again["test"] == result["test"]
    assert (folder / "last.safetensors").read_bytes() == before

    last = len(validated)
    with pytest.raises(UserError, match=rf"trained for {last} epochs, but --patience 1 stops after"):
        run_source(**common | {"epochs": 60, "patience": 1}, run_folder=folder, resume=True)
    run_source(**common | {"epochs": last + 2}, run_folder=folder, resume=True)  # without patience it goes on
    whole = run_source(**common | {"epochs": last + 2}, run_folder=tmp_path / "whole")
    assert json.loads((folder / "result.json").read_text())["test"] == whole["test"]
    keys = [json.loads(line)["key"] for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert len(keys) == 3
    assert keys[0] != keys[1] == keys[2]


def test_a_run_that_patience_would_have_stopped_before_is_not_resumed(common, tmp_path, monkeypatch):
    folder, step = tmp_path / "run", fit.train_step
    whole = run_source(**common | {"epochs": 60, "patience": 1}, run_folder=tmp_path / "whole")
    last = len([record for record in records(tmp_path / "whole") if record["split"] == "validation"])

    def stops(setup, batch, place, rate):
        if place[1] == last + 2:  # an epoch after that in which it would have stopped
            raise KeyboardInterrupt
        return step(setup, batch, place, rate)

    monkeypatch.setattr(fit, "train_step", stops)
    with pytest.raises(KeyboardInterrupt):
        run_source(**common | {"epochs": 60}, run_folder=folder)
    monkeypatch.setattr(fit, "train_step", step)
    message = f"trained for {last + 1} epochs, but --patience 1 stops after {last}"
    with pytest.raises(UserError, match=message):
        run_source(**common | {"epochs": 60, "patience": 1}, run_folder=folder, resume=True)
    assert whole["epoch"] == last - 1


@pytest.mark.parametrize("options", [{"schedule": "linear"}, {"eval_every": 2}])
def test_a_run_that_more_epochs_would_change_is_not_continued(common, tmp_path, options):
    options = common | options | {"run_folder": tmp_path / "run"}
    run_source(**options | {"epochs": 3})
    kept = (tmp_path / "run" / "result.json").read_bytes()
    with pytest.raises(UserError, match="--epochs: was 3, now 4"):
        run_source(**options | {"epochs": 4}, resume=True)
    assert (tmp_path / "run" / "result.json").read_bytes() == kept


def test_a_run_without_epochs_has_the_initial_weights(common, tmp_path):
    options = common | {"epochs": 0, "run_folder": tmp_path / "run"}
    result = run_source(**options)
    assert run_source(**options, mode="test")["test"] == result["test"]
    assert run_source(**options, resume=True)["test"] == result["test"]
    model = adapter4rec.load(tmp_path / "run", device="cpu")
    assert len(model.recommend(model.clicks_of("u1"), top_k=3)) == 3


def test_cutoffs_that_a_finished_run_did_not_measure_are_said(common, tmp_path, capsys):
    options = common | {"epochs": 1, "run_folder": tmp_path / "run"}
    run_source(**options)
    run_source(**options, resume=True, k=(1, 10))
    assert "not measured: HR@1; --mode test measures them" in capsys.readouterr().out


def test_a_ledger_that_cannot_be_written_is_named_before_training(common, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path))
    (tmp_path / "closed").mkdir()
    ledger = tmp_path / "closed" / "ledger.jsonl"
    with pytest.raises(UserError, match=f"{ledger}: cannot be written"):
        run_source(**common | {"epochs": 1}, run_folder=tmp_path / "run", ledger=ledger)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_number_format_of_evaluation_that_is_not_supported_is_named_before_training(common, tmp_path):
    with pytest.raises(UserError, match="--evaluation_precision fp16: requires a GPU"):
        run_source(**common | {"evaluation_precision": "fp16"}, run_folder=tmp_path / "run")
    assert "HR@10" not in (tmp_path / "run" / "log.txt").read_text()


def test_validation_every_few_epochs_and_after_the_last(common, tmp_path):
    run_source(**common | {"epochs": 7, "eval_every": 3}, run_folder=tmp_path / "run")
    epochs = [record for record in records(tmp_path / "run") if record["split"] == "validation"]
    assert [record["epoch"] for record in epochs] == [1, 2, 3, 4, 5, 6, 7]
    assert [record["epoch"] for record in epochs if "HR@10" in record] == [3, 6, 7]
    every = run_source(**common | {"epochs": 7}, run_folder=tmp_path / "every")
    assert every["test"].keys() == json.loads((tmp_path / "run" / "result.json").read_text())["test"].keys()


def test_a_resumed_schedule_is_that_of_an_uninterrupted_run(common, tmp_path, monkeypatch):
    options = common | {"epochs": 4, "schedule": "cosine", "warmup_steps": 5, "clip_norm": 1.0}
    options |= {"weight_decay": 0.01, "loss": "mixed", "negatives": 5, "accumulation_steps": 2}
    run_source(**options, run_folder=tmp_path / "whole")
    step, taken = fit.train_step, []

    def stops(*arguments):
        if len(taken) == 6:
            raise KeyboardInterrupt
        taken.append(1)
        return step(*arguments)

    monkeypatch.setattr(fit, "train_step", stops)
    with pytest.raises(KeyboardInterrupt):
        run_source(**options, run_folder=tmp_path / "run", save_minutes=1e-9)
    monkeypatch.setattr(fit, "train_step", step)
    run_source(**options, run_folder=tmp_path / "run", resume=True)
    whole, resumed = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_learning_rates_rise_and_decay():
    def factors(schedule, warmup=2):
        return [learning_rate_factor(step, 6, warmup, schedule) for step in range(6)]

    assert factors("constant", 0) == [1.0] * 6
    assert factors("constant") == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    assert factors("linear") == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])
    assert factors("cosine")[2:] == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


@pytest.mark.parametrize("split", ["loss_of", "gradient"])
def test_values_that_are_not_finite_stop_the_run_and_keep_the_last_state(
    common, tmp_path, monkeypatch, split
):
    run_source(**common | {"epochs": 1}, run_folder=tmp_path / "run")
    kept = (tmp_path / "run" / "last.safetensors").read_bytes()
    loss_of = TransRec.loss_of

    def broken(self, embeddings, batch):
        loss = loss_of(self, embeddings, batch)
        if split == "loss_of":
            return loss * torch.nan
        embeddings.register_hook(lambda gradient: gradient * torch.inf)
        return loss

    monkeypatch.setattr(TransRec, "loss_of", broken)
    message = rf"epoch 2, step 0: .*\(last checkpoint: {tmp_path}/run/last\.safetensors\)"
    with pytest.raises(UserError, match=message):
        run_source(**common | {"epochs": 2}, run_folder=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "softmax"}, "--loss softmax"),
        ({"loss": "mixed", "negatives": ITEMS + 1}, f"--negatives {ITEMS + 1}"),
        ({"loss": "gbce", "negatives": ITEMS + 1}, f"--negatives {ITEMS + 1}"),
        ({"negatives": 0}, "--negatives 0"),
        ({"loss": "in_batch", "temperature": 0}, "--temperature 0"),
        ({"loss": "in_batch", "logq": "no"}, "--logq no"),
        ({"loss": "full", "method": "all"}, "--loss full"),
        ({"schedule": "step"}, "--schedule step"),
        ({"patience": 0}, "--patience 0"),
        ({"clip_norm": 0}, "--clip_norm 0"),
        ({"eval_every": 0}, "--eval_every 0"),
        ({"warmup_steps": -1}, "--warmup_steps -1"),
    ],
)
def test_bad_options_are_named(common, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run_source(**common | {"epochs": 1} | options, run_folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("before", "now", "hit_rate", "warns"),
    [(1.3863, 1.3862, 1.0, True), (1.5, 1.4, 1.0, False), (1.3863, 1.3862, 4.0, False)],
)
def test_a_loss_that_does_not_move_at_chance_is_warned_of(before, now, hit_rate, warns):
    record = {"loss": now, "HR@10": hit_rate}
    found = standstill([{"loss": before}], record, n_items=1000)
    assert (found is not None) == warns
    assert standstill([], record, n_items=1000) is None


def test_a_loss_that_does_not_move_is_warned_of_once():
    records = [{"loss": 1.4, "HR@10": 1.0}] * 4
    warnings = [standstill(records[:epoch], records[epoch], n_items=1000) for epoch in range(4)]
    assert [one is not None for one in warnings] == [False, True, False, False]
