"""Released checkpoints of target domains, which have adapters in them."""

import sys

import parity
import plain_transrec as plain
import pytest
import torch
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from adapter4rec import convert
from adapter4rec.adapters.attaching import add_adapters, detach_adapters
from adapter4rec.adapters.files import load_adapter
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.checkpoints.loading import load_source
from adapter4rec.checkpoints.released import converted, load_released_target, read_released
from adapter4rec.utils.errors import UserError


def released_file(case, path):
    torch.save({"model_state_dict": parity.reference_state(case), "optimizer": {}}, path)
    return path


def backbone_folder_of(case, folder):
    config = case["backbone_config"]
    kinds = {"bert": (BertConfig, BertModel), "vit": (ViTConfig, ViTModel)}
    config_class, model_class = kinds[case["backbone"]]
    model_class(config_class(**config), add_pooling_layer=False).save_pretrained(folder)
    return folder


TAKEN_APART = [
    ("bert", "lora", "release", ["--item_rank", "8", "--user_rank", "4"]),
    ("bert", "lora", "paper", ["--item_rank", "8", "--user_rank", "4"]),
    ("vit", "lora", "release", ["--item_rank", "8", "--user_rank", "4"]),
    ("vit", "prompt", "paper", ["--prompt_tokens", "3", "--train_head", "true"]),
    ("bert", "compacter", "release", ["--item_bottleneck", "8", "--user_bottleneck", "4"]),
    (
        *("bert", "k_adapter", "release"),
        [
            *("--item_layers", "0,2", "--item_inner", "12", "--item_inner_heads", "3"),
            *("--user_inner", "4", "--released_tokens", str(plain.WIDTH)),
        ],
    ),
]


@pytest.mark.parametrize(("backbone", "adapter", "semantics", "options"), TAKEN_APART)
def test_a_released_target_becomes_a_source_model_and_an_adapter(
    backbone, adapter, semantics, options, tmp_path, monkeypatch
):
    case = plain.case_of(backbone, adapter, semantics)
    released = released_file(case, tmp_path / "epoch-9.pt")
    folder = backbone_folder_of(case, tmp_path / "backbone")
    ours, own = tmp_path / "ours.safetensors", tmp_path / "adapter.safetensors"
    sizes = {"backbone": str(folder), "embedding_dim": 12, "max_seq_len": 5}
    if case["modality"] == "text":
        sizes["title_tokens"] = plain.WIDTH
    arguments = [str(part) for name, value in sizes.items() for part in (f"--{name}", value)]
    command = ["convert", released, ours, "--adapter", own, "--method", adapter, "--semantics", semantics]
    monkeypatch.setattr(sys, "argv", [*map(str, command), *options, *arguments])
    convert.main()
    model = load_source(ours, modality=case["modality"], **sizes)
    add_to = load_adapter(model, own)
    assert add_to.config.semantics == semantics
    store = parity.content_store(case, model.item_encoder.backbone.config)
    with torch.no_grad():
        found = model.eval().encode_items(store.fetch(torch.arange(1, plain.N_ITEMS + 1).numpy()))
    assert torch.allclose(found, torch.tensor(case["outputs"]["item_embeddings"]).float(), atol=2e-5)


def test_a_released_target_that_does_not_fit_is_refused_with_names(tiny_bert_folder, tmp_path):
    case = plain.case_of("bert", "houlsby", "release")
    released = released_file(case, tmp_path / "epoch-9.pt")
    model = parity.build(case)
    detach_adapters(model)
    with pytest.raises(UserError, match=r"epoch-9.pt does not fit .*\n  adapters.item.layers"):
        load_released_target(model, read_released(released), released)
    add_adapters(model, FAMILIES["houlsby"](item_bottleneck=8, user_bottleneck=4))
    tensors = read_released(released)
    load_released_target(model, tensors, released)
    del tensors["adapters.user.layers.0.attention.up.bias"]
    with pytest.raises(UserError, match=r"adapters.user.layers.0.attention.up.bias: not in the file"):
        load_released_target(model, tensors, released)


def test_trained_in_place_there_is_a_copy_here():
    """Released LoRA: the random weight and the new bias, which the encoder itself has no place for."""
    case = plain.case_of("bert", "lora", "release")
    model = parity.build(case)
    state = parity.reference_state(case)
    start = "user_encoder.transformer_encoder.transformer_blocks.0.multi_head_attention.w_Q"
    new = model.adapters["user"].layers["0"]["query"]
    for name in ("weight", "bias", "lora_A", "lora_B"):
        assert torch.equal(getattr(new, name), state[f"{start}.{name}"])
    assert model.user_encoder.blocks[0].attention.query.bias is None
    assert set(converted(state)) - set(model.state_dict()) == {
        f"user_encoder.blocks.{block}.attention.{kind}.bias"
        for block in (0, 1)
        for kind in ("query", "value")
    }


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (["--method", "finetune"], "not an adapter family"),
        (["--method", "houlsby", "--item_rank", "3"], "unknown option --item_rank"),
        (["--method", "houlsby"], "does not fit the model"),
    ],
)
def test_trouble_when_taking_apart(extra, why, tmp_path, monkeypatch):
    case = plain.case_of("bert", "pfeiffer", "paper")
    released = released_file(case, tmp_path / "epoch-9.pt")
    folder = backbone_folder_of(case, tmp_path / "backbone")
    command = ["convert", released, tmp_path / "a.safetensors", "--adapter", tmp_path / "b.safetensors"]
    sizes = ["--backbone", folder, "--embedding_dim", 12, "--max_seq_len", 5, "--title_tokens", 7]
    monkeypatch.setattr(sys, "argv", [*map(str, command), *extra, *map(str, sizes)])
    with pytest.raises(UserError, match=why):
        convert.main()
    assert not (tmp_path / "a.safetensors").exists()


def test_options_of_an_adapter_need_its_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert", "a.pt", "b.safetensors", "--method", "lora"])
    with pytest.raises(SystemExit):
        convert.main()
    assert "--method lora: requires --adapter FILE" in capsys.readouterr().err
