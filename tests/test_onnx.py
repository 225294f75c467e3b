"""Item encoders and user encoders as ONNX files: onnxruntime computes what PyTorch does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from adapter_models import BACKBONES, DIM, LENGTH, N_ITEMS, assert_same, is_image, model_on, shaken, snapshot
from conftest import RandomImages, interactions_of, random_sequences
from test_adapter_families import MATRIX, config_of
from test_user_encoders import ATTENTIVE, encoder_named
from trees import TextSourceSettings

from adapter4rec import add_adapters
from adapter4rec.data.domain import Domain
from adapter4rec.data.images.decoding import Resizing
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.layers import layers_of
from adapter4rec.models.registry import USER_ENCODERS
from adapter4rec.models.transrec import TransRec
from adapter4rec.serving.bundled_content import BundledImages
from adapter4rec.serving.onnx.graphs import ImageGraph, TextGraph, UserGraph
from adapter4rec.serving.onnx.writing import write_graphs
from adapter4rec.serving.trained_runs import TrainedRun

CLOSE = {"atol": 1e-4, "rtol": 0}
LENGTHS = [20, 3, 9, 2, *[4] * (N_ITEMS - 4)]
"""Numbers of tokens: padding of 17 tokens is longer than the window of local attention, 4 on each side."""


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run_of(model, folder):
    """A run with random contents."""
    interactions = interactions_of(random_sequences(np.random.default_rng(0), 4, N_ITEMS, 6), N_ITEMS, 6)
    if is_image(model):
        store = BundledImages(interactions.item_names, Resizing(16))
    else:
        tokens = np.random.default_rng(0).integers(5, 60, sum(LENGTHS)).astype(np.int32)
        store = TextStore([Tokens(tokens, np.concatenate([[0], np.cumsum(LENGTHS)]), "test")], 64)
    settings = TextSourceSettings(users="-", items="-", backbone=str(folder))
    return TrainedRun(folder, settings, Domain("d", interactions, store, "test"), model)


def padded_inputs(store, numbers):
    """What the file of a text encoder takes, from the tokens of the store."""
    tokens, offsets = store.attributes[0].tokens, store.attributes[0].offsets
    rows = [tokens[offsets[number - 1] : offsets[number]] for number in numbers]
    ids = np.full((len(rows), 1, max(map(len, rows))), 7, np.int64)  # padding may be any token
    mask = np.zeros_like(ids)
    for row, one in enumerate(rows):
        ids[row, 0, : len(one)], mask[row, 0, : len(one)] = one, 1
    return {"input_ids": ids, "attention_mask": mask}


def check_item_encoder(folder, backbone, config, *, layers=2, pooling="cls"):
    """The written item encoder computes the embeddings that the model does, which has its adapters again."""
    model = model_on(backbone).eval()
    del layers_of(model.item_encoder.backbone)[layers:]
    model.item_encoder.pooling = pooling
    add_adapters(model, config)
    shaken(model, seed=2).eval()
    before, run = snapshot(model), run_of(model, backbone)
    graph = ImageGraph(run) if is_image(model) else TextGraph(run)
    adapters = write_graphs([graph], folder)
    assert_same(snapshot(model), before)
    session = session_of(folder / graph.file)
    for numbers in ([2], [1, 2, 3, 4, 5]):
        if is_image(model):
            content = RandomImages(N_ITEMS, 16).fetch(np.array(numbers))
            inputs = {"pixels": content.pixels.numpy()}
        else:
            content = run.domain.store.fetch(np.array(numbers))
            inputs = padded_inputs(run.domain.store, numbers)
        with torch.no_grad():
            expected = model.encode_items(content).numpy()
        assert np.allclose(session.run(None, inputs)[0], expected, **CLOSE)
    return adapters


@pytest.mark.parametrize("family", ["houlsby", "lora"])
@pytest.mark.parametrize("name", BACKBONES)
def test_item_encoders(request, tmp_path, name, family):
    """One layer saves time. In ModernBERT the second has local attention, and the mean reads all."""
    layers, pooling = (2, "mean") if "modernbert" in name else (1, "cls")
    folder = request.getfixturevalue(name)
    adapters = check_item_encoder(tmp_path, folder, config_of(family), layers=layers, pooling=pooling)
    assert adapters == {"houlsby": "traced", "lora": "merged"}[family]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "family"), [pair for pair in MATRIX if pair[1] not in ("houlsby", "lora")], ids="-".join
)
def test_item_encoders_of_other_families(request, tmp_path, name, family):
    config = config_of(family, train_head=True)
    adapters = check_item_encoder(tmp_path, request.getfixturevalue(name), config)
    assert adapters == ("merged" if family in ("bitfit", "layernorm", "peft") else "traced")


@pytest.mark.long
@pytest.mark.parametrize("family", ["houlsby_parallel", "compacter", "lora", "bitfit"])
@pytest.mark.parametrize("name", ["tiny_roberta_folder", "tiny_vit_folder"])
def test_item_encoders_as_released(request, tmp_path, name, family):
    check_item_encoder(tmp_path, request.getfixturevalue(name), config_of(family, semantics="release"))


@pytest.mark.long
def test_the_mean_over_tokens_includes_a_prompt(tiny_roberta_folder, tmp_path):
    check_item_encoder(tmp_path, tiny_roberta_folder, config_of("prompt"), pooling="mean")


def check_user_encoder(folder, encoder, config=None):
    model = TransRec(IdItemEncoder(3, DIM), encoder, "sasrec").eval()
    if config is not None:
        add_adapters(model, replace(config, encoders=("user",)))
        shaken(model).eval()
    write_graphs([UserGraph(model, LENGTH)], folder)
    session = session_of(folder / "user_encoder.onnx")
    chance = np.random.default_rng(0)
    for lengths in ([1], [4, 1, 2], [LENGTH, LENGTH + 3]):
        items = np.zeros((len(lengths), max(lengths), DIM), np.float32)
        mask = np.zeros(items.shape[:2], bool)
        expected = []
        for row, length in enumerate(lengths):
            items[row, -length:], mask[row, -length:] = chance.normal(size=(length, DIM)), True
            read = torch.from_numpy(items[row, -min(length, LENGTH) :])
            history = torch.cat([torch.zeros(LENGTH - len(read), DIM), read])[None]
            log_mask = torch.arange(LENGTH)[None] >= LENGTH - len(read)
            with torch.no_grad():
                expected.append(model.encode_users(history, log_mask)[0, -1])
        found = session.run(None, {"items": items, "mask": mask})[0]
        assert np.allclose(found, torch.stack(expected).numpy(), **CLOSE)


@pytest.mark.parametrize("kind", USER_ENCODERS)
def test_user_encoders(tmp_path, kind):
    check_user_encoder(tmp_path, encoder_named(kind))


@pytest.mark.parametrize("family", ["houlsby", pytest.param("lora", marks=pytest.mark.long)])
def test_user_encoders_with_adapters(tmp_path, family):
    check_user_encoder(tmp_path, encoder_named("transformer"), config_of(family))


@pytest.mark.long
@pytest.mark.parametrize("family", ["pfeiffer", "k_adapter", "compacter", "bitfit"])
@pytest.mark.parametrize("kind", ATTENTIVE)
def test_user_encoders_with_adapters_of_other_families(tmp_path, kind, family):
    config = config_of(family)
    if hasattr(config, "sublayers") and kind == "hstu":
        config = replace(config, sublayers=("attention",))
    check_user_encoder(tmp_path, encoder_named(kind), config)
