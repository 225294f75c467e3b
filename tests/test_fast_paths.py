"""Every fast path against the plain one, in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapter_models import (
    BACKBONES,
    N_ITEMS,
    WORDS,
    batch_for,
    model_on,
    shaken,
    snapshot,
    store_for,
)
from torch import nn
from trees import TextTargetSettings

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.data.domain import Domain
from adapter4rec.data.packing import Packing
from adapter4rec.data.text import Text
from adapter4rec.models import packed_attention
from adapter4rec.models.dropout import Dropout, dropped
from adapter4rec.models.layers import can_compile_layers, compile_layers, layers_of
from adapter4rec.models.parameters import train_only
from adapter4rec.training.setup import prepare
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.precision import choose_precision

LENGTHS = np.array([1, 2, 2, 5, 5, 9])
SMALL = {
    "houlsby": {"item_bottleneck": 4, "user_bottleneck": 4},
    "lora": {"item_rank": 2, "user_rank": 2},
    "k_adapter": {"item_inner": 8, "item_inner_heads": 2, "user_inner": 4},
    "prompt": {"prompt_tokens": 3},
}


compiles = pytest.mark.skipif(not can_compile_layers(), reason="needs PyTorch 2.14")


def to_be_trained(model, family) -> None:
    """Let all of a model be trained, or adapters of a family beside it."""
    if family == "finetune":
        train_only(model, ("backbone", "item_head", "user_encoder"))
        return
    add_adapters(model, FAMILIES[family](**SMALL[family]))
    shaken(model)


def gradients(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = model(batch)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {"loss": loss.detach()}


def assert_close(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], atol: float = 1e-5) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=atol), name


def plain_attention(query, key, value, packing, scaling, window):
    """One text at a time, by the definition."""
    rows, end = [], 0
    for count, length in packing.spans:
        for _ in range(count):
            q, k, v = (tensor[0, :, end : end + length] for tensor in (query, key, value))
            scores = q @ k.transpose(1, 2) * scaling
            places = torch.arange(length)
            if window is not None:
                scores = scores.masked_fill((places[:, None] - places).abs() >= window, -torch.inf)
            rows.append(scores.softmax(-1) @ v)
            end += length
    return torch.cat(rows, dim=1)[None]


def attended(way, tensors, packing, dropout, scaling=None, window=None):
    heads = [tensor[0] for tensor in tensors]
    found = getattr(packed_attention, way)(heads, packing, dropout, scaling, window)
    return found.transpose(0, 1)[None]


class TestPackedAttention:
    @pytest.mark.parametrize("way", ["_by_spans", "_padded"])
    @pytest.mark.parametrize("window", [None, 1, 3, 100])
    @pytest.mark.parametrize("scaling", [None, 0.3])
    def test_against_each_text_alone(self, way, window, scaling):
        packing = Packing.of(LENGTHS)
        torch.manual_seed(0)
        tensors = [torch.randn(1, 2, len(packing.places), 8, requires_grad=True) for _ in range(3)]
        found = attended(way, tensors, packing, 0.0, scaling, window)
        expected = plain_attention(*tensors, packing, scaling or 8**-0.5, window)
        assert torch.allclose(found, expected, atol=1e-6)
        weights = torch.randn_like(found)
        for one, two in zip(
            torch.autograd.grad((found * weights).sum(), tensors),
            torch.autograd.grad((expected * weights).sum(), tensors),
            strict=True,
        ):
            assert torch.allclose(one, two, atol=1e-5)

    @pytest.mark.parametrize("way", ["_by_spans", "_padded"])
    def test_dropout_keeps_the_mean(self, way):
        packing = Packing.of(np.full(400, 8))
        query, key = torch.zeros(1, 2, 3200, 4), torch.zeros(1, 2, 3200, 4)
        value = torch.ones(1, 2, 3200, 4)
        torch.manual_seed(0)
        found = attended(way, (query, key, value), packing, 0.5)
        assert found.mean().item() == pytest.approx(1, abs=0.02)
        assert found.std().item() == pytest.approx(8**-0.5, rel=0.1)


class TestDropout:
    @pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("shape", [(1001, 99), (3, 5, 7, 900)])
    def test_how_many_are_dropped_and_what_becomes_of_the_others(self, probability, shape):
        torch.manual_seed(0)
        x = torch.ones(shape, requires_grad=True)
        found = dropped(x, probability)
        zero = found == 0
        assert zero.float().mean().item() == pytest.approx(probability, abs=0.01)
        kept = found[~zero]
        assert kept.unique().numel() == 1
        assert kept[0].item() == pytest.approx(1 / (1 - probability), rel=1e-3)
        found.sum().backward()
        assert torch.equal(x.grad, found.detach())

    def test_neighbours_are_dropped_independently(self):
        torch.manual_seed(0)
        zero = (dropped(torch.ones(1 << 18), 0.3) == 0).float()
        for shift in (1, 2, 3, 4, 5):
            both = (zero[shift:] * zero[:-shift]).mean().item()
            assert both == pytest.approx(0.09, abs=0.004)

    def test_its_ends(self):
        x = torch.randn(100)
        assert torch.equal(dropped(x, 0.0), x)
        assert not dropped(x, 1.0).any()
        assert torch.equal(Dropout(0.5).eval()(x), x)
        assert not torch.equal(Dropout(0.5)(x), x)

    def test_backbones_have_it_and_keep_their_modules_names(self, tiny_bert_folder):
        backbone = model_on(tiny_bert_folder).item_encoder.backbone
        kinds = {type(module) for module in backbone.modules() if isinstance(module, nn.Dropout)}
        assert kinds == {Dropout}
        assert backbone.get_submodule("encoder.layer.0.output.dropout").p == 0.1


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("family", [*SMALL, "finetune"])
@pytest.mark.parametrize("objective", ["sasrec", "cpc"])
def test_recomputed_activations_give_the_same_gradients(request, name, family, objective):
    model = model_on(request.getfixturevalue(name)).train()
    model.objective = objective
    to_be_trained(model, family)
    batch = batch_for(model)
    torch.manual_seed(0)
    plain = gradients(model, batch)
    model.item_encoder.recompute = True
    torch.manual_seed(0)  # with dropout, which must be drawn again as it was
    assert_close(gradients(model, batch), plain, atol=1e-6)


@pytest.mark.parametrize("name", WORDS)
def test_packs_of_any_size_give_the_same(request, name):
    model = model_on(request.getfixturevalue(name)).eval()
    add_adapters(model, FAMILIES["houlsby"](**SMALL["houlsby"]))
    shaken(model)
    store = store_for(model)
    items = np.arange(1, N_ITEMS + 1)
    found = []
    for tokens_at_once in (1, 30, 10_000):
        store.tokens_at_once = tokens_at_once
        content = store.fetch(items)
        assert isinstance(content, Text)
        with torch.no_grad():
            found.append(model.encode_items(content))
    assert torch.allclose(found[0], found[2], atol=1e-5)
    assert torch.allclose(found[1], found[2], atol=1e-5)


@compiles
@pytest.mark.parametrize("name", ["tiny_bert_folder", "tiny_vit_folder"])
@pytest.mark.parametrize("family", ["houlsby", "finetune", "lora", "prompt", "k_adapter"])
def test_compiled_layers_give_the_same(request, name, family):
    model = model_on(request.getfixturevalue(name)).eval()
    to_be_trained(model, family)
    batch = batch_for(model)
    plain = gradients(model, batch)
    names = list(model.state_dict())
    calls = []

    def backend(graph, inputs):  # torch's own compilers take longer than the rest of the tests of this file
        calls.append(len(inputs))
        return graph.forward

    compile_layers(model.item_encoder.backbone, backend=backend)
    for _ in range(2):  # the layers do not compute the same: the last lets the first tokens alone go on
        assert_close(gradients(model, batch), plain)
    assert calls
    assert list(model.state_dict()) == names
    torch._dynamo.reset()


@compiles
def test_none_is_compiled_that_is_known(tiny_bert_folder):
    backbone = model_on(tiny_bert_folder).item_encoder.backbone
    compile_layers(backbone, after=[0])
    assert [layer._compiled_call_impl is None for layer in layers_of(backbone)] == [True, False]


def test_a_pytorch_that_cannot_compile_layers_one_by_one_is_refused(monkeypatch, tiny_bert_folder):
    monkeypatch.setattr(torch, "compile", lambda model, *, dynamic=None, backend="inductor": model)
    with pytest.raises(UserError, match=r"--compile true: PyTorch .* is too old"):
        compile_layers(model_on(tiny_bert_folder).item_encoder.backbone)


def test_a_hook_on_the_last_layer_reads_all_tokens(tiny_bert_folder):
    encoder = model_on(tiny_bert_folder).eval().item_encoder
    text, seen = store_for(model_on(tiny_bert_folder)).fetch(np.arange(1, N_ITEMS + 1)), []
    with torch.no_grad():
        plain = encoder(text)
        hook = layers_of(encoder.backbone)[-1].register_forward_hook(lambda *given: seen.append(given[2]))
        assert torch.allclose(encoder(text), plain, atol=1e-5)
        hook.remove()
        assert torch.equal(encoder(text), plain)
    assert sum(output.shape[1] for output in seen) == sum(len(pack.values) for pack in text.packs)


class TestFrozenWeights:
    def test_in_float32_nothing_is_copied(self, tiny_bert_folder):
        model = model_on(tiny_bert_folder)
        train_only(model, ("user_encoder",))
        with choose_precision("fp32", torch.device("cpu")).frozen_weights(model.item_encoder):
            assert all("weight" not in vars(module) for module in model.modules())

    @pytest.mark.parametrize("name", ["tiny_bert_folder", "tiny_vit_folder"])
    def test_frozen_ones_alone_are_copied_and_put_back(self, request, name):
        model = model_on(request.getfixturevalue(name)).eval()
        add_adapters(model, FAMILIES["lora"](**SMALL["lora"]))
        shaken(model)
        batch, before = batch_for(model), snapshot(model)
        precision = choose_precision("bf16", torch.device("cpu"))
        with precision.autocast():
            plain = gradients(model, batch)
        with precision.frozen_weights(model.item_encoder):
            copied = [module for module in model.modules() if "weight" in vars(module)]
            linear = [m for m in model.item_encoder.modules() if isinstance(m, nn.Linear)]
            assert {id(module) for module in copied} == {id(module) for module in linear}
            assert all(module.weight.dtype == torch.bfloat16 for module in copied)
            with precision.autocast():
                found = gradients(model, batch)
            assert all(torch.equal(found[key], plain[key]) for key in plain)
        assert all("weight" not in vars(module) for module in model.modules())
        after = snapshot(model)
        assert all(torch.equal(before[key], after[key]) for key in before)

    @pytest.mark.parametrize("name", ["tiny_bert_folder", "tiny_vit_folder"])
    def test_a_released_padding_item_is_encoded_in_float32(self, request, name):
        model = model_on(request.getfixturevalue(name)).eval()
        options = SMALL["k_adapter"] | {"semantics": "release", "released_tokens": 10}
        add_adapters(model, FAMILIES["k_adapter"](**options))
        batch = batch_for(model)
        plain = gradients(model, batch)["loss"]
        precision = choose_precision("bf16", torch.device("cpu"))
        with precision.frozen_weights(model.item_encoder):
            with precision.autocast():
                assert gradients(model, batch)["loss"].item() == pytest.approx(plain.item(), rel=0.02)
            assert any("weight" in vars(module) for module in model.modules())

    def test_of_a_model_that_is_trained_none_are_copied(self, tiny_bert_folder):
        model = model_on(tiny_bert_folder)
        precision = choose_precision("bf16", torch.device("cpu"))
        with precision.frozen_weights(model.item_encoder):
            assert all("weight" not in vars(module) for module in model.modules())
        with precision.frozen_weights(model.item_encoder, whole=True):
            assert "weight" in vars(model.item_encoder.head)
            x = torch.randn(2, model.item_encoder.head.in_features).bfloat16()
            assert F.gelu(model.item_encoder.head(x)).dtype == torch.bfloat16


@compiles
def test_a_run_compiles_its_layers(monkeypatch, tiny_bert_folder, one_process):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: compiled.append(module))
    model = model_on(tiny_bert_folder)
    settings = TextTargetSettings(users="-", items="-", method="finetune", compile=True)
    prepare(model, Domain("test", None, store_for(model), ""), settings, one_process)
    assert compiled == list(layers_of(model.item_encoder.backbone))
