"""LoRA to and from Hugging Face PEFT, which computes the same with it."""

import importlib
import json
import os
import sys

import peft
import pytest
import torch
from adapter_models import batch_for, model_on
from interchange_models import FOLDERS, adapted, assert_equal_states, maker_of, states
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM

from adapter4rec.adapters.attaching import add_adapters, detach_adapters, encoder_sites
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.interchange.peft import export_peft, import_peft
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.errors import UserError

KINDS = [*FOLDERS, "xlm-roberta", "dinov2", "clip_vision_model"]
VARIANTS = {
    "all": {},
    "one layer": {"item_layers": "1"},
    "value alone": {"projections": ("value",)},
    "one of all": {"item_layers": "0", "projections": ("query",)},
}


@pytest.fixture(params=KINDS)
def make(request):
    return maker_of(request, request.param)


@pytest.fixture
def bert(request):
    return maker_of(request, "tiny_bert_folder")


def last_names(encoder):
    """What the query and value projections are called in an encoder."""
    layer = encoder_sites(encoder)["item"].layers[0]
    return [layer.query.name, layer.value.name]


def saved_by_peft(encoder, folder, **options):
    """A folder that PEFT wrote, of LoRA away from its start; and the states with it."""
    options = {"r": 4, "lora_alpha": 6, "target_modules": last_names(encoder)} | options
    wrapped = peft.get_peft_model(encoder, peft.LoraConfig(**options)).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    wrapped.save_pretrained(folder)
    return states(wrapped)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_peft_computes_the_same_with_what_is_exported(make, options, tmp_path):
    ours = adapted(make(), LoraConfig(item_rank=3, lora_alpha=7.5, lora_dropout=0.2, **options))
    assert export_peft(ours, tmp_path / "lora") == []
    theirs = peft.PeftModel.from_pretrained(make(), tmp_path / "lora").eval()
    assert_equal_states(states(theirs), states(ours))
    assert (states(ours) - states(make())).abs().max() > 0.01
    loaded = theirs.peft_config["default"]
    assert (loaded.r, loaded.lora_alpha, loaded.lora_dropout) == (3, 7.5, 0.2)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("kind", ["tiny_bert_folder", "tiny_vit_folder"])
def test_nothing_is_left_over_or_lacks_when_peft_loads(request, kind, options, tmp_path, recwarn):
    make = maker_of(request, kind)
    ours = adapted(make(), LoraConfig(item_rank=3, **options))
    export_peft(ours, tmp_path / "lora")
    theirs = peft.PeftModel.from_pretrained(make(), tmp_path / "lora")
    assert not [warning for warning in recwarn if "adapter keys" in str(warning.message)]
    there = peft.get_peft_model_state_dict(theirs)
    here = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)


def test_what_peft_saved_computes_the_same_here(make, tmp_path):
    theirs = saved_by_peft(make(), tmp_path / "lora", lora_dropout=0.25)
    ours = make()
    before = states(ours)
    import_peft(ours, tmp_path / "lora")
    assert_equal_states(states(ours), theirs)
    config = ours.adapters.config
    assert (config.item_rank, config.lora_alpha, config.lora_dropout) == (4, 6.0, 0.25)
    detach_adapters(ours)
    assert torch.equal(states(ours), before)


CHOICES = {
    "layers": {"layers_to_transform": [1]},
    "a layer": {"layers_to_transform": 0, "layers_pattern": "layer"},
    "one projection": {"target_modules": ["query"]},
    "in full": {"target_modules": ["encoder.layer.1.attention.self.value"]},
    "longer endings": {"target_modules": ["attention.self.query", "self.value"]},
    "a pattern": {"target_modules": r".*layer\.1.*\.(query|value)"},
}


@pytest.mark.parametrize("options", CHOICES.values(), ids=CHOICES)
def test_all_ways_of_peft_to_choose_modules(bert, options, tmp_path):
    theirs = saved_by_peft(bert(), tmp_path / "lora", **options)
    ours = bert()
    import_peft(ours, tmp_path / "lora")
    assert_equal_states(states(ours), theirs)


def test_layers_of_vit_are_found_by_their_pattern(request, tmp_path):
    vit = maker_of(request, "tiny_vit_folder")
    chosen = {"layers_to_transform": [1], "layers_pattern": "layers"}
    theirs = saved_by_peft(vit(), tmp_path / "lora", **chosen)
    ours = vit()
    import_peft(ours, tmp_path / "lora")
    assert ours.adapters.config.item_layers == "1"
    assert_equal_states(states(ours), theirs)


def test_the_encoder_inside_another_model(bert, tmp_path):
    """LoRA that PEFT trained on the masked language model around the encoder."""
    around = BertForMaskedLM(bert().config)
    around.bert.load_state_dict(bert().state_dict(), strict=False)
    paths = [f"bert.encoder.layer.{number}.attention.self.query" for number in (0, 1)]
    options = peft.LoraConfig(r=2, target_modules=paths, init_lora_weights=False)
    wrapped = peft.get_peft_model(around, options).eval()
    wrapped.save_pretrained(tmp_path / "lora")
    ours = bert()
    import_peft(ours, tmp_path / "lora")
    assert ours.adapters.config.projections == ("query",)
    assert_equal_states(states(ours), states(wrapped.base_model.model.bert))


@pytest.mark.parametrize("folder", FOLDERS[:3])
def test_round_trip_of_the_item_half_of_a_whole_model(request, folder, tmp_path):
    folder = request.getfixturevalue(folder)
    source = adapted(model_on(folder), LoraConfig(item_rank=3, user_rank=2, train_head=True))
    left_out = export_peft(source, tmp_path / "lora")
    assert [sentence.split()[1] for sentence in left_out] == ["item", "user"]
    target = model_on(folder)
    import_peft(target, tmp_path / "lora")
    assert list(target.adapters) == ["item"]
    own = target.adapters["item"].state_dict()
    theirs = source.adapters["item"].state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    detach_adapters(source)
    target(batch_for(target)).backward()
    trained = {name for name, parameter in target.named_parameters() if parameter.grad is not None}
    assert trained == {f"adapters.item.{name}" for name in own}


def test_what_was_trained_and_is_not_exported_is_listed(tiny_bert_folder, tmp_path):
    whole = LoraConfig(encoders=("item",), train_user_encoder=True, train_head=True)
    left_out = export_peft(adapted(model_on(tiny_bert_folder), whole), tmp_path / "lora")
    assert [one.split(",")[0] for one in left_out] == ["the item head", "the user encoder"]


UNABLE = {
    "another family": (
        HoulsbyConfig(),
        "cannot export houlsby .* to PEFT",
    ),
    "layer norms": (LoraConfig(train_layer_norms=True), "trained layer norms"),
    "user alone": (LoraConfig(encoders=("user",)), "no adapters to export"),
}


@pytest.mark.parametrize(("config", "why"), UNABLE.values(), ids=UNABLE)
def test_what_peft_cannot_hold_is_not_exported(tiny_bert_folder, config, why, tmp_path):
    model = adapted(model_on(tiny_bert_folder), config)
    with pytest.raises(UserError, match=why):
        export_peft(model, tmp_path / "lora")
    assert not list(tmp_path.iterdir())


def test_no_adapters_a_folder_that_is_there_and_fused_projections(request, bert, tmp_path):
    with pytest.raises(UserError, match="no adapters to export"):
        export_peft(bert(), tmp_path / "lora")
    with pytest.raises(UserError, match="already exists"):
        export_peft(adapted(bert(), LoraConfig()), tmp_path)
    fused = maker_of(request, "modernbert")
    with pytest.raises(UserError, match="query, key and value together"):
        export_peft(adapted(fused(), LoraConfig()), tmp_path / "lora")
    saved_by_peft(bert(), tmp_path / "theirs")
    with pytest.raises(UserError, match="query, key and value together"):
        import_peft(fused(), tmp_path / "theirs")


FOREIGN = {
    "dora": ({"use_dora": True}, "use_dora"),
    "rslora": ({"use_rslora": True}, "use_rslora"),
    "bias": ({"bias": "lora_only"}, "bias is"),
    "biases of the factors": ({"lora_bias": True}, "lora_bias"),
    "whole modules": ({"modules_to_save": ["pooler"]}, "modules_to_save"),
    "ranks": ({"rank_pattern": {"query": 2}}, "rank_pattern"),
    "alphas": ({"alpha_pattern": {"query": 2}}, "alpha_pattern"),
    "other modules": ({"target_modules": ["query", "dense"]}, "attention.output.dense.* not in the model"),
    "uneven": (
        {"target_modules": ["layer.0.attention.self.query", "layer.1.attention.self.value"]},
        "not in the file",
    ),
    "start": ({"init_lora_weights": "pissa"}, "weights of the encoder"),
    "excluded": ({"exclude_modules": ["encoder.layer.0.attention.self.query"]}, "not in the file"),
}


@pytest.mark.parametrize(("options", "why"), FOREIGN.values(), ids=FOREIGN)
def test_what_has_no_counterpart_here_is_not_imported(bert, options, why, tmp_path):
    saved_by_peft(bert(), tmp_path / "lora", **options)
    ours = bert()
    with pytest.raises(UserError, match=why):
        import_peft(ours, tmp_path / "lora")
    assert not hasattr(ours, "adapters")


def test_another_method(bert, tmp_path):
    options = peft.IA3Config(target_modules=["query"], feedforward_modules=[])
    peft.get_peft_model(bert(), options).save_pretrained(tmp_path / "ia3")
    with pytest.raises(UserError, match="only LORA"):
        import_peft(bert(), tmp_path / "ia3")


EDITS = {
    "rank": ({"r": "many"}, "expected an integer"),
    "a rank without end": ({"r": 10**9}, "at most 32 rows or columns"),
    "another rank": ({"r": 5}, r"8 tensors do not match.*\[4, 32\] in the file, \[5, 32\]"),
}


@pytest.mark.parametrize(("edit", "why"), EDITS.values(), ids=EDITS)
def test_a_rank_that_the_tensors_do_not_have(bert, edit, why, tmp_path):
    saved_by_peft(bert(), tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    ours = bert()
    before = states(ours)
    with pytest.raises(UserError, match=why):
        import_peft(ours, tmp_path / "lora")
    assert not hasattr(ours, "adapters")
    assert torch.equal(states(ours), before)


def test_damaged_and_missing_files(bert, tmp_path):
    folder = tmp_path / "lora"
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        import_peft(bert(), folder)
    saved_by_peft(bert(), folder)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors.popitem()
    save_file(tensors, weights)
    with pytest.raises(UserError, match=r"1 tensors do not match.*not in the file"):
        import_peft(bert(), folder)
    save_file({"other": torch.ones(2)}, weights)
    with pytest.raises(UserError, match="no supported adapters"):
        import_peft(bert(), folder)
    weights.write_bytes(weights.read_bytes()[:20])
    with pytest.raises(UserError, match="cannot be read"):
        import_peft(bert(), folder)
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(UserError, match="found a FIFO"):
        import_peft(bert(), folder)
    weights.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        import_peft(bert(), folder)


def test_peft_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.delitem(sys.modules, "adapter4rec.interchange.peft")
    with pytest.raises(UserError, match="pip install peft"):
        importlib.import_module("adapter4rec.interchange.peft")


def test_models_that_cannot_take_adapters(bert, tmp_path):
    saved_by_peft(bert(), tmp_path / "lora")
    taken = bert()
    add_adapters(taken, LoraConfig())
    with pytest.raises(UserError, match="adapters already"):
        import_peft(taken, tmp_path / "lora")
    tower = TransRec(IdItemEncoder(5, 16), TransformerUserEncoder(16, 6, 2, 2, 0.0), "sasrec")
    with pytest.raises(UserError, match="no backbone"):
        import_peft(tower, tmp_path / "lora")
