"""One base model serves many domains: equal to each domain alone, with the base's weights in memory once."""

from __future__ import annotations

import gc
import re
import sys
from itertools import chain

import pytest
import torch
from adapter_models import BACKBONES, batch_for, model_on
from conftest import REPOSITORY
from safetensors.torch import load_file
from test_bundles import bundle, model  # noqa: F401 (fixtures)
from test_recommend import TITLES, clicks, text_runs  # noqa: F401 (fixtures)
from trees import TextSourceSettings, TextTargetSettings, carry_out, recorded_settings

import adapter4rec
from adapter4rec import export, recommend
from adapter4rec.serving.bundles import write_bundle
from adapter4rec.serving.domains import sharing_weights
from adapter4rec.serving.trained_runs import load_adapted
from adapter4rec.utils.errors import UserError


@pytest.fixture(scope="module")
def second(text_runs, tmp_path_factory):
    """A LoRA run from the same source, and its bundle without base model."""
    folder = tmp_path_factory.mktemp("second")
    values = recorded_settings(text_runs / "source")
    values |= {"method": "lora", "source_checkpoint": text_runs / "source.safetensors", "seed": 9}
    known = TextTargetSettings.options({"method": "lora"})
    values = {name: value for name, value in values.items() if name in known}
    carry_out(TextTargetSettings.from_values(values | {"run_folder": folder / "lora", "lr_adapter": 1e-2}))
    run = adapter4rec.load(folder / "lora", device="cpu")
    write_bundle(run, folder / "bundle", with_base=False)
    return run, folder / "bundle"


def test_each_domain_is_what_it_is_alone(bundle, model, second):
    run, small = second
    domains = adapter4rec.Domains({"houlsby": bundle, "lora": small}, device="cpu")
    domains.add("again", bundle)
    assert list(domains) == ["houlsby", "lora", "again"]
    new = {"title": "old red house"}
    for _ in range(2):  # in turns
        for name, alone in (("houlsby", model), ("lora", run), ("again", model)):
            assert domains[name].recommend(["i1", "i2"]) == alone.recommend(["i1", "i2"])
            assert torch.equal(domains[name].encode([new]), alone.encode([new]))
    assert not torch.equal(domains["lora"].encode([new]), domains["houlsby"].encode([new]))
    domains.remove("houlsby")
    gc.collect()
    assert domains["again"].recommend(["i1"]) == model.recommend(["i1"])


def test_adapters_that_replace_head_and_user_encoder_need_the_backbone_alone(
    text_runs, tmp_path, one_process
):
    source, runs = text_runs / "source.safetensors", {}
    for name, seed in (("one", 1), ("two", 2)):
        head = tmp_path / f"{name}_head.safetensors"
        values = recorded_settings(text_runs / "source")
        values |= {"method": "head", "start_from": source, "seed": seed, "export": head, "lr_item_head": 1e-2}
        carry_out(TextSourceSettings.from_values(values | {"run_folder": tmp_path / f"{name}_head"}))
        values = {"method": "houlsby", "source_checkpoint": head, "encoders": "item", "train_head": True}
        known = TextTargetSettings.options(values)
        values |= {"train_user_encoder": True, "run_folder": tmp_path / name}
        same = recorded_settings(text_runs / "source").items()
        values = {key: one for key, one in same if key in known} | values
        carry_out(TextTargetSettings.from_values(values))
        runs[name] = adapter4rec.load(tmp_path / name, device="cpu")
        write_bundle(runs[name], tmp_path / f"{name}_bundle", with_base=name == "one")
    domains = adapter4rec.Domains({name: tmp_path / f"{name}_bundle" for name in runs}, device="cpu")
    for name, run in runs.items():
        assert domains[name].recommend(["i1", "i2"]) == run.recommend(["i1", "i2"])
        adapted = load_adapted(source, tmp_path / name / "adapter.safetensors", one_process, {})
        same = run.run.model
        assert torch.equal(adapted.model.eval()(batch_for(same)), same.eval()(batch_for(same)))
    first, second = (load_file(tmp_path / f"{name}_head.safetensors") for name in runs)
    assert not torch.equal(first["item_encoder.head.weight"], second["item_encoder.head.weight"])


def test_the_weights_of_the_base_are_in_memory_once(bundle, second):
    domains = adapter4rec.Domains({"houlsby": bundle, "lora": second[1]}, device="cpu")
    one, other = (
        {
            tensor.data_ptr(): tensor.numel()
            for tensor in chain(domain.run.model.parameters(), domain.run.model.buffers())
            if tensor.numel()
        }
        for domain in domains.values()
    )
    base = sum(one[place] for place in one.keys() & other.keys())
    own = adapter4rec.count_parameters(domains["houlsby"].run.model.adapters).total
    assert base == sum(one.values()) - own


def test_an_item_of_one_domain_is_unknown_in_another(bundle, second):
    domains = adapter4rec.Domains({"a": bundle, "b": second[1]}, device="cpu")
    wider = domains["a"].with_items({"fresh": "green house"})
    assert "fresh" in wider.candidates.names
    with pytest.raises(UserError, match="'fresh' is not in the catalogue"):
        domains["b"].recommend(["fresh"])


def test_another_source_is_refused(text_runs, bundle, tmp_path):
    values = recorded_settings(text_runs / "source") | {"seed": 5, "export": None}
    carry_out(TextSourceSettings.from_values(values | {"run_folder": tmp_path / "run"}))
    write_bundle(adapter4rec.load(tmp_path / "run", device="cpu"), tmp_path / "other")
    with pytest.raises(UserError, match="another base model"):
        adapter4rec.Domains({"a": bundle, "b": tmp_path / "other"}, device="cpu")


def test_a_domain_without_adapters_has_the_weights_of_the_base(text_runs, bundle, tmp_path):
    values = recorded_settings(text_runs / "source")
    values |= {"method": "frozen", "source_checkpoint": text_runs / "source.safetensors"}
    known = TextTargetSettings.options({"method": "frozen"})
    values = {name: value for name, value in values.items() if name in known}
    carry_out(TextTargetSettings.from_values(values | {"run_folder": tmp_path / "run"}))
    frozen = adapter4rec.load(tmp_path / "run", device="cpu")
    write_bundle(frozen, tmp_path / "frozen")
    domains = adapter4rec.Domains({"a": bundle, "b": tmp_path / "frozen"}, device="cpu")
    assert domains["b"].recommend(["i1", "i2"]) == frozen.recommend(["i1", "i2"])


def test_a_base_is_needed(second):
    with pytest.raises(UserError, match="has no base model"):
        adapter4rec.Domains({"a": second[1]}, device="cpu")
    with pytest.raises(UserError, match="at least one domain"):
        adapter4rec.Domains({}, device="cpu")


def test_histories_of_contents_that_the_model_has_never_seen(model):
    by_name = model.with_items({"fresh": "old red house"}).recommend(["i1", "fresh"])
    wanted = [(one.item, one.score) for one in by_name]
    for content in ({"title": "old red house"}, ("old red house",)):
        assert [(one.item, one.score) for one in model.recommend(["i1", content])] == wanted
    assert model.recommend([{"title": TITLES["i3"]}], top_k=1)
    with pytest.raises(UserError, match="'old red house' is not in the catalogue"):
        model.recommend(["old red house"])


@pytest.mark.parametrize("name", BACKBONES)
def test_a_copy_computes_what_the_model_does_with_adapters_of_its_own(request, name):
    base = model_on(request.getfixturevalue(name)).eval()
    batch = batch_for(base)
    with torch.no_grad():
        before = base(batch)
        copied = sharing_weights(base)
        assert torch.equal(copied(batch), before)
        adapters = adapter4rec.add_adapters(
            copied, adapter4rec.HoulsbyConfig(item_bottleneck=4, user_bottleneck=4)
        )
        for parameter in adapters.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        assert not torch.equal(copied(batch), before)
        assert torch.equal(base(batch), before)
        assert torch.equal(sharing_weights(base)(batch), before)
    for key, parameter in base.named_parameters():
        assert copied.get_parameter(key) is parameter


def test_the_commands_of_the_page_run_as_they_stand(text_runs, monkeypatch, capsys, tmp_path):
    page = (REPOSITORY / "docs" / "sharing.md").read_text("utf-8")
    (tmp_path / "runs").mkdir()
    for name in ("runs/quickstart/houlsby", "runs/music", "runs/books"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(text_runs / "houlsby")
    monkeypatch.chdir(tmp_path)
    for line in re.findall(r"^    adapter4rec (export .*)$", page, re.MULTILINE):
        if "--push" not in line and not (tmp_path / line.split()[3]).exists():
            monkeypatch.setattr(sys, "argv", line.split())
            export.main()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if "adapter4rec" in block:
            names = {}
            exec(block, names)
    assert list(names["shops"]) == ["music", "books", "films"]
    monkeypatch.setattr(sys, "argv", ["recommend", "books", "--base", "music", "--history", "i1", "i2"])
    recommend.main()
    assert "--history: recommended" in capsys.readouterr().out
