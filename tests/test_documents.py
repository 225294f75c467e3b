"""What the documents show is run: code, the adapter of one's own, the table of sizes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_models import BACKBONES, base_model, batch_for, model_on, snapshot
from conftest import write_domain
from document_names import documents, stale_names

import adapter4rec
from adapter4rec import FAMILIES, add_adapters, count_parameters, detach_adapters, load_adapter, save_adapter
from adapter4rec.checkpoints.source_models import export_source_model
from adapter4rec.data.batches import IdBatch, make_batch
from adapter4rec.data.content import IdStore
from adapter4rec.models.losses.settings import LossSettings
from adapter4rec.models.registry import LOSSES, USER_ENCODERS
from adapter4rec.utils.errors import UserError
from Downstream.Text.train import run as run_target
from Pretraining.Text.train import run as run_source

REPOSITORY = Path(__file__).resolve().parent.parent
ADAPTERS = (REPOSITORY / "docs" / "adapters.md").read_text(encoding="utf-8")
EXTENDING = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")


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


@pytest.fixture
def own_loss(monkeypatch):
    """BPR, registered as the document says."""
    monkeypatch.setitem(LOSSES, "bpr", None)
    names = {"LOSSES": LOSSES, "__name__": "bpr"}
    exec(block_with(EXTENDING, "class BprLoss(Loss)"), names)
    exec(block_with(EXTENDING, 'LOSSES["bpr"]'), names)
    return names["BprLoss"]


@pytest.fixture
def own_user_encoder(monkeypatch):
    """The user encoder of the worked example, registered as the document says."""
    monkeypatch.setitem(USER_ENCODERS, "recency", None)
    names = {"USER_ENCODERS": USER_ENCODERS, "__name__": "recency"}
    exec(block_with(EXTENDING, "class RecencyUserEncoder(UserEncoder)"), names)
    exec(block_with(EXTENDING, 'USER_ENCODERS["recency"]'), names)
    return names["RecencyUserEncoder"]


@pytest.fixture
def common(tiny_bert_folder, tmp_path):
    """Settings of a short run on a tiny domain."""
    words = ["red", "house", "garden", "river", "snow", "music", "oil", "school", "winter", "match"]
    clicks = {f"u{u}": [f"i{(u + step) % 10}" for step in range(5 + u % 3)] for u in range(20)}
    users, items = write_domain(tmp_path / "domain", clicks, {f"i{i}": word for i, word in enumerate(words)})
    small = {"max_seq_len": 5, "embedding_dim": 8, "batch_size": 4, "epochs": 4}
    where = {"backbone": str(tiny_bert_folder), "cache_folder": tmp_path / "cache", "device": "cpu"}
    return {"users": users, "items": items, "precision": "fp32", **where, **small}


SOURCE_RATES = {"lr_backbone": 1e-3, "lr_item_head": 1e-2, "lr_user_encoder": 1e-2}


def source_and_target(common, folder, **chosen):
    """A source run and a target run with adapters in the item encoder, both with a setting of one's own."""
    source = folder / "source.safetensors"
    own = common | chosen
    run_source(**own, **SOURCE_RATES, run_folder=folder / "source", export=source)
    target = {"method": "houlsby", "source_checkpoint": source, "lr_adapter": 1e-2}
    result = run_target(**own, **target, encoders="item", run_folder=folder / "target")
    assert 0 <= result["test"]["HR@10"] <= 100
    records = map(json.loads, (folder / "source" / "metrics.jsonl").read_text().splitlines())
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < losses[0]
    return source, target | own


def test_the_own_loss_is_trained_and_loaded(common, own_loss, tmp_path):
    source, _ = source_and_target(common, tmp_path, loss="bpr")
    for name in ("source", "target"):
        loaded = adapter4rec.load(tmp_path / name)
        assert len(loaded.recommend(loaded.clicks_of("u0"), top_k=3)) == 3
    model = adapter4rec.load_source(source)
    assert isinstance(model.loss, own_loss)


def test_the_own_loss_is_the_formula(own_loss):
    ids = IdBatch(np.array([[0, 1, 2, 3]]), np.array([[[0, 0], [4, 5], [5, 6]]]), np.empty(0, np.int64))
    batch = make_batch(ids, IdStore())
    users, items = torch.randn(2, 4), torch.cat([torch.zeros(1, 4), torch.randn(6, 4)])
    loss = own_loss(LossSettings(negatives=2), n_items=6)(users, items[batch.next_rows], items, batch)
    expected = 0
    for user, (positive, *negatives) in zip(users, [(2, 4, 5), (3, 5, 6)], strict=True):
        for negative in negatives:
            difference = user @ items[positive] - user @ items[negative]
            expected -= torch.log(torch.sigmoid(difference)) / 2
    assert torch.allclose(loss, expected)


def test_the_own_user_encoder_is_trained_and_loaded(common, own_user_encoder, tmp_path):
    source, target = source_and_target(common, tmp_path, user_encoder="recency", user_blocks=1)
    for name in ("source", "target"):
        loaded = adapter4rec.load(tmp_path / name)
        assert len(loaded.recommend(loaded.clicks_of("u0"), top_k=3)) == 3
    assert isinstance(adapter4rec.load_source(source).user_encoder, own_user_encoder)
    with pytest.raises(UserError, match=r"no feed_forward sublayer.*--encoders item"):
        run_target(**target, run_folder=tmp_path / "both_sublayers")
    result = run_target(**target, sublayers="attention", run_folder=tmp_path / "both")
    assert result["trained_parameters"] > 0


def test_padding_and_later_places_do_not_change_the_own_user_encoder(own_user_encoder):
    encoder = own_user_encoder(4, 1, 0.0)
    items, log_mask = torch.randn(2, 5, 4), torch.tensor([[False, False, True, True, True], [True] * 5])
    vectors = encoder(items, log_mask)
    changed = items.clone()
    changed[0, :2], changed[:, -1] = 7, 7
    again = encoder(changed, log_mask)
    assert torch.allclose(vectors[0, 2:-1], again[0, 2:-1])
    assert torch.allclose(vectors[1, :-1], again[1, :-1])
    alone = encoder(items[:1, 2:], log_mask[:1, 2:])
    assert torch.allclose(vectors[:1, 2:], alone, atol=1e-6)


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


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_what_a_page_names_exists(page):
    assert stale_names(page.read_text(encoding="utf-8"), page) == []


@pytest.mark.parametrize(
    "line",
    [
        "`read_nothing` in `adapter4rec/data/interactions.py`",
        "`Run.nothing` is a method",
        "`adapter4rec/data/nothing.py` reads it",
        "`test_runs.py`: `test_nothing_of_this_name`",
        "`python -m adapter4rec.nothing` does it",
        "`--no_such_option 3` sets it",
        "`name_of_no_function` does it",
        "[a page](nothing.md), or [a section](data.md#nothing)",
        "    python adapter_nothing.py",
        "`make nothing`",
    ],
)
def test_a_changed_name_is_found(line):
    assert stale_names(f"A page.\n\n{line}\n", REPOSITORY / "docs" / "page.md")
