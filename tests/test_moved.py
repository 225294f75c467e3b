"""Moved repositories, backbones, data and caches: contents decide what a file is, not its path."""

import json
import shutil

import pytest
from conftest import REPOSITORY, write_domain
from test_recommend import COMMON, TITLES, clicks  # noqa: F401 (a fixture)
from trees import TextSourceSettings, TextTargetSettings, carry_out

import adapter4rec
from adapter4rec.runs.ledger import run_key
from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.portable_paths import found_paths, relative_paths
from adapter4rec.utils.settings import options_of


@pytest.fixture
def place(tmp_path, clicks, tiny_bert_folder):
    """A folder with data, a backbone, and a source model and a target run that were trained on them."""
    place = tmp_path / "before"
    write_domain(place / "data", clicks, TITLES)
    shutil.copytree(tiny_bert_folder, place / "backbone")
    carry_out(source_in(place))
    carry_out(target_in(place))
    return place


def values_in(place):
    paths = {"users": place / "data" / "users.tsv", "items": place / "data" / "items.tsv"}
    return COMMON | paths | {"cache_folder": place / "cache", "backbone": str(place / "backbone")}


def source_in(place, **changes):
    paths = {"run_folder": place / "runs" / "source", "export": place / "source.safetensors"}
    return TextSourceSettings.from_values(values_in(place) | paths | changes)


def target_in(place, **changes):
    paths = {"run_folder": place / "runs" / "target", "source_checkpoint": place / "source.safetensors"}
    return TextTargetSettings.from_values(values_in(place) | paths | {"method": "houlsby"} | changes)


def shown(place, **moved):
    model = adapter4rec.load(place / "runs" / "target", device="cpu", **moved)
    return [(one.item, one.score) for one in model.recommend(model.clicks_of("u1"), top_k=5)]


def test_everything_moved_together_recommends_resumes_and_leaves_old_caches_alone(place, tmp_path):
    before, key = shown(place, cache_folder=place / "cache"), run_key(target_in(place))
    after = place.rename(tmp_path / "after")
    recorded = json.loads((after / "runs/target/settings.json").read_text())["settings"]
    assert str(tmp_path) not in json.dumps(recorded)
    assert shown(after, cache_folder=tmp_path / "new_cache") == before
    assert list((tmp_path / "new_cache" / "tokens").iterdir())
    assert not (tmp_path / "before").exists()
    assert run_key(target_in(after)) == key
    carry_out(target_in(after, resume=True, epochs=2))
    assert len((after / "runs/target/metrics.jsonl").read_text().splitlines()) == 3


def test_a_run_folder_moved_alone_finds_what_has_stayed(place, tmp_path):
    before = shown(place, cache_folder=tmp_path / "cache")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (place / "runs").rename(tmp_path / "a" / "b" / "runs")
    assert shown(tmp_path / "a" / "b", cache_folder=tmp_path / "cache") == before


def test_another_backbone_at_the_same_path_is_refused(place, tmp_path, tiny_bert_folder):
    config = json.loads((place / "backbone" / "config.json").read_text())
    (place / "backbone" / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(UserError, match=r"start: was .*\n  changed: backbone \S+$"):
        carry_out(target_in(place, resume=True, epochs=2))
    with pytest.raises(UserError, match="initial weights have changed"):
        shown(place, cache_folder=tmp_path / "cache")
    assert shown(place, cache_folder=tmp_path / "cache", backbone=str(tiny_bert_folder))


def test_a_replaced_source_model_is_named(place, tmp_path):
    path = place / "source.safetensors"
    source = read_checkpoint(path)
    tensors = {name: tensor + 1 for name, tensor in source.tensors.items()}
    write_checkpoint(path, tensors, source.description)
    with pytest.raises(UserError, match=r"changed: source model \S+source\.safetensors$"):
        shown(place, cache_folder=tmp_path / "cache")
    with pytest.raises(UserError, match=r"start: was .*\n  changed: source model \S+source\.safetensors$"):
        carry_out(target_in(place, resume=True, epochs=2))


def test_a_source_model_is_its_tensors(place):
    path = place / "source.safetensors"
    key, source = run_key(target_in(place)), read_checkpoint(path)
    write_checkpoint(
        path, source.tensors, source.description | {"versions": {"torch": "0.1"}, "run": "again"}
    )
    assert run_key(target_in(place)) == key
    first = next(iter(source.tensors))
    write_checkpoint(path, source.tensors | {first: source.tensors[first] + 1}, source.description)
    assert run_key(target_in(place)) != key


def test_paths_in_the_repository_are_recorded_relative_to_it(tmp_path):
    inside = {"users": REPOSITORY / "Dataset" / "u.tsv", "items": tmp_path / "data" / "i.tsv"}
    settings = TextSourceSettings.from_values(inside | {"backbone": str(REPOSITORY / "docs")})
    recorded = relative_paths(settings, tmp_path / "runs" / "one")
    assert recorded["users"] == "Dataset/u.tsv"
    assert recorded["items"] == "./../../data/i.tsv"
    assert recorded["backbone"] == "docs"
    beside = TextSourceSettings.from_values(inside | {"items": REPOSITORY / ".." / "beside" / "i.tsv"})
    assert relative_paths(beside, REPOSITORY / "runs" / "one")["items"] == "./../../../beside/i.tsv"
    hidden = TextSourceSettings.from_values(inside | {"users": REPOSITORY / ".data" / "u.tsv"})
    recorded |= {"cache_folder": relative_paths(hidden, tmp_path / "runs" / "one")["users"]}
    recorded = {name: recorded[name] for name in ("users", "items", "backbone", "cache_folder")}
    folders = tmp_path / "moved" / "runs" / "one", tmp_path / "runs" / "one"
    found = found_paths(recorded, options_of(TextSourceSettings), folders)
    assert found == {
        "users": str(inside["users"]),
        "items": str(inside["items"]),
        "backbone": "docs",
        "cache_folder": str(REPOSITORY / ".data" / "u.tsv"),
    }
    (tmp_path / "moved" / "data").mkdir(parents=True)
    (tmp_path / "moved" / "data" / "i.tsv").touch()
    found = found_paths(recorded, options_of(TextSourceSettings), folders)
    assert found["items"] == str(tmp_path / "moved" / "data" / "i.tsv")
