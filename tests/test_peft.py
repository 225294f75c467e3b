"""Methods of PEFT on every kind of backbone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import peft
import pytest
import torch
from adapter_models import (
    DIM,
    LENGTH,
    N_ITEMS,
    WORDS,
    assert_same,
    batch_for,
    is_image,
    model_on,
    shaken,
    snapshot,
    store_for,
)
from conftest import REPOSITORY
from safetensors.torch import load_file
from torch.nn import functional as F

from adapter4rec.adapters.attaching import add_adapters, detach_adapters
from adapter4rec.adapters.files import load_adapter, save_adapter
from adapter4rec.adapters.peft import TESTED, USER_FAMILIES, PeftConfig
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.checkpoints.merging import merge_adapters, save_encoder, unmerge_adapters
from adapter4rec.models.backbones import IMAGE_ENCODERS, TEXT_ENCODERS, load_backbone
from adapter4rec.models.parameters import count_parameters, train_only
from adapter4rec.models.user_encoders.gru4rec import Gru4RecUserEncoder
from adapter4rec.models.user_encoders.hstu import HstuUserEncoder
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.precision import choose_precision

KINDS = [
    *("tiny_bert_folder", "tiny_roberta_folder", "tiny_modernbert_folder"),
    *("tiny_vit_folder", "tiny_mae_folder", "tiny_dinov2_folder", "tiny_clip_folder"),
]
OPTIONS = {"oft": ("oft_block_size=8",), "randlora": ("r=4",), "vera": ("r=8",)}
"""Options for tiny backbones."""


def config_of(name, **options):
    return PeftConfig(peft=name, peft_options=OPTIONS.get(name), **options)


@pytest.fixture(params=[(folder, name) for folder in KINDS for name in TESTED], ids="-".join)
def pair(request):
    return request.param


def embeddings(model):
    with torch.no_grad():
        return model.encode_items(store_for(model).fetch(np.arange(1, N_ITEMS + 1)))


def plain_embeddings(model, backbone):
    """The items' embeddings by a backbone that is called once per text or image, without packing."""
    encoder, content = model.item_encoder, store_for(model)
    rows = []
    for item in range(1, N_ITEMS + 1):
        if is_image(model):
            pixels = encoder.transform(content.pixels[item - 1 : item].permute(0, 3, 1, 2))
            output = backbone(pixel_values=pixels, **_unmasked(model, pixels))
            state = output.last_hidden_state[0, 0]
            if encoder.backbone.config.model_type == "clip_vision_model":
                state = output.pooler_output[0]
        else:
            tokens = content.attributes[0]
            ids = tokens.tokens[tokens.offsets[item - 1] : tokens.offsets[item]].astype(np.int64)
            state = backbone(input_ids=torch.from_numpy(ids)[None]).last_hidden_state[0, 0]
        rows.append(F.gelu(encoder.head(state)))
    return torch.stack(rows)


def _unmasked(model, pixels):
    config = model.item_encoder.backbone.config
    if config.model_type != "vit_mae":
        return {}
    return {"noise": torch.arange((pixels.shape[-1] // config.patch_size) ** 2)[None].float()}


def backbone_again(folder, model):
    backbone = load_backbone(folder, IMAGE_ENCODERS if is_image(model) else TEXT_ENCODERS).eval()
    if backbone.config.model_type == "vit_mae":
        backbone.config.mask_ratio = 0.0
    return backbone


def test_a_method_trains_saves_loads_in_peft_merges_and_comes_off(folder, pair, tmp_path):
    model = model_on(folder).eval()
    before, start = snapshot(model), embeddings(model)
    config = config_of(pair[1])
    add_adapters(model, config, seed=0)
    batch = batch_for(model)
    model(batch).backward()
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trained == {name for name, one in model.named_parameters() if one.grad is not None}
    assert len(trained) == len(list(model.adapters.parameters())) > 0
    groups = model.parameter_groups()
    assert sum(len(group) for group in groups.values()) == len({id(p) for p in model.parameters()})
    shaken(model)
    packed = embeddings(model)
    assert not torch.allclose(packed, start, atol=2e-5)
    with torch.no_grad():
        assert torch.allclose(packed, plain_embeddings(model, model.item_encoder.backbone), atol=1e-5)
    save_adapter(model, tmp_path / "adapter.safetensors")
    saved = load_file(tmp_path / "adapter.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) == count_parameters(model).trained
    theirs = peft.PeftModel.from_pretrained(backbone_again(folder, model), tmp_path / "adapter_peft").eval()
    with torch.no_grad():
        assert torch.allclose(packed, plain_embeddings(model, theirs), atol=1e-5)
    merged = merge_adapters(model)
    assert torch.allclose(embeddings(model), packed, atol=1e-5)
    save_encoder(model, tmp_path / "merged")
    unmerge_adapters(model, merged)
    assert torch.equal(embeddings(model), packed)
    detach_adapters(model)
    assert_same(snapshot(model), before)
    assert torch.equal(embeddings(model), start)
    assert all(parameter.requires_grad for parameter in model.item_encoder.head.parameters())
    load_adapter(model, tmp_path / "adapter.safetensors")
    assert torch.equal(embeddings(model), packed)


def test_copies_of_frozen_weights_in_16_bits_call_the_layers_of_peft(folder, pair):
    model = model_on(folder).eval()
    add_adapters(model, config_of(pair[1]), seed=0)
    shaken(model)
    exact, batch = embeddings(model), batch_for(model)
    precision = choose_precision("bf16", torch.device("cpu"))
    with precision.autocast():
        expected = embeddings(model)
        model(batch).backward()
    gradients = [parameter.grad.clone() for parameter in model.adapters.parameters()]
    model.zero_grad()
    with precision.frozen_weights(model.item_encoder), precision.autocast():
        assert (embeddings(model) - expected).norm() < 0.02 * expected.norm()
        model(batch).backward()
    for parameter, gradient in zip(model.adapters.parameters(), gradients, strict=True):
        assert (parameter.grad - gradient).norm() <= 0.05 * gradient.norm()
    with precision.frozen_weights(model.item_encoder, whole=True), precision.autocast():
        assert (embeddings(model) - expected).norm() < 0.03 * expected.norm()
    assert torch.equal(embeddings(model), exact)


@pytest.mark.parametrize("name", WORDS[:1])
def test_chosen_layers_and_the_user_encoder(request, name):
    model = model_on(request.getfixturevalue(name))
    options = {"user_family": "houlsby", "user_options": ("user_bottleneck=3",), "item_layers": "last:1"}
    add_adapters(model, PeftConfig(**options))
    assert set(model.adapters) == {"item", "user"}
    assert all(".layer.1." in key for key in model.adapters["item"].state_dict())
    assert model.adapters["user"].get_parameter("layers.0.attention.down.weight").shape == (3, 16)
    detach_adapters(model)
    before = snapshot(model)
    add_adapters(model, PeftConfig(train_user_encoder=True))
    train_only(model, ("adapter", "adapted_user_encoder"))
    batch = batch_for(model.eval())
    model(batch).backward()
    groups = model.parameter_groups()
    assert len(groups["adapted_user_encoder"]) == len(groups["user_encoder"]) > 0
    assert all(one.grad is not None for one in groups["adapted_user_encoder"].values())
    shaken(model)
    detach_adapters(model)
    assert_same(snapshot(model), before)


@pytest.mark.parametrize("encoders", [("item",), ("user",)])
def test_one_encoder_of_two_is_not_silently_two(encoders):
    with pytest.raises(UserError, match=f"--encoders {encoders[0]}: .*or use --user_family none"):
        PeftConfig(user_family="houlsby", encoders=encoders).check()
    assert PeftConfig(user_family="houlsby").encoders == ("item", "user")
    assert PeftConfig().encoders == ("item",)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_vera_on_an_encoder_in_16_bits(tiny_bert_folder, dtype):
    encoder = load_backbone(tiny_bert_folder, TEXT_ENCODERS).to(dtype)
    add_adapters(encoder, PeftConfig(peft="vera"))
    assert encoder(torch.tensor([[2, 5, 3]])).last_hidden_state.dtype == dtype


def test_an_encoder_alone_has_no_adapters_of_the_user_encoder(tiny_bert_folder):
    encoder = load_backbone(tiny_bert_folder, TEXT_ENCODERS)
    assert set(add_adapters(encoder, PeftConfig(user_family="houlsby"))) == {"item"}


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (Gru4RecUserEncoder(DIM, 1, 0.1), "no attention or feed-forward sublayers; use --user_family none"),
        (HstuUserEncoder(DIM, LENGTH, 2, 1, 0.1), "--user_options of houlsby: .*only attention.*family none"),
    ],
)
def test_a_user_encoder_without_the_sublayer_is_an_error(tiny_bert_folder, users, message):
    model = model_on(tiny_bert_folder)
    model.user_encoder = users
    with pytest.raises(UserError, match=message):
        add_adapters(model, PeftConfig(user_family="houlsby"))
    assert len(model.adapters) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peft": "AdaLora"}, r"adalora: moves its budget .* training loop \(update_and_allocate\)"),
        ({"peft": "lorra"}, "no such method; did you mean 'lora'"),
        ({"peft": "prompt_tuning"}, "adds tokens through PEFT's own model classes"),
        ({"peft_options": ("rank=3",)}, "rank: lora has no such option"),
        ({"peft_options": ("r",)}, "expected name=value"),
        ({"peft_options": ("r=-1",)}, "PEFT cannot adapt the backbone.*positive"),
        ({"peft_options": ("bias=all",)}, "trains weights of the backbone in place"),
        ({"peft_options": ("r=4", "init_lora_weights=olora")}, "changes weights of the backbone in place"),
        ({"peft_options": ("target_modules=nothing",)}, "PEFT cannot adapt the backbone: .*nothing"),
        ({"peft": "xlora"}, "PEFT cannot adapt the backbone"),
        ({"peft": "poly"}, "cannot encode an item: task_ids"),
        ({"peft": "lily"}, "depends on the other items of its batch"),
        ({"peft": "adamss", "peft_options": ("use_asa=True",)}, "use_asa=true: needs a call in the training"),
        ({"peft_options": ("init_lora_weights=lora_ga",)}, "needs a call with training data"),
        ({"peft_options": ("peft_type=IA3",)}, "is set by --peft"),
        ({"peft_options": ("task_type=SEQ_CLS",)}, "is for PEFT's own model classes"),
        ({"peft_options": ("inference_mode=true",)}, "adapters are added to be trained"),
        ({"encoders": ("item", "user")}, "--user_family or --train_user_encoder"),
        ({"user_options": ("user_bottleneck=3",)}, "needs --user_family"),
        (
            {"user_family": "houlsby", "user_options": ("user_width=3",)},
            "user_options of houlsby: unknown.*user_width",
        ),
        (
            {"user_family": "houlsby", "user_options": ("item_bottleneck=3",)},
            "for the item encoder, which PEFT",
        ),
        ({"user_family": "houlsby", "user_options": ("train_head=true",)}, "use --train_head"),
        ({"user_family": "houlsby", "user_layers": "2"}, "--user_layers 2: .* there are 2 layers"),
        ({"user_family": "houlsby", "train_user_encoder": True}, "--train_user_encoder true: needs"),
        ({"semantics": "release"}, "does not use PEFT"),
        ({"peft": "ln_tuning", "train_layer_norms": True}, "trains them already"),
        ({"peft_options": ("layers_to_transform=0",)}, "is set by --item_layers"),
        (
            {"peft_options": ("target_modules=.*query",), "item_layers": "last:1"},
            "--item_layers last:1 has no",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_model_alone(tiny_bert_folder, options, message):
    model = model_on(tiny_bert_folder).eval()
    before, start = snapshot(model), embeddings(model)
    with pytest.raises(UserError, match=message):
        add_adapters(model, PeftConfig(**options))
    assert_same(snapshot(model), before)
    assert torch.equal(embeddings(model), start)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_another_method_is_passed_through_and_labelled(tiny_bert_folder):
    model = model_on(tiny_bert_folder).eval()
    start = embeddings(model)
    add_adapters(model, PeftConfig(peft="hra", peft_options=("r=2",)))
    assert torch.allclose(embeddings(model), start, atol=1e-5)  # the trial has left no trace
    model(batch_for(model)).backward()
    assert all(one.grad is not None for one in model.adapters.parameters())
    assert PeftConfig(peft="hra").label == "hra (untested)"
    assert PeftConfig(peft="LoRA").label == "lora"


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("family", ["layernorm", "bitfit"])
def test_layer_norms_of_the_user_encoder_by_a_family_or_for_both_encoders(
    tiny_bert_folder, family, everywhere
):
    model = model_on(tiny_bert_folder)
    add_adapters(model, PeftConfig(user_family=family, train_layer_norms=everywhere))
    users, items = (
        {name.rpartition(".")[2] for name in model.adapters[role].copies if "layer_norm" in name}
        for role in ("user", "item")
    )
    assert users == ({"bias"} if family == "bitfit" and not everywhere else {"weight", "bias"})
    assert bool(items) == everywhere


def test_no_folder_of_peft_where_it_would_lack_the_trained_layer_norms(tiny_bert_folder, tmp_path):
    for trained in (False, True):
        model = model_on(tiny_bert_folder)
        add_adapters(model, PeftConfig(train_layer_norms=trained, train_head=True))
        save_adapter(model, tmp_path / "a.safetensors")
        assert (tmp_path / "a_peft").exists() == (not trained)


def test_every_family_for_users_is_offered():
    assert set(USER_FAMILIES) == set(FAMILIES) - {"prompt", "peft"}


def test_peft_is_imported_only_when_it_is_used():
    code = (
        "import sys\n"
        "sys.modules['peft'] = None\n"
        "from transformers import BertConfig, BertModel\n"
        "import adapter4rec\n"
        "tiny = BertConfig(num_hidden_layers=1, hidden_size=24, vocab_size=9, intermediate_size=9)\n"
        "adapter4rec.add_adapters(BertModel(tiny), adapter4rec.LoraConfig())\n"
        "encoder = BertModel(tiny)\n"
        "try:\n"
        "    adapter4rec.add_adapters(encoder, adapter4rec.PeftConfig())\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "PEFT is not installed; install it with: pip install peft" in done.stdout, done.stderr
