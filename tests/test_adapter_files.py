"""Adapters apart from their model: saved, loaded, switched, refused where they do not belong, merged."""

import copy
import json

import numpy as np
import pytest
import torch
from adapter_models import BACKBONES, WORDS, batch_for, model_on, shaken, snapshot, store_for
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertModel

import adapter4rec
from adapter4rec import (
    FAMILIES,
    add_adapters,
    detach_adapters,
    load_adapter,
    merge_adapters,
    save_adapter,
    save_encoder,
    unmerge_adapters,
)
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.prompt import PromptConfig
from adapter4rec.models.backbones import TEXT_ENCODERS, load_backbone
from adapter4rec.models.parameters import train_only
from adapter4rec.models.parts import PARTS
from adapter4rec.utils.errors import UserError

LORA = LoraConfig(item_rank=3, user_rank=2, lora_alpha=2.0, train_layer_norms=True, train_head=True)


def loss_of(model):
    with torch.no_grad():
        return model.eval()(batch_for(model)).item()


@pytest.fixture
def model(tiny_bert_folder):
    return model_on(tiny_bert_folder).eval()


def test_a_file_holds_what_was_trained_and_says_what_it_is(model, tmp_path):
    path = tmp_path / "own.safetensors"
    add_adapters(model, HoulsbyConfig(item_bottleneck=8, train_layer_norms=True, train_head=True))
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    save_adapter(shaken(model), path, {"domain": "Adressa"})
    tensors = load_file(path)
    assert set(tensors) == trained
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in tensors.items())
    said = json.loads(path.with_suffix(".json").read_text())
    assert (said["family"], said["config"]["item_bottleneck"], said["domain"]) == ("houlsby", 8, "Adressa")
    assert said["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert {"torch", "transformers"} <= set(said["versions"])
    assert set(said["base"]) == {"backbone", "item_head", "user_encoder"}


@pytest.mark.parametrize("role", ["item", "user"])
def test_sizes_of_an_encoder_that_is_not_adapted_do_not_count(model, tmp_path, role):
    sizes = {"item_bottleneck": 4000, "user_bottleneck": 4000} | {f"{role}_bottleneck": 8}
    add_adapters(model, HoulsbyConfig(encoders=(role,), **sizes))
    save_adapter(model, tmp_path / "a.safetensors")
    assert load_adapter(model, tmp_path / "a.safetensors").config.encoders == (role,)


def test_parameters_of_a_loss_are_no_part_of_the_base_model(model, tmp_path):
    plain, model.loss = model.loss, copy.deepcopy(model.loss)
    model.loss.scale = nn.Parameter(torch.ones(1))
    add_adapters(model, HoulsbyConfig(encoders=("item",)))
    save_adapter(model, tmp_path / "a.safetensors")
    detach_adapters(model)
    model.loss = plain
    load_adapter(model, tmp_path / "a.safetensors")


def test_an_option_that_is_no_size_may_be_larger_than_all_tensors(model, tmp_path):
    add_adapters(model, KAdapterConfig(encoders=("user",), semantics="release", released_tokens=60))
    save_adapter(model, tmp_path / "a.safetensors")
    assert load_adapter(model, tmp_path / "a.safetensors").config.released_tokens == 60


def test_an_adapter_of_a_model_that_scores_with_cosines_fits_no_other(model, tmp_path):
    model.cosine = True
    add_adapters(model, HoulsbyConfig())
    save_adapter(model, tmp_path / "a.safetensors")
    detach_adapters(model)
    model.cosine = False
    with pytest.raises(UserError, match=r"user_encoder: .*cosine, float32 in the file"):
        load_adapter(model, tmp_path / "a.safetensors")


def test_one_source_model_serves_several_targets_in_turn(model, tmp_path):
    plain, weights, losses = loss_of(model), snapshot(model), {}
    for name, config in (("a", HoulsbyConfig()), ("b", LORA), ("c", PromptConfig(prompt_tokens=3))):
        add_adapters(model, config)
        losses[name] = loss_of(shaken(model))
        save_adapter(model, tmp_path / f"{name}.safetensors")
        detach_adapters(model)
    assert len({plain, *losses.values()}) == 4
    for name in ("b", "a", "c", "a"):
        load_adapter(model, tmp_path / f"{name}.safetensors")
        assert loss_of(model) == losses[name]
    detach_adapters(model)
    assert loss_of(model) == plain
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def saved(model, path, config=None):
    add_adapters(model, config or HoulsbyConfig(item_bottleneck=8))
    save_adapter(shaken(model), path)
    detach_adapters(model)
    return path


def test_another_model_is_refused_and_told_apart(model, tiny_bert_folder, tiny_roberta_folder, tmp_path):
    path = saved(model, tmp_path / "a.safetensors")
    other = model_on(tiny_bert_folder)
    with torch.no_grad():
        other.user_encoder.position_embedding.weight[0, 0] += 1
    add_adapters(other, LORA)
    with pytest.raises(
        UserError, match=r"another model:\n  user_encoder: same kind .*, different weights\n--force"
    ):
        load_adapter(other, path)
    assert other.adapters.config is LORA  # it keeps what it has
    load_adapter(other, path, force=True)
    assert isinstance(other.adapters.config, HoulsbyConfig)
    with pytest.raises(
        UserError, match="backbone: bert, 2 layers of width 32, 2 heads, float32 in the file, roberta"
    ):
        load_adapter(model_on(tiny_roberta_folder), path)


def test_the_weights_of_a_replaced_part_do_not_matter(model, tiny_bert_folder, tmp_path):
    path = saved(model, tmp_path / "a.safetensors", HoulsbyConfig(item_bottleneck=8, train_head=True))
    load_adapter(model, path)
    expected = loss_of(model)
    other = model_on(tiny_bert_folder).eval()
    with torch.no_grad():
        other.item_encoder.head.weight.mul_(2)
    load_adapter(other, path)
    assert loss_of(other) == expected
    detach_adapters(other)
    with torch.no_grad():
        other.user_encoder.position_embedding.weight[0, 0] += 1
    with pytest.raises(UserError, match=r"another model:\n  user_encoder: same kind"):
        load_adapter(other, path)


def test_a_replaced_user_encoder_with_buffers_is_needed_as_it_is(model, tmp_path):
    model.user_encoder.register_buffer("seen", torch.zeros(1))  # copies replace parameters alone
    config = HoulsbyConfig(encoders=("item",), item_bottleneck=8, train_user_encoder=True)
    path = saved(model, tmp_path / "a.safetensors", config)
    with torch.no_grad():
        model.user_encoder.position_embedding.weight[0, 0] += 1
    with pytest.raises(UserError, match=r"another model:\n  user_encoder: same kind"):
        load_adapter(model, path)


def test_what_does_not_fit_is_refused_by_name_even_when_forced(model, tmp_path):
    path = saved(model, tmp_path / "a.safetensors", HoulsbyConfig(user_layers="first:1"))
    add_adapters(model, LORA)
    original = load_file(path)
    from adapter4rec.utils.checkpoint_file import read_description, write_checkpoint

    description = read_description(path)
    original.pop("adapters.item.layers.0.attention.up.bias")
    write_checkpoint(path, original, description)
    with pytest.raises(UserError, match=r"adapters\.item\.layers\.0\.attention\.up\.bias: not in the file"):
        load_adapter(model, path, force=True)
    assert not len(model.adapters)


@pytest.mark.parametrize("damage", ["missing", "cut", "another kind", "unknown family"])
def test_files_that_are_no_adapters(model, tmp_path, damage):
    from adapter4rec.utils.checkpoint_file import write_checkpoint

    path = saved(model, tmp_path / "a.safetensors")
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "another kind":
        write_checkpoint(path, {}, {"what": "source model"})
    else:
        write_checkpoint(path, {}, {"what": "adapter", "family": "mine", "config": {}, "base": {}})
    message = {
        "missing": "no such checkpoint",
        "cut": "damaged or was replaced",
        "another kind": "holds 'source model', not an adapter",
        "unknown family": "unknown adapter family 'mine'; known are houlsby",
    }[damage]
    with pytest.raises(UserError, match=message):
        load_adapter(model, path)


def test_nothing_to_save_and_wrong_endings(model, tmp_path):
    with pytest.raises(UserError, match="has no adapters to save"):
        save_adapter(model, tmp_path / "a.safetensors")
    add_adapters(model, HoulsbyConfig())
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        save_adapter(model, tmp_path / "a.pt")


def test_a_json_of_something_else_is_not_overwritten(model, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    add_adapters(model, HoulsbyConfig())
    with pytest.raises(UserError, match=r"would overwrite config\.json"):
        save_adapter(model, tmp_path / "config.safetensors")
    assert (tmp_path / "config.json").read_text() == '{"model_type": "bert"}'
    assert not (tmp_path / "config.safetensors").exists()
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"config\.json: damaged"):
        save_adapter(model, tmp_path / "config.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"family": ["houlsby"]},
        {"config": None},
        {"config": ["item_layers"]},
        {"config": {"item_layers": "0-99"}},
        {"config": {"sublayers": 3}},
        {"config": {"item_bottleneck": "wide"}},
        {"config": {"breadth": 3}},
        {"base": None},
        {"base": {"backbone": "bert"}},
        {"base": {"backbone": {"kind": "bert"}}},
    ],
)
def test_an_edited_description_is_an_error_that_names_the_file(model, tmp_path, change):
    from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint

    path = saved(model, tmp_path / "a.safetensors")
    before = read_checkpoint(path)
    write_checkpoint(path, before.tensors, before.description | change)
    with pytest.raises(UserError, match=r"a\.safetensors: "):
        load_adapter(model, path)


@pytest.mark.parametrize("name", ["item_bottleneck", "user_bottleneck"])
def test_a_width_that_no_tensor_has_is_refused_before_it_is_allocated(model, tmp_path, name):
    from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint

    path = saved(model, tmp_path / "a.safetensors")
    before = read_checkpoint(path)
    config = before.description["config"] | {name: 4096}
    write_checkpoint(path, before.tensors, before.description | {"config": config})
    with pytest.raises(UserError, match=rf"a\.safetensors: {name} is 4096; its tensors have at most"):
        load_adapter(model, path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 3}', "\udc80"])
def test_a_damaged_json_is_an_error_that_names_the_file(model, tmp_path, content):
    path = saved(model, tmp_path / "a.safetensors")
    path.with_suffix(".json").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=r"a\.json"):
        load_adapter(model, path)


def test_gradients_are_asked_for_as_before_once_the_adapters_are_off(model):
    before = {name: one.requires_grad for name, one in model.named_parameters()}
    add_adapters(model, HoulsbyConfig())
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith("adapters.")
    }
    detach_adapters(model)
    assert {name: one.requires_grad for name, one in model.named_parameters()} == before


def inputs_for(encoder):
    if "pixel_values" in encoder.main_input_name:
        size = encoder.config.image_size
        return {"pixel_values": torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))}
    ids = torch.randint(5, 60, (3, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def states_of(encoder):
    arguments = inputs_for(encoder)
    if encoder.config.model_type == "vit_mae":
        encoder.config.mask_ratio = 0.0
        arguments["noise"] = torch.arange(16.0).expand(3, -1)
    with torch.no_grad():
        return encoder.eval()(**arguments).last_hidden_state


PLAIN = [
    (backbone, family)
    for backbone in BACKBONES
    for family in FAMILIES
    if (family != "bitfit" or "modernbert" not in backbone)
    and (family != "pfeiffer_after_layernorm" or ("bert" in backbone and "modern" not in backbone))
]


@pytest.mark.parametrize(("name", "family"), PLAIN)
def test_a_plain_encoder_takes_adapters_and_gives_them_back(request, name, family, tmp_path):
    """Any Hugging Face encoder of a known kind, called as its users call it."""
    encoder = model_on(request.getfixturevalue(name)).item_encoder.backbone
    before = states_of(encoder)
    config = FAMILIES[family]()
    add_adapters(encoder, config)
    after = states_of(shaken(encoder))
    assert after.shape[1] - before.shape[1] == (config.prompt_tokens if family == "prompt" else 0)
    assert not torch.allclose(after[:, :7], before[:, :7])
    save_adapter(encoder, tmp_path / "a.safetensors")
    detach_adapters(encoder)
    assert torch.equal(states_of(encoder), before)
    assert not hasattr(encoder, "adapters")
    load_adapter(encoder, tmp_path / "a.safetensors")
    assert torch.equal(states_of(encoder), after)


def test_positional_arguments_reach_a_prompt_too(tiny_bert_folder):
    encoder = model_on(tiny_bert_folder).item_encoder.backbone.eval()
    add_adapters(encoder, PromptConfig(prompt_tokens=4))
    ids = inputs_for(encoder)["input_ids"]
    with torch.no_grad():
        named = encoder(input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=ids * 0)
        found = encoder(ids, torch.ones_like(ids), ids * 0)
    assert found.last_hidden_state.shape[1] == 11
    assert torch.equal(found.last_hidden_state, named.last_hidden_state)


def test_an_encoder_alone_has_no_head_and_other_modules_no_places(tiny_bert_folder):
    encoder = model_on(tiny_bert_folder).item_encoder.backbone
    with pytest.raises(UserError, match="no item head"):
        add_adapters(encoder, HoulsbyConfig(train_head=True))
    with pytest.raises(UserError, match="do not support the model's user encoder; use --encoders item"):
        add_adapters(encoder, HoulsbyConfig(encoders=("user",)))
    assert not hasattr(encoder, "adapters")
    with pytest.raises(UserError, match="do not support a 'Linear' encoder"):
        add_adapters(nn.Linear(2, 2), HoulsbyConfig())


@pytest.mark.parametrize("name", BACKBONES)
def test_a_merged_model_computes_what_the_adapted_one_does(request, name):
    """All differ by rounding alone: each score to 1e-5 of the unmerged one's."""
    model = model_on(request.getfixturevalue(name)).eval()
    plain, weights = loss_of(model), snapshot(model)
    add_adapters(model, LORA)
    adapters = snapshot(shaken(model).adapters)
    adapted = loss_of(model)
    merged = merge_adapters(model)
    assert not len(model.adapters)
    assert loss_of(model) == pytest.approx(adapted, abs=1e-5)
    assert abs(adapted - plain) > 1e-3
    unmerge_adapters(model, merged)
    assert loss_of(model) == adapted
    assert all(torch.equal(tensor, model.adapters.state_dict()[name]) for name, tensor in adapters.items())
    detach_adapters(model)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_only_what_weights_can_hold_is_merged(model):
    with pytest.raises(UserError, match="no adapters to merge"):
        merge_adapters(model)
    add_adapters(model, HoulsbyConfig())
    with pytest.raises(UserError, match="cannot be merged"):
        merge_adapters(model)
    assert isinstance(model.adapters.config, HoulsbyConfig)


@pytest.mark.parametrize("name", ["tiny_bert_folder", "tiny_modernbert_folder", "tiny_clip_folder"])
def test_a_merged_encoder_is_a_plain_folder(request, name, tmp_path):
    model = model_on(request.getfixturevalue(name)).eval()
    add_adapters(model, LORA)
    with pytest.raises(UserError, match="merge or detach"):
        save_encoder(model, tmp_path / "plain")
    store = store_for(model)
    with torch.no_grad():
        adapted = model.encode_items(store.fetch(np.arange(1, 10))) if shaken(model) else None
    merge_adapters(model)
    save_encoder(model, tmp_path / "plain")
    with pytest.raises(UserError, match="already exists"):
        save_encoder(model, tmp_path / "plain")
    loaded = AutoModel.from_pretrained(tmp_path / "plain")
    assert torch.allclose(states_of(loaded), states_of(model.item_encoder.backbone), atol=1e-5)
    model.item_encoder.backbone.load_state_dict(loaded.state_dict(), strict=False)
    model.item_encoder.head.load_state_dict(load_file(tmp_path / "plain" / "item_head.safetensors"))
    with torch.no_grad():
        assert torch.allclose(model.encode_items(store.fetch(np.arange(1, 10))), adapted, atol=1e-5)
    assert (tmp_path / "plain" / "vocab.txt").is_file() == (name == "tiny_bert_folder")


def test_all_public_names_are_there():
    for name in adapter4rec.__all__:
        assert getattr(adapter4rec, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        adapter4rec.nothing_such  # noqa: B018


def test_a_model_with_adapters_is_not_copied_behind_their_back(model):
    copied = copy.deepcopy(model)
    assert loss_of(copied) == loss_of(model)
    add_adapters(model, HoulsbyConfig())
    with pytest.raises(UserError, match="cannot be copied or pickled"):
        copy.deepcopy(model)
    detach_adapters(model)
    copy.deepcopy(model)


def test_poolers_that_a_folder_lacks_do_not_matter(tmp_path):
    """Many published folders have none, and AutoModel then draws one at random."""
    folder = tmp_path / "published"
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = BertConfig(**sizes, intermediate_size=64)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    first, second = (AutoModel.from_pretrained(folder) for _ in range(2))
    assert not torch.equal(first.pooler.dense.weight, second.pooler.dense.weight)
    add_adapters(first, FAMILIES["bitfit"]())
    assert not any("pooler" in name for name, _ in first.adapters.named_parameters())
    save_adapter(shaken(first), tmp_path / "a.safetensors")
    load_adapter(second, tmp_path / "a.safetensors")
    assert torch.equal(states_of(second), states_of(first))


def test_another_number_format_is_named(model, tmp_path):
    path = saved(model, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"float32 in the file, .*bfloat16 in the model"):
        load_adapter(model.bfloat16(), path)


def test_a_merge_is_not_taken_back_on_a_model_with_adapters(model):
    add_adapters(model, LORA)
    merged = merge_adapters(shaken(model))
    add_adapters(model, HoulsbyConfig())
    before = snapshot(model)
    with pytest.raises(UserError, match="adapters already"):
        unmerge_adapters(model, merged)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_head_is_trained_whichever_encoder_is_adapted(model):
    add_adapters(model, HoulsbyConfig(encoders=("user",), train_head=True))
    assert model.adapters["user"].head.weight.shape == model.item_encoder.head.weight.shape
    before = loss_of(model)
    with torch.no_grad():
        model.adapters["user"].head.weight.mul_(2)
    assert loss_of(model) != before


def test_an_interrupted_call_leaves_no_trace(tiny_vit_folder):
    """ViT's sublayers share their last module: what one has left must not reach the other."""
    encoder = model_on(tiny_vit_folder).item_encoder.backbone.eval()
    add_adapters(encoder, HoulsbyConfig(sublayers=("feed_forward",)))
    expected = states_of(shaken(encoder))

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = encoder.layers[0].mlp.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        states_of(encoder)
    hook.remove()
    assert torch.equal(states_of(encoder), expected)


def test_more_than_an_encoder_and_adapters_within_are_refused(model):
    with pytest.raises(UserError, match="BertForMaskedLM has a head"):
        add_adapters(BertForMaskedLM(model.item_encoder.backbone.config), HoulsbyConfig())
    with pytest.raises(UserError, match="--encoders: expected at least one value"):
        HoulsbyConfig(encoders=())
    add_adapters(model.item_encoder.backbone, HoulsbyConfig())
    with pytest.raises(UserError, match="has adapters already"):
        add_adapters(model, HoulsbyConfig())


@pytest.mark.parametrize("name", WORDS)
def test_a_cut_backbone_is_saved_too(request, name, tmp_path):
    backbone = load_backbone(request.getfixturevalue(name), TEXT_ENCODERS, layers=1)
    save_encoder(backbone, tmp_path / "plain")
    assert torch.allclose(
        states_of(AutoModel.from_pretrained(tmp_path / "plain")), states_of(backbone), atol=1e-5
    )


def test_nothing_is_trained_that_the_loss_does_not_depend_on(tiny_dinov2_folder):
    """DINOv2's mask token: with several processes a parameter without gradient would stop the run."""
    model = model_on(tiny_dinov2_folder)
    train_only(model, PARTS)
    model(batch_for(model)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
