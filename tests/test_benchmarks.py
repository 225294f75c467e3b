"""The benchmarks: the released way gives the project's results, and operations are counted rightly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapter_models import N_ITEMS, batch_for, is_image, model_on, shaken, store_for
from conftest import interactions_of, random_sequences
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.data.batches import Sampling, TrainingSet
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.ranking import MISSED, EvalBatch, rank_targets
from adapter4rec.models.text_encoder import TextItemEncoder
from benchmarks import gpu, released_way
from benchmarks.measuring import Measurement, in_turns, table
from benchmarks.models import forward_operations, houlsby_operations
from benchmarks.steps import ProjectSteps, examples_of

CONFIG = BertConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=64,
    vocab_size=50,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
LENGTHS = np.array([3, 3, 5, 8])


@pytest.mark.parametrize("name", ["tiny_bert_folder", "tiny_roberta_folder", "tiny_vit_folder"])
def test_the_released_way_gives_the_same_loss_and_gradients(request, name):
    model = model_on(request.getfixturevalue(name)).eval()
    add_adapters(model, HoulsbyConfig(item_bottleneck=4, user_bottleneck=4))
    shaken(model)
    store = store_for(model)
    batch = batch_for(model)
    loss = model(batch)
    loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    interactions = interactions_of(random_sequences(np.random.default_rng(0), 8, N_ITEMS, 6), N_ITEMS, 6)
    examples = TrainingSet(interactions, store, batch_size=8, seed=0, sampling=Sampling(per_target=1))
    ids = examples.ids(1, 0)
    released_way.plain(model).eval()
    model.zero_grad()

    def encode(items):
        if not is_image(model):
            return released_way.encoded_titles(model, store, items)
        pixels = [store.pixels[max(item, 1) - 1].numpy() for item in range(N_ITEMS + 1)]
        return released_way.encoded_images(model, pixels.__getitem__, items)

    found = released_way.loss(model, encode, ids)
    found.backward()
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    grown = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert grown.keys() == expected.keys()
    assert all(torch.allclose(grown[n], expected[n], atol=1e-5) for n in grown)


def test_the_released_way_gives_the_same_ranks():
    chance = np.random.default_rng(0)
    users, table_ = torch.randn(30, 8), torch.randn(101, 8)
    masked = chance.integers(1, 101, (30, 4))
    question = EvalBatch(
        np.zeros((30, 1), np.int64), chance.integers(1, 101, 30), np.repeat(np.arange(30), 4), masked.ravel()
    )
    found = rank_targets(users, Embeddings(table_), question)
    expected = released_way.ranks(users, table_[1:], question.targets - 1, list(masked - 1))
    real = found != MISSED
    assert real.sum() > 20
    assert found[real].tolist() == np.array(expected)[real].tolist()


def counted(model, store, *, backward: bool) -> int:
    """Operations of matrix products, as torch counts them."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        states = model.layer_outputs(store.fetch(np.arange(1, len(LENGTHS) + 1)), [2])
        if backward:
            states.sum().backward()
    return counter.get_total_flops()


@pytest.fixture
def titles():
    chance = np.random.default_rng(0)
    flat = chance.integers(5, 50, LENGTHS.sum()).astype(np.int32)
    return TextStore([Tokens(flat, np.concatenate([[0], LENGTHS.cumsum()]), "")], 4096)


def test_operations_are_those_that_torch_counts(titles):
    torch.manual_seed(0)
    encoder = TextItemEncoder(BertModel(CONFIG, add_pooling_layer=False), 8).eval()
    with torch.no_grad():
        assert counted(encoder, titles, backward=False) == forward_operations(CONFIG, LENGTHS)
    add_adapters(encoder.backbone, HoulsbyConfig(item_bottleneck=4))
    encoder.train()
    assert counted(encoder, titles, backward=True) == houlsby_operations(CONFIG, LENGTHS, 4)


def test_arms_take_turns():
    calls = []
    taken = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 2, "b": 2}


def test_a_table_shows_the_ratio():
    rows = [Measurement("a step", 2.0, 30.0, goal=15, share=0.5, memory=100.0, released_memory=300.0)]
    assert table(rows).splitlines()[2] == "| a step | 30 | 2 | 15 | 15 | 50 % | 100 (300) |"


@pytest.mark.parametrize("form", ["fp32", "bf16"])
def test_steps_of_the_project_train(tiny_bert_folder, form):
    model = model_on(tiny_bert_folder).train()
    add_adapters(model, HoulsbyConfig(item_bottleneck=4, user_bottleneck=4))
    interactions = interactions_of(random_sequences(np.random.default_rng(0), 8, N_ITEMS, 6), N_ITEMS, 6)
    step = ProjectSteps(model, examples_of(interactions, store_for(model), 8), form)
    losses = [step(0) for _ in range(20)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_a_row_that_runs_out_of_memory_does_not_lose_the_others(monkeypatch):
    def full():
        raise torch.OutOfMemoryError("out of memory")

    row = Measurement("text, 4 users", 0.1)
    ways = [("text, 4 users", lambda: row), ("image, 512 users", full), ("image, 4 users", lambda: row)]
    monkeypatch.setattr(gpu, "measurements", lambda scale: iter(ways))
    assert gpu.measured(None) == ([row, row], ["image, 512 users"])
