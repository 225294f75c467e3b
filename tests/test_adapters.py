"""Adapters attach at sites, train alone, and come off again without a trace."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import interactions_of, random_sequences
from torch import nn
from transformers import AutoModel

from adapter4rec.adapters import registry
from adapter4rec.adapters.attaching import add_adapters, detach_adapters, encoder_sites
from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.houlsby import Bottleneck, HoulsbyConfig
from adapter4rec.adapters.sites import SUBLAYERS
from adapter4rec.data.batches import TrainingSet, with_content
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.errors import UserError
from adapter4rec.models.item_encoders import IdItemEncoder, TextItemEncoder
from adapter4rec.models.objectives import Objective
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoder import UserEncoder
from adapter4rec.training.parameters import count_parameters, train_only

N_ITEMS, LENGTH, WIDTH, DIM = 30, 6, 32, 16


@pytest.fixture(params=["tiny_bert_folder", "tiny_roberta_folder"])
def model(request):
    folder = request.getfixturevalue(request.param)
    backbone = AutoModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
    torch.manual_seed(1)
    return TransRec(TextItemEncoder(backbone, DIM), UserEncoder(DIM, LENGTH, 2, 2, 0.1), Objective.SASREC)


@pytest.fixture
def batch():
    chance = np.random.default_rng(0)
    lengths = chance.integers(3, 9, N_ITEMS)
    tokens = Tokens(
        chance.integers(5, 60, lengths.sum()).astype(np.int32),
        np.concatenate([[0], lengths.cumsum()]),
        "test",
    )
    interactions = interactions_of(random_sequences(chance, 8, N_ITEMS, LENGTH), N_ITEMS, LENGTH)
    ids = TrainingSet(interactions, 8, seed=0).ids(np.arange(8), 1, 0)
    return with_content(ids, TextStore([tokens], 0, 64), int(ids.log_mask.sum()))


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_houlsby_starts_near_the_frozen_model_and_detaches_bit_for_bit(model, batch):
    model.eval()
    with torch.no_grad():
        before, weights = model(batch), snapshot(model)
        add_adapters(model, HoulsbyConfig(item_bottleneck=8, user_bottleneck=4))
        adapted = model(batch)
        assert not torch.equal(adapted, before)
        assert torch.allclose(adapted, before, atol=1e-2)
        detached = detach_adapters(model)
        assert torch.equal(model(batch), before)
    assert_same(snapshot(model), weights)
    assert set(detached) == {"item", "user"}


def test_only_the_adapters_get_gradients_and_all_of_them_do(model, batch):
    add_adapters(model, HoulsbyConfig(item_bottleneck=8, user_bottleneck=4))
    train_only(model, ("adapter",))
    model(batch).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("adapters."):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


def test_training_changes_the_adapters_and_nothing_else(model, batch):
    add_adapters(model, HoulsbyConfig(item_bottleneck=8, user_bottleneck=4))
    train_only(model, ("adapter",))
    before = snapshot(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(2):
        model(batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("adapters.")), name


def test_number_of_trained_parameters(model):
    add_adapters(model, HoulsbyConfig(item_bottleneck=8, user_bottleneck=4))
    train_only(model, ("adapter",))

    def bottleneck(width, inner):
        return 2 * width * inner + width + inner

    expected = 2 * 2 * bottleneck(WIDTH, 8) + 2 * 2 * bottleneck(DIM, 4)
    assert count_parameters(model).trained == expected


def test_released_sizes_on_bert_base():
    from transformers import BertConfig, BertModel  # noqa: PLC0415

    with torch.device("meta"):
        backbone = BertModel(BertConfig(), add_pooling_layer=False)
        base = TransRec(TextItemEncoder(backbone, 64), UserEncoder(64, 20, 2, 2, 0.1), Objective.SASREC)
        assert count_parameters(base).trained == 109_041_728
        add_adapters(base, HoulsbyConfig())
    train_only(base, ("adapter",))
    assert count_parameters(base).trained == 2_387_776


def test_one_encoder_alone(model, batch):
    add_adapters(model, HoulsbyConfig(encoders=("user",)))
    assert set(model.adapters) == {"user"}
    with pytest.raises(UserError, match="adapters already"):
        add_adapters(model, HoulsbyConfig())


def test_id_tower_has_no_backbone_to_adapt():
    tower = TransRec(IdItemEncoder(5, DIM), UserEncoder(DIM, LENGTH, 2, 2, 0.0), Objective.SASREC)
    with pytest.raises(UserError, match="no backbone"):
        add_adapters(tower, HoulsbyConfig())


def test_bottleneck_is_the_described_function():
    torch.manual_seed(0)
    adapter = Bottleneck(6, 3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    y = torch.randn(2, 5, 6)
    inner = torch.clamp(y @ adapter.down.weight.T + adapter.down.bias, min=0)
    assert torch.allclose(adapter(y), y + inner @ adapter.up.weight.T + adapter.up.bias, atol=1e-6)


def test_sublayer_sites_see_the_residual_and_the_output(model, batch):
    """LN(x + y) from what the sites hand over is what the layer computes."""
    model.eval()
    seen = {}

    def watch(site_name, layer):
        def change(y, x):
            seen[site_name, "parts"] = (y, x)
            return y

        def normed(after, total):
            seen[site_name, "sum"] = (after, total)
            return after

        return layer.on_output(change), layer.on_normed_sum(normed)

    undo = [
        part
        for role, sites in encoder_sites(model).items()
        for number, layer in enumerate(sites.layers)
        for kind in SUBLAYERS
        for part in watch((role, number, kind), layer.sublayers[kind])
    ]
    with torch.no_grad():
        before = model(batch)
    assert len(seen) == 2 * (2 * 2 + 2 * 2)
    for role, sites in encoder_sites(model).items():
        for number, layer in enumerate(sites.layers):
            for kind in SUBLAYERS:
                y, x = seen[(role, number, kind), "parts"]
                after, total = seen[(role, number, kind), "sum"]
                assert torch.allclose(total, x + y, atol=1e-6)
                assert torch.allclose(after, layer.sublayers[kind].norm(x + y), atol=1e-5)
    for one in undo:
        one()
    seen.clear()
    with torch.no_grad():
        assert torch.equal(model(batch), before)
    assert not seen


@dataclass(frozen=True)
class EverySiteConfig(AdapterConfig):
    """An adapter of someone's own, which uses the sites that Houlsby does not."""


class EverySite(Adapter):
    def __init__(self, config, sites):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(sites.width))
        self.calls = []
        first = sites.layers[0]
        self.attach(first.on_state(lambda output, layer_input: output + self.scale * layer_input))
        wrapped = nn.Sequential(first.query.module, nn.Identity())
        self.attach(first.query.replace_by(wrapped))
        if sites.role == "item":
            self.attach(sites.on_inputs(self.count_call))

    def count_call(self, arguments):
        self.calls.append(arguments["inputs_embeds"].shape)
        return arguments


def test_an_own_family_needs_a_class_and_a_registry_line(model, batch, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "every_site", registry.Family(EverySiteConfig, EverySite))
    model.eval()
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(batch)
        add_adapters(model, EverySiteConfig())
        assert torch.equal(model(batch), before)
        assert len(model.adapters["item"].calls) == len(batch.content.groups)
        model.adapters["item"].scale.fill_(1.0)
        assert not torch.equal(model(batch), before)
        detach_adapters(model)
        assert torch.equal(model(batch), before)
    assert list(model.state_dict()) == names
