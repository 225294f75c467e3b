"""Adapters attach at sites, train alone, and come off again without a trace."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import RandomImages, interactions_of, random_sequences
from torch import nn

from adapter4rec.adapters import registry
from adapter4rec.adapters.attaching import add_adapters, detach_adapters, encoder_sites
from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.houlsby import Bottleneck, HoulsbyConfig
from adapter4rec.adapters.sites import SUBLAYERS
from adapter4rec.data.batches import TrainingSet, with_content
from adapter4rec.data.images.store import Pixels
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.errors import UserError
from adapter4rec.models.backbones import IMAGE_ENCODERS, TEXT_ENCODERS, load_backbone
from adapter4rec.models.item_encoders import IdItemEncoder, ImageItemEncoder, TextItemEncoder
from adapter4rec.models.objectives import Objective
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoder import UserEncoder
from adapter4rec.training.parameters import count_parameters, train_only

N_ITEMS, LENGTH, WIDTH, DIM = 30, 6, 32, 16


@pytest.fixture(params=["tiny_bert_folder", "tiny_roberta_folder", "tiny_vit_folder", "tiny_mae_folder"])
def model(request):
    folder = request.getfixturevalue(request.param)
    is_image = "vit" in request.param or "mae" in request.param
    backbone = load_backbone(folder, IMAGE_ENCODERS if is_image else TEXT_ENCODERS)
    if is_image:
        backbone.config.mask_ratio = 0.0
        for layer in backbone.layers:
            layer.dropout.p = 0.1  # both sublayers share it
    torch.manual_seed(1)
    encoder = ImageItemEncoder(backbone, DIM, 8) if is_image else TextItemEncoder(backbone, DIM)
    return TransRec(encoder, UserEncoder(DIM, LENGTH, 2, 2, 0.1), Objective.SASREC)


@pytest.fixture
def batch(model):
    is_image = isinstance(model.item_encoder, ImageItemEncoder)
    store = RandomImages(N_ITEMS, 16) if is_image else random_texts()
    interactions = interactions_of(
        random_sequences(np.random.default_rng(0), 8, N_ITEMS, LENGTH), N_ITEMS, LENGTH
    )
    ids = TrainingSet(interactions, 8, seed=0).ids(np.arange(8), 1, 0)
    return with_content(ids, store, int(ids.log_mask.sum()))


def random_texts():
    chance = np.random.default_rng(0)
    lengths = chance.integers(3, 9, N_ITEMS)
    tokens = Tokens(
        chance.integers(5, 60, lengths.sum()).astype(np.int32),
        np.concatenate([[0], lengths.cumsum()]),
        "test",
    )
    return TextStore([tokens], 0, 64)


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
        assert torch.allclose(adapted, before, rtol=1e-2)
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


def test_released_sizes_on_vit_base():
    from transformers import ViTConfig, ViTModel  # noqa: PLC0415

    with torch.device("meta"):
        backbone = ViTModel(ViTConfig(), add_pooling_layer=False)
        base = TransRec(ImageItemEncoder(backbone, 64, 8), UserEncoder(64, 10, 2, 2, 0.1), Objective.SASREC)
        add_adapters(base, HoulsbyConfig())
    train_only(base, ("adapter",))
    assert count_parameters(base).trained == 2_387_776


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


def watch_sublayers(model):
    """Record y and x of every sublayer, in the order in which they are computed."""
    seen, undo = {}, []
    for role, sites in encoder_sites(model).items():
        for number, layer in enumerate(sites.layers):
            for kind in SUBLAYERS:

                def change(y, x, name=(role, number, kind)):
                    seen[name] = (y, x)
                    return y

                undo.append(layer.sublayers[kind].on_output(change))
    return seen, undo


def test_sublayer_sites_see_the_residual_and_the_output(model, batch):
    """What the sites hand over adds up to the state that the next sublayer reads."""
    model.eval()
    with torch.no_grad():
        before = model(batch)
        seen, undo = watch_sublayers(model)
        assert torch.equal(model(batch), before)
    assert len(seen) == 2 * 2 + 2 * 2
    for role, sites in encoder_sites(model).items():
        places = [(role, number, kind) for number in range(len(sites.layers)) for kind in SUBLAYERS]
        for place, following in pairwise(places):
            (y, x), (_, next_x) = seen[place], seen[following]
            sublayer = sites.layers[place[1]].sublayers[place[2]]
            expected = x + y if sublayer.pre_norm else sublayer.norm(x + y)
            assert torch.allclose(next_x, expected, atol=1e-5), place
    for one in undo:
        one()
    seen.clear()
    with torch.no_grad():
        assert torch.equal(model(batch), before)
    assert not seen


def test_the_place_behind_the_norm_is_that_of_post_norm_encoders(model, batch):
    seen = []

    def watch(after, total):
        seen.append((after, total))
        return after

    for sites in encoder_sites(model).values():
        for layer in sites.layers:
            for sublayer in layer.sublayers.values():
                if sublayer.pre_norm:
                    with pytest.raises(ValueError, match="pre-norm"):
                        sublayer.on_normed_sum(watch)
                    continue
                undo = sublayer.on_normed_sum(watch)
                with torch.no_grad():
                    model(batch)
                undo()
                after, total = seen.pop()
                assert torch.allclose(after, sublayer.norm(total), atol=1e-5)
                seen.clear()


def test_sublayer_sites_see_the_output_with_its_dropout_applied(model, batch):
    """In training an adapter reads the very f(x) that the residual is added to."""
    model.train()
    seen, _ = watch_sublayers(model)
    model(batch)
    for place, (y, _) in seen.items():
        assert 0.03 < (y == 0).float().mean() < 0.3, place


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
        self.calls.append(sorted(arguments))
        return arguments


def test_an_own_family_needs_a_class_and_a_registry_line(model, batch, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "every_site", registry.Family(EverySiteConfig, EverySite))
    model.eval()
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(batch)
        add_adapters(model, EverySiteConfig())
        assert torch.equal(model(batch), before)
        content = batch.content
        calls = len(content.pixels.split(8)) if isinstance(content, Pixels) else len(content.groups)
        assert len(model.adapters["item"].calls) == calls
        model.adapters["item"].scale.fill_(1.0)
        assert not torch.equal(model(batch), before)
        detach_adapters(model)
        assert torch.equal(model(batch), before)
    assert list(model.state_dict()) == names
