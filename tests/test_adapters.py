"""Adapters attach at sites, train alone, and come off again without a trace."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from adapter_models import BACKBONES, DIM, LENGTH, WITHOUT_SUBLAYER_DROPOUT, batch_for, model_on
from torch import nn
from trees import TextTargetSettings

from adapter4rec.adapters import registry
from adapter4rec.adapters.attaching import add_adapters, detach_adapters, encoder_sites
from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.config import ATTENTION, SUBLAYERS, AdapterConfig
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.data.images.store import Pixels
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.parameters import train_only
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.training.optimizer import make_optimizer
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option


@pytest.fixture(params=BACKBONES)
def model(request):
    return model_on(request.getfixturevalue(request.param))


@pytest.fixture
def batch(model):
    return batch_for(model)


def test_one_encoder_alone(model, batch):
    add_adapters(model, HoulsbyConfig(encoders=("user",)))
    assert set(model.adapters) == {"user"}
    with pytest.raises(UserError, match="adapters already"):
        add_adapters(model, HoulsbyConfig())


def test_id_tower_has_no_backbone_to_adapt():
    tower = TransRec(IdItemEncoder(5, DIM), TransformerUserEncoder(DIM, LENGTH, 2, 2, 0.0), "sasrec")
    with pytest.raises(UserError, match="do not support the model's item encoder; use --encoders user"):
        add_adapters(tower, HoulsbyConfig())


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
            if expected.shape != next_x.shape:  # behind the last attention the first tokens alone go on
                assert (following, sublayer.pre_norm) == (("item", 1, ATTENTION), False)
                expected = expected[:, batch.contents[0].packs[-1].packing.firsts]
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
                    with pytest.raises(UserError, match="pre-norm"):
                        sublayer.on_normed_sum(watch)
                    continue
                undo = sublayer.on_normed_sum(watch)
                with torch.no_grad():
                    model(batch)
                undo()
                after, total = seen.pop()
                assert torch.allclose(after, sublayer.norm(total), atol=1e-5)
                seen.clear()


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in WITHOUT_SUBLAYER_DROPOUT])
def test_sublayer_sites_see_the_output_with_its_dropout_applied(request, name):
    """In training an adapter reads the very f(x) that the residual is added to."""
    model = model_on(request.getfixturevalue(name)).train()
    batch = batch_for(model)
    seen, _ = watch_sublayers(model)
    model(batch)
    for place, (y, _) in seen.items():
        assert 0.03 < (y == 0).float().mean() < 0.3, place


@dataclass(frozen=True)
class EverySiteConfig(AdapterConfig):
    """An own adapter, which uses the sites that Houlsby does not."""

    def build(self, sites):
        return EverySite(sites)


class EverySite(Adapter):
    def __init__(self, sites):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(sites.width))
        self.calls = []
        first = sites.layers[0]
        self.attach(first.on_state(lambda output, layer_input: output + self.scale * layer_input))
        wrapped = nn.Sequential(first.query.linear, nn.Identity())
        self.attach(first.query.replace_by(wrapped))
        if sites.role == "item":
            self.attach(sites.on_inputs(self.count_call))

    def count_call(self, arguments):
        self.calls.append(sorted(arguments))
        return arguments


def test_an_own_family_needs_a_class_and_a_registry_line(model, batch, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "every_site", EverySiteConfig)
    model.eval()
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(batch)
        add_adapters(model, EverySiteConfig())
        assert torch.equal(model(batch), before)
        (content,) = batch.contents
        calls = len(content.pixels.split(8)) if isinstance(content, Pixels) else len(content.packs)
        assert len(model.adapters["item"].calls) == calls
        model.adapters["item"].scale.fill_(1.0)
        assert not torch.equal(model(batch), before)
        detach_adapters(model)
        assert torch.equal(model(batch), before)
    assert list(model.state_dict()) == names


@dataclass(frozen=True)
class GatedConfig(AdapterConfig):
    """An own adapter with an own parameter group."""

    lr_gate: float = option(0.5, "learning rate of the gates")

    def learning_rates(self):
        return {"gates": self.lr_gate}

    def build(self, sites):
        return Gated(sites)


class Gated(Adapter):
    def __init__(self, sites):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(sites.width))
        self.gate = nn.Linear(sites.width, 1)
        self.groups["gate"] = "gates"
        self.attach(sites.layers[0].on_state(lambda y, x: y + self.shift * self.gate(x)))


def test_an_own_family_may_have_an_own_parameter_group(model, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "gated", GatedConfig)
    settings = TextTargetSettings(users="u", items="i", adapter=GatedConfig())
    add_adapters(model, settings.adapter)
    train_only(model, settings.trained_parts)
    optimizer = make_optimizer(model, settings.learning_rates())
    names = {group["part"]: group["param_names"] for group in optimizer.param_groups}
    assert names["adapter"] == ["adapters.item.shift", "adapters.user.shift"]
    gates = [f"adapters.{role}.gate.{name}" for role in ("user", "item") for name in ("weight", "bias")]
    assert sorted(names["gates"]) == sorted(gates)
    assert {group["part"]: group["lr"] for group in optimizer.param_groups}["gates"] == 0.5
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert sorted(trained) == sorted(name for group in names.values() for name in group)


class WithoutRateConfig(GatedConfig):
    """An own parameter group without a learning rate."""

    def learning_rates(self):
        return {}


@dataclass(frozen=True)
class NamedLikeARunConfig(GatedConfig):
    """An option with the name of an option of the run."""

    dropout: float = option(0.5, "dropout of the gates")


def test_an_own_family_that_would_train_nothing_or_hide_an_option_is_refused(model, monkeypatch):
    monkeypatch.setitem(registry.FAMILIES, "gated", WithoutRateConfig)
    before = list(model.state_dict())
    with pytest.raises(
        UserError, match="WithoutRateConfig: no learning rate for its parameter group 'gates'"
    ):
        add_adapters(model, WithoutRateConfig())
    assert list(model.state_dict()) == before
    monkeypatch.setitem(registry.FAMILIES, "named", NamedLikeARunConfig)
    with pytest.raises(UserError, match=r"NamedLikeARunConfig: its option 'dropout' .* named_dropout"):
        TextTargetSettings.from_values({"users": "u", "items": "i", "method": "named"})


def test_every_parameter_is_in_one_group(model):
    add_adapters(model, KAdapterConfig(train_layer_norms=True, train_head=True, item_inner=12))
    names = [name for parameters in model.parameter_groups().values() for name in parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
