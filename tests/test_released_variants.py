"""The released behaviour: each departure by itself, and what all variants promise."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapter_models import (
    BACKBONES,
    DIM,
    LENGTH,
    PATCHES,
    PRE_NORM,
    WIDTH,
    WORDS,
    assert_same,
    batch_for,
    model_on,
    shaken,
    snapshot,
    store_for,
)
from safetensors.torch import load_file
from test_adapter_families import SMALL
from test_runs import (  # noqa: F401 (fixtures)
    assert_same_file,
    both_modalities,
    common,
    image_domain,
    run_target,
    source,
    text_domain,
)
from torch import nn

from adapter4rec.adapters.attaching import add_adapters, detach_adapters, encoder_sites
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.data.packing import Packing
from adapter4rec.data.text import Pack, Text
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.parameters import train_only, trained_state
from adapter4rec.models.parts import ADAPTER_PARTS
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.models.weights import load_into
from adapter4rec.utils.errors import UserError

MASKING = "tiny_mae_folder"
ONE_PROJECTION = "tiny_modernbert_folder"
MATRIX = [
    (backbone, family)
    for backbone in BACKBONES
    for family in SMALL
    if family != "peft"  # the released code has none
    and not (family == "pfeiffer_after_layernorm" and backbone in PRE_NORM)
    and not (family in ("bitfit", "lora") and backbone == ONE_PROJECTION)
]


def config_of(family, semantics="release", **options):
    tokens = {"released_tokens": 10} if family == "k_adapter" else {}
    return FAMILIES[family](**SMALL[family] | tokens | {"semantics": semantics} | options)


def titles(*rows):
    """Texts of the given word numbers, the short ones first."""
    pack = Pack(
        Packing.of(np.array([len(row) for row in rows])),
        torch.tensor([token for row in rows for token in row]),
    )
    return Text((pack,), torch.arange(len(rows)), len(rows))


@pytest.fixture(params=MATRIX, ids="-".join)
def pair(request):
    return request.param


@pytest.fixture
def adapted(folder, pair):
    model = model_on(folder).eval()
    add_adapters(model, config_of(pair[1]))
    train_only(model, ADAPTER_PARTS)
    return shaken(model, seed=3)


def loss_of(model, batch):
    torch.manual_seed(5)  # of the masks of ViTMAE
    return model(batch)


# Every family


def test_detaching_gives_back_the_source_model(folder, pair):
    model = model_on(folder).eval()
    batch = batch_for(model)
    config = model.item_encoder.backbone.config.to_dict()
    with torch.no_grad():
        before, weights, modules = model(batch), snapshot(model), dict(model.named_modules())
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        add_adapters(model, config_of(pair[1], train_layer_norms=True, train_head=True))
        assert not torch.equal(shaken(model)(batch), before)
        detach_adapters(model)
        assert torch.equal(model(batch), before)
    assert_same(snapshot(model), weights)
    found = dict(model.named_modules())
    assert all(found[name] is module for name, module in modules.items() if name != "adapters")
    assert trained == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert config == model.item_encoder.backbone.config.to_dict()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_gradients_reach_all_that_is_trained_and_nothing_else(adapted):
    batch = batch_for(adapted)
    adapted(batch).backward()
    for name, parameter in adapted.named_parameters():
        reached = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert bool(reached) == name.startswith("adapters."), name


def test_what_was_trained_says_it_all(folder, pair, adapted):
    """Put on the source model anew, whatever the seed is then; evaluating twice gives the same, too."""
    kept = trained_state(adapted)
    batch = batch_for(adapted)
    fresh = model_on(folder).eval()
    torch.manual_seed(99)
    add_adapters(fresh, config_of(pair[1]))
    train_only(fresh, ADAPTER_PARTS)
    load_into(fresh, kept, folder, trained_state(fresh))
    with torch.no_grad():
        assert torch.equal(loss_of(fresh, batch), loss_of(adapted, batch))
        again = torch.equal(adapted(batch), adapted(batch))
    assert again == (pair[0] != MASKING)


@pytest.mark.parametrize("family", ["houlsby", "pfeiffer", "pfeiffer_after_layernorm", "bitfit", "layernorm"])
def test_other_families_compute_the_same_in_both_semantics(tiny_bert_folder, family):
    losses = []
    for semantics in ("paper", "release"):
        model = model_on(tiny_bert_folder).eval()
        torch.manual_seed(0)
        add_adapters(model, config_of(family, semantics))
        losses.append(shaken(model)(batch_for(model)))
    assert torch.equal(*losses)


def test_there_are_two_semantics():
    with pytest.raises(UserError, match="--semantics paperr: did you mean 'paper'"):
        config_of("lora", "paperr")


# Rows 1 and 2: LoRA


def test_lora_loses_the_pretrained_weights_and_trains_new_biases(tiny_bert_folder):
    model = model_on(tiny_bert_folder).eval()
    projections = {role: sites.layers[1].value for role, sites in encoder_sites(model).items()}
    originals = {role: projection.linear for role, projection in projections.items()}
    add_adapters(model, config_of("lora", lora_alpha=2.0))
    train_only(model, ADAPTER_PARTS)
    for role, rank in (("item", 3), ("user", 2)):
        new = model.adapters[role].layers["1"]["value"]
        assert {name for name, _ in new.named_parameters()} == {"bias", "lora_A", "lora_B"}
        assert {name for name, _ in new.named_buffers()} == {"weight"}
        assert not torch.isclose(new.weight, originals[role].weight).any()
        assert new.weight.std() > 0.01
        nn.init.normal_(new.lora_B)
        x = torch.randn(4, new.in_features)
        expected = F.linear(x, new.weight, new.bias) + x @ new.lora_A.T @ new.lora_B.T * 2 / rank
        assert torch.allclose(projections[role].linear(x), expected, atol=1e-5)
    assert originals["user"].bias is None
    assert "adapters.item.layers.1.value.weight" in trained_state(model)


def test_the_seed_fixes_the_lost_weights(tiny_bert_folder):
    states = []
    for seed in (1, 1, 2):
        model = model_on(tiny_bert_folder)
        torch.manual_seed(seed)
        add_adapters(model, config_of("lora"))
        states.append(model.adapters["user"].layers["0"]["query"].weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_image_lora_trains_the_user_encoders_values_whole(tiny_vit_folder, tiny_bert_folder):
    image, text = model_on(tiny_vit_folder), model_on(tiny_bert_folder)
    for model in (image, text):
        add_adapters(model, config_of("lora"))
    for name, factors in (("query", True), ("value", False)):
        new = image.adapters["user"].layers["0"][name]
        assert hasattr(new, "lora_A") == factors
        assert isinstance(new.weight, nn.Parameter) != factors
        assert hasattr(text.adapters["user"].layers["0"][name], "lora_A")
    assert hasattr(image.adapters["item"].layers["0"]["value"], "lora_A")


def test_lora_does_not_replace_a_key(tiny_modernbert_folder):
    model = model_on(tiny_modernbert_folder)
    with pytest.raises(UserError, match="query, key"):
        add_adapters(model, config_of("lora"))
    assert not len(model.adapters)


# Row 3: the text prompt


@pytest.mark.parametrize("name", WORDS)
def test_the_prompt_overwrites_the_first_tokens(request, name):
    """Of [CLS] and a title as long as the prompt nothing but its length is left."""
    same, other = titles([2, 7, 9, 11, 3]), titles([4, 8, 30, 21, 20])
    longer, shorter = titles([2, 7, 9, 11, 3, 6]), titles([2, 7, 9, 3])
    distances = {}
    for semantics in ("paper", "release"):
        model = model_on(request.getfixturevalue(name)).eval()
        add_adapters(model, config_of("prompt", semantics))
        shaken(model)
        with torch.no_grad():
            start, *others = (model.encode_items(text) for text in (same, other, longer, shorter))
        distances[semantics] = [(found - start).abs().max().item() for found in others]
    assert min(distances["paper"]) > 1e-4
    assert distances["release"][0] == 0
    assert min(distances["release"][1:]) > 1e-4


def test_the_prompt_takes_no_positions(tiny_bert_folder):
    model = model_on(tiny_bert_folder).eval()
    add_adapters(model, config_of("prompt"))
    seen = []
    model.item_encoder.backbone.register_forward_pre_hook(
        lambda _, __, arguments: seen.append(arguments), with_kwargs=True
    )
    model.encode_items(titles([2, 7, 9, 11, 12, 13, 3]))
    words = model.item_encoder.backbone.get_input_embeddings().weight
    expected = torch.cat([model.adapters["item"].vectors, words[[13, 3]]])
    assert torch.equal(seen[0]["inputs_embeds"][0], expected)
    assert seen[0]["position_ids"].tolist() == [list(range(7))]


# Row 4: K-Adapter


@pytest.mark.parametrize("name", WORDS)
def test_k_adapter_attends_to_padding_tokens(request, name):
    """An item's embedding depends on the width that titles are padded to, but not on those beside it."""
    for semantics in ("paper", "release"):
        found = []
        for width in (6, 9):
            model = model_on(request.getfixturevalue(name)).eval()
            torch.manual_seed(0)
            add_adapters(model, config_of("k_adapter", semantics, released_tokens=width))
            with torch.no_grad():
                found.append(shaken(model).encode_items(titles([2, 7, 9, 3])))
                beside = model.encode_items(titles([2, 7, 9, 3], [2, 7, 9, 11, 3]))
            # RoBERTa's position of a padding token is that of its number, which is no zero there
            if model.item_encoder.backbone.config.pad_token_id == 0:
                assert torch.allclose(found[-1][0], beside[0], atol=1e-5)
        assert torch.allclose(*found, atol=1e-6) == (semantics == "paper")


def test_a_title_that_is_longer_than_the_released_width_is_refused(tiny_bert_folder):
    model = model_on(tiny_bert_folder)
    add_adapters(model, config_of("k_adapter", released_tokens=4))
    with pytest.raises(UserError, match="--released_tokens 4: a text has 5 tokens"):
        model.encode_items(titles([2, 7, 9, 11, 3]))


def test_texts_are_not_padded_beyond_the_backbones_positions(tiny_bert_folder):
    model = model_on(tiny_bert_folder)
    for encoders in (("user",), ("item",)):
        with pytest.raises(UserError, match="--released_tokens 65: the backbone has only 64 positions"):
            add_adapters(model, config_of("k_adapter", released_tokens=65, encoders=encoders))
    assert not len(model.adapters)


def test_k_adapter_cannot_be_released_on_an_id_tower():
    tower = TransRec(IdItemEncoder(5, DIM), TransformerUserEncoder(DIM, LENGTH, 2, 2, 0.0), "sasrec")
    with pytest.raises(UserError, match="an id tower"):
        add_adapters(tower, config_of("k_adapter", encoders=("user",)))
    assert not len(tower.adapters)
    assert not tower.user_encoder._forward_pre_hooks


@pytest.fixture(params=[*WORDS, *(name for name in PATCHES if name != MASKING)])
def k_adapted(request):
    model = model_on(request.getfixturevalue(request.param)).eval()
    add_adapters(model, config_of("k_adapter"))
    train_only(model, ADAPTER_PARTS)
    return shaken(model, seed=3)


def test_k_adapter_lets_the_target_leak(k_adapted):
    items = torch.randn(1, LENGTH, DIM)
    later = items.clone()
    later[:, -1] = 9.0
    log_mask = torch.ones(1, LENGTH, dtype=torch.bool)
    with torch.no_grad():
        first, other = (k_adapted.encode_users(x, log_mask)[:, 0] for x in (items, later))
    assert (first - other).abs().max() > 1e-3


def test_padded_places_hold_the_padding_item_and_are_read(k_adapted):
    seen = []
    k_adapted.user_encoder.layer_norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    items = torch.randn(2, LENGTH, DIM)
    log_mask = torch.arange(LENGTH) >= torch.tensor([[2], [0]])
    items[0, 0] = 0.0  # its place 1 holds something: what a caller puts in a padded place stays there
    found = k_adapted.encode_users(items, log_mask)
    positions = k_adapted.user_encoder.position_embedding.weight
    padding = (seen[0] - positions)[0, 0]
    assert padding.abs().max() > 1e-3
    assert torch.allclose((seen[0] - positions)[1], items[1], atol=1e-6)
    assert torch.allclose((seen[0] - positions)[0, 1:], items[0, 1:], atol=1e-6)
    found[0, -1].sum().backward()
    item_side = k_adapted.adapters["item"].join.weight.grad
    assert item_side.abs().sum() > 0  # by way of the padding item alone


def test_a_padded_place_attends_uniformly(k_adapted):
    block = k_adapted.user_encoder.blocks[0]
    seen = []
    block.attention.output.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    block.attention.value.register_forward_hook(lambda _, __, output: seen.append(output))
    log_mask = torch.arange(LENGTH)[None] >= 3
    with torch.no_grad():
        k_adapted.encode_users(torch.randn(1, LENGTH, DIM), log_mask)
    value, attended = seen
    assert torch.allclose(attended[0, :3], value[0].mean(0).expand(3, -1), atol=1e-6)
    assert not torch.allclose(attended[0, 4], value[0].mean(0), atol=1e-3)


def test_gradients_by_way_of_the_padding_item_are_right(tiny_bert_folder):
    """Of layer norms inside the backbone, where its tokens attend uniformly: as in float64."""
    model = model_on(tiny_bert_folder).eval()
    add_adapters(model, config_of("k_adapter", train_layer_norms=True))
    train_only(model, ADAPTER_PARTS)
    shaken(model)
    norms, items = model.adapters["item"].layer_norms, torch.zeros(1, LENGTH, DIM)
    gradients = []
    for kind in (torch.float32, torch.float64):
        model.to(kind)
        model.encode_items = model.item_encoder.forward  # in this kind, not in float32
        found = model.encode_users(items.to(kind), torch.arange(LENGTH)[None] > 2)
        gradients.append(torch.autograd.grad(found[:, -1].square().sum(), list(norms.parameters())))
    for single, double in zip(*gradients, strict=True):
        assert torch.allclose(single.double(), double, rtol=1e-3, atol=1e-4 * double.abs().max().item())


def test_without_the_user_encoders_adapters_padding_plays_no_part(tiny_bert_folder):
    model = model_on(tiny_bert_folder).eval()
    add_adapters(model, config_of("k_adapter", encoders=("item",)))
    assert not model.user_encoder._forward_pre_hooks


# Row 5: parallel adapters


@pytest.mark.parametrize("semantics", ["paper", "release"])
@pytest.mark.parametrize("name", ["tiny_bert_folder", "tiny_vit_folder"])
def test_parallel_adds_the_input_twice(request, name, semantics):
    """Adapters that give zero change nothing in the paper; released, 2x stands where x stood."""
    model = model_on(request.getfixturevalue(name)).eval()
    batch, seen, given = batch_for(model), [], []
    feed_forward = model.user_encoder.blocks[0].feed_forward
    with torch.no_grad():
        before = model(batch)
        add_adapters(model, config_of("houlsby_parallel", semantics))
        for parameter in model.adapters.parameters():
            parameter.zero_()
        feed_forward.down.register_forward_hook(lambda _, __, output: seen.append(output))
        feed_forward.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        feed_forward.layer_norm.register_forward_pre_hook(lambda _, arguments: given.extend(arguments))
        assert torch.equal(model(batch), before) == (semantics == "paper")
    x, y = seen
    assert torch.allclose(given[0], y + (2 if semantics == "release" else 1) * x, atol=1e-6)


def test_image_parallel_adapts_feed_forward_alone(tiny_vit_folder):
    model = model_on(tiny_vit_folder)
    add_adapters(model, config_of("houlsby_parallel"))
    assert list(model.adapters["item"].layers["0"]) == ["feed_forward"]
    assert list(model.adapters["user"].layers["0"]) == ["attention", "feed_forward"]
    assert model.adapters.config.sublayers == ("attention", "feed_forward")
    detach_adapters(model)
    with pytest.raises(UserError, match="support feed_forward only"):
        add_adapters(model, config_of("houlsby_parallel", sublayers=("attention",)))


# Row 6: Compacter


@pytest.mark.parametrize("semantics", ["paper", "release"])
@pytest.mark.parametrize("name", ["tiny_bert_folder", "tiny_vit_folder"])
def test_compacter_has_no_residual(request, name, semantics):
    """Adapters that give zero change nothing in the paper; released, all sublayers' outputs are gone."""
    model = model_on(request.getfixturevalue(name)).eval()
    batch, seen = batch_for(model), []
    with torch.no_grad():
        before = model(batch)
        add_adapters(model, config_of("compacter", semantics))
        for parameter in model.adapters.parameters():
            parameter.zero_()
        for sites in encoder_sites(model).values():
            for layer in sites.layers:
                for sublayer in layer.sublayers.values():
                    sublayer.on_output(lambda y, _: seen.append(y) or y)
        after = model(batch)
    assert torch.equal(after, before) == (semantics == "paper")
    assert len(seen) >= 8
    assert all(not y.any() for y in seen) == (semantics == "release")


# Row 7: ViTMAE


def test_mae_drops_patches_at_random(tiny_mae_folder):
    model = model_on(tiny_mae_folder).eval()
    content = store_for(model).fetch(torch.arange(1, 4).numpy())
    lengths = []
    model.item_encoder.backbone.layers[0].register_forward_pre_hook(
        lambda _, given: lengths.append(given[0].shape[1])
    )
    with torch.no_grad():
        for semantics in ("paper", "release"):
            add_adapters(model, config_of("houlsby", semantics))
            first, second = model.encode_items(content), model.encode_items(content)
            assert torch.equal(first, second) == (semantics == "paper")
            detach_adapters(model)
            assert model.item_encoder.backbone.config.mask_ratio == 0
    assert lengths == [17, 17, 5, 5]


# Row 15: dropout of the bottleneck


@pytest.mark.parametrize("family", ["houlsby", "houlsby_parallel", "pfeiffer", "pfeiffer_after_layernorm"])
def test_dropout_is_declared_and_never_applied(tiny_bert_folder, family):
    for semantics in ("paper", "release"):
        model = model_on(tiny_bert_folder)
        add_adapters(model, config_of(family, semantics, adapter_dropout=0.5))
        module = model.adapters["item"].layers["0"]["attention" if "after" not in family else "feed_forward"]
        nn.init.ones_(module.up.bias)
        y = module.train()(torch.zeros(50, WIDTH))
        assert bool((y == 0).any()) == (semantics == "paper")


# Whole runs


@both_modalities
@pytest.mark.parametrize("family", ["lora", "k_adapter"])
def test_a_run_is_resumed_and_tested_again(common, source, tmp_path, family):
    """Released LoRA with the random weights that it drew, which are in its files."""
    options = {"method": family, "semantics": "release", "source_checkpoint": source}
    if family == "k_adapter":
        options |= {"item_inner": 24, "item_inner_heads": 3, "user_inner": 8}
    whole = run_target(common, tmp_path / "whole", **options)
    run_target(common, tmp_path / "parts", **options | {"epochs": 1})
    (tmp_path / "parts" / "result.json").unlink()
    assert run_target(common, tmp_path / "parts", **options, resume=True)["test"] == whole["test"]
    assert_same_file(*(tmp_path / folder / "best.safetensors" for folder in ("whole", "parts")))
    if family == "lora":
        assert "adapters.user.layers.0.query.weight" in load_file(tmp_path / "whole" / "best.safetensors")
    assert run_target(common, tmp_path / "whole", **options, mode="test")["test"] == whole["test"]
