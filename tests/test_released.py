"""Released checkpoints load, convert, and compute what the released implementation computes."""

import json
import sys

import parity
import pytest
import torch
from conftest import REPOSITORY

from adapter4rec import convert
from adapter4rec.checkpoints.released import converted, read_released, renamed
from adapter4rec.checkpoints.source_models import read_source_model
from adapter4rec.models.weights import load_into
from adapter4rec.utils.errors import UserError

GOLDEN = REPOSITORY.parent / "shared" / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.json")) or ["text_bert_sasrec"]


def golden(name):
    path = GOLDEN / f"{name}.json"
    if not path.is_file():
        pytest.skip("no shared/golden beside the repository")
    case = json.loads(path.read_text())
    return case | {"state": dict(case["state"])}


@pytest.mark.parametrize("name", CASES)
def test_golden_cases_match(name):
    matches, line = parity.verdict(golden(name))
    assert matches, line
    assert line.startswith(f"{name} ok ")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda outputs: outputs.update(loss=outputs["loss"] + 1e-3), "off loss"),
        (lambda outputs: outputs["item_embeddings"][3].__setitem__(2, 0.5), "off item_embeddings"),
        (
            lambda outputs: outputs["gradients"].update({next(iter(outputs["gradients"])): [0.0, 1.0]}),
            "off gradient",
        ),
        (lambda outputs: outputs["gradients"].popitem(), "has no reference"),
    ],
)
def test_a_deviation_is_found_and_named(change, what):
    case = golden("text_bert_sasrec_houlsby")
    change(case["outputs"])
    matches, line = parity.verdict(case)
    assert not matches
    assert what in line


def test_what_is_not_built_is_unsupported():
    case = golden("text_bert_sasrec")
    for field, value in (("modality", "smell"), ("adapter", "telepathy"), ("objective", "dice")):
        matches, line = parity.verdict(case | {field: value})
        assert not matches
        assert line.startswith("text_bert_sasrec unsupported ")


def test_the_tool_ends_with_the_verdict(tmp_path, monkeypatch, capsys):
    case = golden("text_bert_cpc")
    (tmp_path / "a.json").write_text(json.dumps(case))
    monkeypatch.setattr(sys, "argv", ["parity", str(tmp_path)])
    assert parity.main() == 0
    assert capsys.readouterr().out.split()[:2] == ["text_bert_cpc", "ok"]
    (tmp_path / "b.json").write_text(json.dumps(case | {"modality": "smell"}))
    assert parity.main() == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


RELEASED = {
    "bert_encoder.text_encoders.title.bert_model.embeddings.position_ids": (1, 8),
    "bert_encoder.text_encoders.title.bert_model.embeddings.word_embeddings.weight": (9, 4),
    "bert_encoder.text_encoders.title.bert_model.pooler.dense.weight": (4, 4),
    "bert_encoder.text_encoders.title.fc.weight": (2, 4),
    "user_encoder.transformer_encoder.transformer_blocks.1.feed_forward.w_2.bias": (2,),
}


@pytest.fixture
def released_file(tmp_path):
    state = {name: torch.rand(shape) for name, shape in RELEASED.items()}
    path = tmp_path / "epoch-53.pt"
    extras = {"optimizer": {"state": {}, "param_groups": []}, "rng_state": torch.get_rng_state()}
    torch.save({"model_state_dict": state, **extras}, path)
    return path, state


def test_released_names_become_ours(released_file):
    path, state = released_file
    ours = read_released(path)
    assert set(ours) == {
        "item_encoder.backbone.embeddings.word_embeddings.weight",
        "item_encoder.head.weight",
        "user_encoder.blocks.1.feed_forward.down.bias",
    }
    assert torch.equal(ours["item_encoder.head.weight"], state["bert_encoder.text_encoders.title.fc.weight"])
    adapter = "user_encoder.transformer_encoder.transformer_blocks.0.adapter2.fc_up.bias"
    assert renamed(adapter) == "adapters.user.layers.0.feed_forward.up.bias"
    block = "user_encoder.transformer_encoder.transformer_blocks.0.transformer_block."
    assert (
        renamed(block + "multi_head_attention.w_Q.weight") == "user_encoder.blocks.0.attention.query.weight"
    )


def test_a_whole_released_state_fits_the_model():
    case = golden("text_bert_sasrec")
    model = parity.build(case)
    load_into(model, converted(parity.reference_state(case)), GOLDEN)


def test_the_converter_writes_a_source_model(released_file, tmp_path, monkeypatch):
    path, _ = released_file
    ours = tmp_path / "ours.safetensors"
    monkeypatch.setattr(sys, "argv", ["convert", str(path), str(ours), "--objective", "cpc"])
    convert.main()
    source, direct = read_source_model(ours), read_source_model(path)
    assert source.description["objective"] == "cpc"
    assert direct.description == {}
    assert source.tensors.keys() == direct.tensors.keys()
    assert all(torch.equal(source.tensors[name], direct.tensors[name]) for name in source.tensors)


class Trap:
    def __reduce__(self):
        return (print, ("code from a checkpoint ran",))


def test_a_checkpoint_that_holds_code_is_refused_and_nothing_runs(tmp_path, capsys):
    path = tmp_path / "trap.pt"
    torch.save({"model_state_dict": {}, "optimizer": Trap()}, path)
    with pytest.raises(UserError, match="more than tensors"):
        read_released(path)
    assert "ran" not in capsys.readouterr().out


def test_files_that_are_no_released_checkpoint(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="more than tensors"):
        read_released(tmp_path / "text.pt")
    for state in ([1, 2], {"epoch": 3}):
        torch.save({"model_state_dict": state}, tmp_path / "no_tensors.pt")
        with pytest.raises(UserError, match="model_state_dict"):
            read_released(tmp_path / "no_tensors.pt")
    with pytest.raises(UserError, match="model_state_dict"):
        read_released(tmp_path / "other.pt")
    with pytest.raises(UserError, match="No such file"):
        read_released(tmp_path / "nothing.pt")


@pytest.mark.parametrize("name", ["image_vit_sasrec", "image_mae_sasrec", "image_vit_sasrec_houlsby"])
def test_a_released_image_checkpoint_loads_whole(name, tmp_path):
    """As a file: names of the released code become ours, and every weight arrives."""
    case = golden(name)
    state = parity.reference_state(case)
    torch.save({"model_state_dict": state, "optimizer": {}}, tmp_path / "epoch-59.pt")
    source = read_source_model(tmp_path / "epoch-59.pt")
    model = parity.build(case)
    load_into(model, source.tensors, source.path)
    heads = [tensor for key, tensor in state.items() if key.endswith(("classifier.weight", "cv_proj.weight"))]
    assert torch.equal(model.item_encoder.head.weight, heads[0])
