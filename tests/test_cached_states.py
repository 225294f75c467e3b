"""Training and ranking from states of the frozen part, against the whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_models import (
    BACKBONES,
    N_ITEMS,
    PATCHES,
    batch_for,
    is_image,
    model_on,
    shaken,
    store_for,
)
from conftest import interactions_of
from trees import ImageTargetSettings, TextTargetSettings

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.data.cached_table import computed_table
from adapter4rec.data.domain import Domain
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.models.layers import layers_of
from adapter4rec.training import cached_states as states
from adapter4rec.training.cached_states import cache_hidden_states, layers_to_cache
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.precision import choose_precision

SMALL_CHAIN = {"item_inner": 8, "item_inner_heads": 2, "user_inner": 4}
CASES = {
    "k_adapter": SMALL_CHAIN,
    "houlsby": {"item_layers": "last:1", "item_bottleneck": 4},
    "lora": {"item_layers": "last:1", "item_rank": 2},
    "layernorm": {"item_layers": "last:1"},
    "compacter": {"encoders": ("user",), "user_bottleneck": 4},
}


def settings_for(model, tmp_path: Path, family: str, **options):
    kind = ImageTargetSettings if is_image(model) else TextTargetSettings
    settings = kind(users="u", items="i", method=family, cache_folder=tmp_path, precision="fp32")
    config = FAMILIES[family](**CASES.get(family, {}) | options)
    return replace(settings, adapter=config, cache_frozen=True, cache_format="fp32")


def domain_for(store) -> Domain:
    interactions = interactions_of([[1, 2, 3, 4]], N_ITEMS, 6)
    return Domain("made for a test", interactions, store, "")


@pytest.fixture(params=[(backbone, family) for backbone in BACKBONES for family in CASES], ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_ITEMS_AT_ONCE", 7)


@pytest.mark.usefixtures("few_at_once")
def test_loss_and_gradients_are_those_of_the_whole_model(folder, pair, tmp_path, one_process):
    model = model_on(folder).eval()  # no dropout: the frozen part runs without
    settings = settings_for(model, tmp_path, pair[1])
    add_adapters(model, settings.adapter)
    shaken(model)
    domain = domain_for(store_for(model))
    if is_image(model):
        domain.store.identity = "pixels"
    cached = cache_hidden_states(domain, model, settings, one_process)
    batch = batch_for(model)
    model(batch).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    loss = model(batch)
    model.zero_grad()
    for other in (cached, cache_hidden_states(domain, model, settings, one_process)):
        items = np.arange(1, N_ITEMS + 1)
        with torch.no_grad():
            found = model.encode_items(other.store.fetch(items))
            whole = model.encode_items(domain.store.fetch(items))
        assert torch.allclose(found, whole, atol=1e-5)
    content = cached.store.fetch(batch.items.numpy())
    from_cache = model(replace(batch, contents=(content,)))
    assert torch.allclose(from_cache, loss, atol=1e-5)
    from_cache.backward()
    grown = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert grown.keys() == expected.keys()
    assert all(torch.allclose(grown[name], expected[name], atol=1e-5) for name in expected)


@pytest.mark.parametrize("name", ["tiny_bert_folder", "tiny_vit_folder"])
def test_no_frozen_layer_computes_anything(request, name, tmp_path, one_process):
    model = model_on(request.getfixturevalue(name)).eval()
    settings = settings_for(model, tmp_path, "k_adapter")
    add_adapters(model, settings.adapter)
    domain = domain_for(store_for(model))
    if is_image(model):
        domain.store.identity = "pixels"
    cached = cache_hidden_states(domain, model, settings, one_process)
    called = []
    for module in layers_of(model.item_encoder.backbone).modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda *_: called.append(1))
    model.encode_items(cached.store.fetch(np.arange(1, 6)))
    assert not called
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix}
    cache_hidden_states(domain, model, settings, one_process)
    assert times
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix}, "again"


def test_runs_of_peft_with_other_seeds_share_their_states(tiny_bert_folder, tmp_path, one_process):
    for seed in (1, 2):
        model = model_on(tiny_bert_folder).eval()
        settings = settings_for(model, tmp_path, "peft", item_layers="last:1")
        add_adapters(model, settings.adapter, seed=seed)
        cache_hidden_states(domain_for(store_for(model)), model, settings, one_process)
    assert len(list((tmp_path / "states").iterdir())) == 1


@pytest.mark.parametrize("form", ["fp16", "bf16"])
def test_states_of_16_bits_are_near(tiny_bert_folder, tmp_path, one_process, form):
    model = model_on(tiny_bert_folder).eval()
    settings = replace(settings_for(model, tmp_path, "k_adapter"), cache_format=form)
    add_adapters(model, settings.adapter)
    domain = domain_for(store_for(model))
    cached = cache_hidden_states(domain, model, settings, one_process)
    items = np.arange(1, N_ITEMS + 1)
    with torch.no_grad():
        whole = model.encode_items(domain.store.fetch(items))
        found = model.encode_items(cached.store.fetch(items))
        assert torch.allclose(found, whole, atol=0.03)
        assert not torch.equal(found, whole)
        with choose_precision("bf16", torch.device("cpu")).autocast():
            assert torch.allclose(model.encode_items(cached.store.fetch(items)), whole, atol=0.1)
    assert next((tmp_path / "states").glob("*/rows.bin")).stat().st_size == 2 * 2 * 32 * len(
        domain.store.attributes[0].tokens
    )


def test_several_texts_an_item(tiny_bert_folder, tmp_path, one_process):
    model = model_on(tiny_bert_folder).eval()
    chance = np.random.default_rng(0)
    attributes = []
    for number in range(2):
        lengths = chance.integers(3, 9, N_ITEMS)
        flat = chance.integers(5, 60, lengths.sum()).astype(np.int32)
        attributes.append(Tokens(flat, np.concatenate([[0], lengths.cumsum()]), str(number)))
    domain = domain_for(TextStore(attributes, 64))
    settings = settings_for(model, tmp_path, "k_adapter")
    add_adapters(model, settings.adapter)
    cached = cache_hidden_states(domain, model, settings, one_process)
    items = np.array([5, 1, 30, 17])
    with torch.no_grad():
        whole = model.encode_items(domain.store.fetch(items))
        assert torch.allclose(model.encode_items(cached.store.fetch(items)), whole, atol=1e-5)


def test_which_layers_are_cached(tiny_bert_folder, tmp_path):
    model = model_on(tiny_bert_folder)

    def layers(family: str, count: int = 12, **options) -> tuple[int, ...]:
        return layers_to_cache(settings_for(model, tmp_path, family, **options), count)

    assert layers("k_adapter", item_layers="ends") == (0, 11)
    assert layers("k_adapter", item_layers="first:2") == (0, 1, 11)
    assert layers("houlsby", item_layers="last:3") == (8,)
    assert layers("lora", item_layers="4,9") == (3,)
    assert layers("lora", encoders=("user",)) == ()
    head = TextTargetSettings(users="u", items="i", method="head", cache_frozen=True)
    assert layers_to_cache(head, 12) == ()
    for family, options in (
        ("houlsby", {"item_layers": "all"}),
        ("prompt", {}),
        ("k_adapter", {"train_layer_norms": True}),
    ):
        with pytest.raises(UserError, match="from its first layer"):
            layers(family, **options)
    with pytest.raises(UserError, match="reads padding"):
        layers("k_adapter", semantics="release")
    for method in ("finetune", "scratch"):
        with pytest.raises(UserError, match="from its first layer"):
            layers_to_cache(replace(head, method=method), 12)


def test_masked_images_are_refused(tiny_mae_folder, tmp_path, one_process):
    model = model_on(tiny_mae_folder)
    model.item_encoder.backbone.config.mask_ratio = 0.75
    with pytest.raises(UserError, match="masks patches at random"):
        cache_hidden_states(
            domain_for(store_for(model)), model, settings_for(model, tmp_path, "k_adapter"), one_process
        )


class TestTable:
    TABLE = ((10, 3), torch.float32, [4, 8, 10])
    ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)

    def compute(self, asked: list[int], stop_at: int | None = None):
        def rows(number: int) -> torch.Tensor:
            if number == stop_at:
                raise KeyboardInterrupt
            asked.append(number)
            return torch.from_numpy(np.split(self.ROWS, [4, 8])[number])

        return rows

    def test_goes_on_where_it_was_interrupted(self, tmp_path: Path) -> None:
        asked, said = [], []
        with pytest.raises(KeyboardInterrupt):
            computed_table(tmp_path / "t", *self.TABLE, self.compute(asked, stop_at=2), said.append)
        rows = computed_table(tmp_path / "t", *self.TABLE, self.compute(asked), said.append)
        assert asked == [0, 1, 2]
        assert np.array_equal(rows.view(np.float32), self.ROWS)
        assert "MiB of hidden states" in said[0]
        assert "resuming at 66 %" in said[1]
        computed_table(tmp_path / "t", *self.TABLE, self.compute(asked), said.append)
        assert asked == [0, 1, 2]
        assert len(said) == 2

    @pytest.mark.parametrize("damaged", ["rows.bin", "rows.sha256"])
    def test_a_damaged_table_is_computed_again(self, tmp_path: Path, damaged: str) -> None:
        asked: list[int] = []
        computed_table(tmp_path / "t", *self.TABLE, self.compute(asked))
        path = tmp_path / "t" / damaged
        data = bytearray(path.read_bytes())
        data[50] ^= 1
        path.write_bytes(data)
        rows = computed_table(tmp_path / "t", *self.TABLE, self.compute(asked))
        assert np.array_equal(rows.view(np.float32), self.ROWS)
        assert asked == [0, 1, 2, 0, 1, 2]

    def test_a_block_that_is_not_whole_is_computed_again(self, tmp_path: Path) -> None:
        asked = []
        with pytest.raises(KeyboardInterrupt):
            computed_table(tmp_path / "t", *self.TABLE, self.compute(asked, stop_at=2))
        with (tmp_path / "t" / "rows.part").open("r+b") as file:
            file.truncate(5 * 12)
        rows = computed_table(tmp_path / "t", *self.TABLE, self.compute(asked))
        assert asked == [0, 1, 1, 2]
        assert np.array_equal(rows.view(np.float32), self.ROWS)


def test_patches_cover_the_image_kinds():
    assert set(PATCHES) < set(BACKBONES)
