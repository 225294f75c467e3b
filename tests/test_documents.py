"""What the documents show is run: code, the adapter of one's own, the table of sizes."""

import re
from pathlib import Path

import pytest
import torch
from adapter_models import BACKBONES, base_model, batch_for, model_on, snapshot
from trees import TextTargetSettings

from adapter4rec import FAMILIES, add_adapters, count_parameters, detach_adapters, load_adapter, save_adapter
from adapter4rec.checkpoints.source_models import export_source_model

REPOSITORY = Path(__file__).resolve().parent.parent
ADAPTERS = (REPOSITORY / "docs" / "adapters.md").read_text(encoding="utf-8")


def blocks_of(document):
    return re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL)


def block_with(document, words):
    (block,) = (block for block in blocks_of(document) if words in block)
    return block


@pytest.fixture
def own_family(monkeypatch):
    """The worked example, registered as the document says."""
    names = {"FAMILIES": dict(FAMILIES), "__name__": "scaling"}
    exec(block_with(ADAPTERS, "class Scaling(Adapter)"), names)
    exec(block_with(ADAPTERS, 'FAMILIES["scaling"]'), names)
    monkeypatch.setitem(FAMILIES, "scaling", names["FAMILIES"]["scaling"])
    return names["ScalingConfig"]


@pytest.mark.parametrize("name", BACKBONES)
def test_the_worked_example_runs_on_every_backbone(request, name, own_family, tmp_path):
    model = model_on(request.getfixturevalue(name)).eval()
    batch = batch_for(model)
    weights = snapshot(model)
    with torch.no_grad():
        before = model(batch)
        add_adapters(model, own_family(sublayers=("feed_forward",), item_layers="last:1"))
        assert torch.allclose(model(batch), before)
    assert count_parameters(model).trained == 1 * 32 + 2 * 16
    optimizer = torch.optim.Adam(model.adapters.parameters(), lr=0.1)
    model(batch).backward()
    optimizer.step()
    save_adapter(model, tmp_path / "own.safetensors")
    with torch.no_grad():
        trained = model(batch)
        assert not torch.allclose(trained, before)
        detach_adapters(model)
        assert torch.equal(model(batch), before)
        assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
        load_adapter(model, tmp_path / "own.safetensors")
        assert torch.equal(model(batch), trained)


def test_the_notebook_of_the_adapters_page_runs(tiny_bert_folder, tmp_path):
    model = model_on(tiny_bert_folder)
    source = tmp_path / "source.safetensors"
    settings = {"backbone": str(tiny_bert_folder), "embedding_dim": 16, "max_seq_len": 6}
    identity = {"stage": "text source", "settings": settings}
    export_source_model(model.state_dict(), source, "sasrec", {"identity": identity})
    code = block_with(ADAPTERS, "LoraConfig(").replace("runs/quickstart/source.safetensors", str(source))
    names = {}
    exec(code.replace("my_lora.safetensors", str(tmp_path / "my_lora.safetensors")), names)
    assert len(names["model"].adapters) == 2
    switching = block_with(ADAPTERS, "books.safetensors").replace("source.safetensors", str(source))
    for name in ("books", "music"):
        switching = switching.replace(f"{name}.safetensors", str(tmp_path / "my_lora.safetensors"))
    exec(switching, {})


def test_the_ten_lines_of_the_readme_run(tiny_bert_folder, tmp_path):
    code = block_with((REPOSITORY / "README.md").read_text(encoding="utf-8"), "HoulsbyConfig(")
    assert len(code.splitlines()) <= 12
    code = code.replace("pretrained_models/minilm/all_minilm_l6_v2", str(tiny_bert_folder))
    code = code.replace("houlsby.safetensors", str(tmp_path / "houlsby.safetensors"))
    code = code.replace("last:2", "last:1")  # the small encoder has two layers
    names = {"ids": torch.tensor([[2, 7, 9, 3]])}
    exec(code, names)
    encoder = names["encoder"]
    assert encoder.adapters.config.item_bottleneck == 16
    with torch.no_grad():
        assert encoder(names["ids"]).last_hidden_state.shape == (1, 4, 32)


SIZES = re.findall(
    r"^\| (text|image) \| `(\w+)` \| (.*?) \| ([\d,]+) \| ([\d.]+) \|$", ADAPTERS, re.MULTILINE
)


def test_the_table_of_sizes_has_every_family():
    assert {family for modality, family, *_ in SIZES if modality == "text"} == set(FAMILIES)
    assert len(SIZES) == 2 * len(FAMILIES) - 1  # one is for post-norm encoders only


@pytest.mark.parametrize(("modality", "family", "options", "count", "share"), SIZES)
def test_a_size_in_the_table_is_counted(modality, family, options, count, share):
    model = base_model(modality)
    whole = count_parameters(model).total
    values = dict(re.findall(r"`--(\w+) (\w+)`", options))
    with torch.device("meta"):
        add_adapters(model, FAMILIES[family].from_values(values))
    trained = count_parameters(model).trained
    assert f"{trained:,}" == count
    assert f"{100 * trained / whole:.2f}" == share


def test_options_that_documents_name_exist():
    """Each ``--option`` beside ``--method`` families in the pages of adapters is one of theirs."""
    known = set()
    for method in FAMILIES:
        known |= set(TextTargetSettings.options({"method": method}))
    named = set(re.findall(r"--([a-z]+_[a-z_]+)", ADAPTERS))
    assert named <= known
