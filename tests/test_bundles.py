"""A trained model as one folder, on this machine and on a hub, without the files of its run."""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_recommend import TITLES, clicks, command, image_run, text_runs  # noqa: F401 (fixtures)
from trees import TextSourceSettings, TextTargetSettings, carry_out, recorded_settings

import adapter4rec
from adapter4rec import export, recommend
from adapter4rec.adapters.files import adapter_tensors
from adapter4rec.serving.bundles import write_bundle
from adapter4rec.serving.model_card import training_of
from adapter4rec.serving.trained_runs import load_run
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import single_process

UMASK = os.umask(0o077)
os.umask(UMASK)


@pytest.fixture(scope="module")
def model(text_runs):
    return adapter4rec.load(text_runs / "houlsby", device="cpu")


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "news"
    write_bundle(model, folder)
    return folder


def exported(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
    export.main()


class TestText:
    def test_it_recommends_and_encodes_as_the_run_bit_for_bit(self, model, bundle):
        loaded = adapter4rec.from_pretrained(bundle, device="cpu")
        assert torch.equal(loaded.items.rows, model.items.rows)
        for user in ("u3", "u5"):
            clicked = model.clicks_of(user)
            assert loaded.recommend(clicked) == model.recommend(clicked)
        assert torch.equal(loaded.encode(["old red house"]), model.encode(["old red house"]))
        assert loaded.with_items({"new": "old red house"}).recommend(["new"]) == (
            model.with_items({"new": "old red house"}).recommend(["new"])
        )

    def test_a_history_is_asked_for(self, bundle, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["recommend", str(bundle)])
        with pytest.raises(UserError, match="a bundle has no users; pass a history"):
            recommend.main()

    def test_others_can_read_it(self, bundle):
        modes = {path.stat().st_mode & 0o777 for path in bundle.rglob("*") if path.is_file()}
        assert modes == {0o666 & ~UMASK}

    def test_the_model_is_left_as_it_was(self, text_runs, model, tmp_path):
        before = {name: one.clone() for name, one in adapter_tensors(model.run.model).items()}
        write_bundle(model, tmp_path / "again")
        after = adapter_tensors(model.run.model)
        assert before and all(torch.equal(after[name], one) for name, one in before.items())

    def test_it_names_no_path_of_this_machine_but_in_the_command(self, text_runs, bundle):
        manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
        assert manifest["training"].pop("command")
        assert "/" not in json.dumps(manifest["settings"]) + json.dumps(manifest["training"])
        for path in bundle.rglob("*"):
            if path.is_file() and path.name not in ("README.md", "manifest.json"):
                assert str(text_runs).encode() not in path.read_bytes(), path

    def test_it_is_loaded_where_the_run_is_gone(self, text_runs, bundle, tmp_path, monkeypatch):
        moved = shutil.copytree(bundle, tmp_path / "moved")
        for folder in (text_runs, bundle):
            folder.rename(f"{folder}_gone")
        try:
            monkeypatch.chdir(tmp_path)
            loaded = adapter4rec.load("moved", device="cpu")
            assert len(loaded.recommend(["i1", "i2"], top_k=3)) == 3
            assert len(loaded.encode([TITLES["i1"]])) == 1
        finally:
            for folder in (text_runs, bundle):
                folder.with_name(f"{folder.name}_gone").rename(folder)
        assert moved.is_dir()

    def test_a_known_name_must_have_its_content(self, bundle):
        loaded = adapter4rec.from_pretrained(bundle, device="cpu")
        assert loaded.with_items({"i1": TITLES["i1"]}).candidates is loaded.candidates
        with pytest.raises(UserError, match="already in the catalogue with different content"):
            loaded.with_items({"i1": "another title"})

    def test_it_has_no_users(self, bundle):
        with pytest.raises(UserError, match="has no users; pass a history"):
            adapter4rec.from_pretrained(bundle, device="cpu").clicks_of("u3")

    def test_the_card_has_results_and_command(self, bundle, text_runs):
        card = (bundle / "README.md").read_text("utf-8")
        result = json.loads((text_runs / "houlsby" / "result.json").read_text("utf-8"))
        assert card.startswith("---\nlibrary_name: adapter4rec\n")
        assert f"{result['test']['HR@10']:.2f}" in card
        assert "--method houlsby" in card

    def test_the_card_has_the_command_of_a_run_whose_ledger_has_another_name(
        self, text_runs, tmp_path, monkeypatch
    ):
        run = tmp_path / "study" / "houlsby"
        shutil.copytree(text_runs / "houlsby", run)
        settings = json.loads((run / "settings.json").read_text("utf-8"))
        settings["settings"]["ledger"] = "./../all.jsonl"
        (run / "settings.json").write_text(json.dumps(settings), "utf-8")
        shutil.copy(text_runs / "ledger.jsonl", run.parent / "all.jsonl")
        monkeypatch.chdir(tmp_path)
        assert "--method houlsby" in (training_of(load_run(run, single_process("cpu"))).command or "")


@pytest.mark.parametrize(
    "damage", ["change", "remove", "outside", "unlisted", "resizing", "adapter", "blocks", "width"]
)
def test_a_damaged_bundle_is_refused(bundle, tmp_path, damage):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    vectors = copy / "item_vectors.safetensors"
    if damage == "change":
        raw = bytearray(vectors.read_bytes())
        raw[-1] ^= 1
        vectors.write_bytes(raw)
        message = "SHA-256 does not match"
    elif damage == "remove":
        vectors.unlink()
        message = "missing"
    else:
        manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
        if damage == "outside":
            manifest["files"]["../news/items.tsv"] = "0" * 64
        elif damage == "unlisted":
            del manifest["files"]["items.tsv"]
        elif damage == "adapter":
            del manifest["files"]["adapter.safetensors"]
        elif damage == "blocks":
            manifest["settings"]["user_blocks"] = 10**9
        elif damage == "width":
            manifest["settings"]["embedding_dim"] = 1 << 20
        else:
            manifest["resizing"] = {"size": "large"}
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        message = {
            "outside": "outside of the bundle",
            "unlisted": "does not list items.tsv",
            "resizing": "damaged, edited",
            "adapter": "does not list adapter.safetensors",
            "blocks": "must be at most 1000",
            "width": "does not fit the model",
        }[damage]
    with pytest.raises(UserError, match=message):
        adapter4rec.from_pretrained(copy, device="cpu")


@pytest.mark.parametrize("kind", ["finetune", "id", "lora", "source"])
def test_other_methods(text_runs, tmp_path, kind):
    if kind == "source":
        run = text_runs / "source"
    else:
        cls = TextSourceSettings if kind == "id" else TextTargetSettings
        values = recorded_settings(text_runs / "source")
        values |= {"method": kind, "run_folder": tmp_path / "run", "export": None}
        values["source_checkpoint"] = text_runs / "source.safetensors"
        known = cls.options({"method": kind})
        values = {name: value for name, value in values.items() if name in known}
        carry_out(cls.from_values(values))
        run = tmp_path / "run"
    model = adapter4rec.load(run, device="cpu")
    write_bundle(model, tmp_path / "bundle")
    loaded = adapter4rec.from_pretrained(tmp_path / "bundle", device="cpu")
    assert loaded.recommend(["i1", "i2"]) == model.recommend(["i1", "i2"])
    if kind == "id":
        with pytest.raises(UserError, match="an id tower"):
            loaded.encode(["a title"])
    else:
        assert torch.equal(loaded.encode(["green house"]), model.encode(["green house"]))


def test_images(image_run, tmp_path):
    model = adapter4rec.load(image_run, device="cpu")
    write_bundle(model, tmp_path / "bundle")
    loaded = adapter4rec.from_pretrained(tmp_path / "bundle", device="cpu")
    assert loaded.recommend(["i1", "i2"]) == model.recommend(["i1", "i2"])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 23, 3), np.uint8))
    assert torch.equal(loaded.encode([picture]), model.encode([picture]))
    assert loaded.recommend([picture, "i1"]) == model.recommend([picture, "i1"])
    with pytest.raises(UserError, match="not their images"):
        loaded.with_items({"i1": picture})
    with pytest.raises(UserError, match="'i0' is not in the catalogue"):
        loaded.recommend(["i0"])


class TestWithoutBase:
    def test_it_is_loaded_with_the_base_of_another(self, model, bundle, tmp_path):
        write_bundle(model, tmp_path / "small", with_base=False)
        assert not (tmp_path / "small" / "backbone").exists()
        loaded = adapter4rec.from_pretrained(tmp_path / "small", device="cpu", base=bundle)
        assert loaded.recommend(["i1"]) == model.recommend(["i1"])
        assert torch.equal(loaded.encode(["green house"]), model.encode(["green house"]))
        with pytest.raises(UserError, match="has no base model"):
            adapter4rec.from_pretrained(tmp_path / "small", device="cpu")

    def test_another_base_is_refused(self, text_runs, model, tmp_path):
        write_bundle(model, tmp_path / "small", with_base=False)
        values = recorded_settings(text_runs / "source") | {"seed": 5, "export": None}
        carry_out(TextSourceSettings.from_values(values | {"run_folder": tmp_path / "run"}))
        write_bundle(adapter4rec.load(tmp_path / "run", device="cpu"), tmp_path / "other")
        with pytest.raises(UserError, match="another base model"):
            adapter4rec.from_pretrained(tmp_path / "small", device="cpu", base=tmp_path / "other")

    def test_a_bundle_with_a_base_needs_no_other(self, text_runs, bundle, tmp_path):
        write_bundle(adapter4rec.load(text_runs / "source", device="cpu"), tmp_path / "source")
        for own in (tmp_path / "source", bundle):
            with pytest.raises(UserError, match="has its own base model; leave out"):
                adapter4rec.from_pretrained(own, device="cpu", base=bundle)

    def test_a_run_without_adapters_needs_its_model(self, image_run, tmp_path):
        with pytest.raises(UserError, match="without adapters"):
            write_bundle(adapter4rec.load(image_run, device="cpu"), tmp_path / "small", with_base=False)
        assert not (tmp_path / "small").exists()


class TestCommandLine:
    def test_exported_and_read(self, text_runs, monkeypatch, capsys, tmp_path):
        exported(monkeypatch, text_runs / "houlsby", "--bundle", tmp_path / "b", "--device", "cpu")
        assert "bundle of 20 items" in capsys.readouterr().out
        options = ["--top-k", "2", "--device", "cpu"]
        command(monkeypatch, tmp_path / "b", "--history", "i1", "i2", *options)
        recommended = capsys.readouterr().out.split("recommended")[1]
        command(monkeypatch, text_runs / "houlsby", "--history", "i1", "i2", *options)
        assert capsys.readouterr().out.split("recommended")[1] == recommended
        with pytest.raises(UserError, match="already exists"):
            exported(monkeypatch, text_runs / "houlsby", "--bundle", tmp_path / "b")

    def test_what_a_bundle_does_not_need_is_refused(self, bundle, monkeypatch):
        with pytest.raises(UserError, match="leave out --users-file"):
            command(monkeypatch, bundle, "--users-file", "users.tsv")
        with pytest.raises(UserError, match="leave out --source"):
            command(monkeypatch, bundle, "--source", "model.safetensors")
        with pytest.raises(UserError, match="typo: not a bundle, nor a run"):
            command(monkeypatch, "tests/typo", "--users-file", "users.tsv")
        with pytest.raises(UserError, match="leave out users"):
            adapter4rec.load(bundle, users="users.tsv")
