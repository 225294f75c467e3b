"""The losses against a plain loop over targets and candidates, and the division of a batch."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from adapter_models import DIM, LENGTH, N_ITEMS, model_on, shaken, store_for
from conftest import interactions_of, random_sequences

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.data.batches import TrainingSet
from adapter4rec.data.content import IdStore
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.losses import softmax
from adapter4rec.models.losses.settings import LossSettings
from adapter4rec.models.registry import LOSSES, OBJECTIVES, registered
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.training.optimizer import make_optimizer
from adapter4rec.training.setup import TrainingSetup
from adapter4rec.training.step import backward, train_step
from adapter4rec.utils.precision import choose_precision
from adapter4rec.utils.process_group import Process

CPU = torch.device("cpu")
OPTIONS = {
    "bce": {},
    "bce with 3 negatives": {"negatives": 3},
    "gbce": {"negatives": 4, "gbce_t": 0.6},
    "in_batch": {},
    "in_batch, cosine": {"cosine": True, "temperature": 0.2},
    "in_batch, corrected": {"logq": "corrected"},
    "in_batch without logQ": {"logq": "none"},
    "mixed": {"negatives": 9},
    "sampled_softmax": {"negatives": 9, "temperature": 0.5},
    "full": {},
}


def settings_of(case: str) -> LossSettings:
    return LossSettings(loss=case.replace(",", "").split()[0], **OPTIONS[case])


def loss_of(case: str, n_items: int):
    settings = settings_of(case)
    return registered(LOSSES, settings.loss)(settings, n_items)


@pytest.fixture
def interactions():
    chance = np.random.default_rng(3)
    sequences = random_sequences(chance, 20, N_ITEMS // 2, LENGTH)  # half of the items, so that they repeat
    return interactions_of(sequences, N_ITEMS, LENGTH)


def examples_of(model, interactions, store, share=(0, 1), parts=1, batch_size=7):
    return TrainingSet(
        interactions,
        store,
        batch_size=batch_size,
        seed=1,
        sampling=replace(model.loss.sampling, positions=model.positions),
        process=Process(*share, CPU),
        accumulation_steps=parts,
    )


def id_model(case, objective):
    torch.manual_seed(0)
    encoder = TransformerUserEncoder(DIM, LENGTH, 2, 1, 0.0)
    model = TransRec(
        IdItemEncoder(N_ITEMS, DIM),
        encoder,
        objective,
        loss_of(case, N_ITEMS),
        cosine=settings_of(case).cosine,
    )
    torch.nn.init.normal_(model.item_encoder.head.weight)
    return model


def log_sigmoid(score: float) -> float:
    return -math.log1p(math.exp(-score))


def plain_loss(case, objective, ids, examples, table, vectors) -> float:
    """The mean loss of a global batch, target by target.

    Args:
        table: embeddings by item id ``[N + 1, d]``.
        vectors: next-item vectors ``[users, L, d]``.
    """
    settings = settings_of(case)
    sequence_items = {item for row in ids.positives for item in row} - {0}
    users_share = min(1, examples.batch_size / len(examples.users))
    clicks = examples.interactions.training_clicks()
    losses = []
    for row, sequence in enumerate(ids.positives):
        for place in range(LENGTH):
            if sequence[place] == 0 or (objective == "cpc" and place != LENGTH - 1):
                continue
            target = sequence[place + 1]

            def score(item, row=row, place=place):
                return float(vectors[row, place] @ table[item]) / settings.temperature

            if settings.loss in ("bce", "gbce"):
                drawn = ids.negatives[row, place]
                k = settings.negatives or 1
                assert len(drawn) == k
                power, divisor = 1.0, 1
                if settings.loss == "gbce":
                    sampling_rate = k / (N_ITEMS - 1)
                    power = sampling_rate * (settings.gbce_t * (1 - 1 / sampling_rate) + 1 / sampling_rate)
                    divisor = k + 1
                losses.append(
                    -(power * log_sigmoid(score(target)) + sum(log_sigmoid(-score(n)) for n in drawn))
                    / divisor
                )
                continue
            candidates = {
                "in_batch": sequence_items,
                "mixed": sequence_items | set(ids.shared),
                "sampled_softmax": set(ids.shared),
                "full": set(range(1, N_ITEMS + 1)),
            }[settings.loss] - set(sequence)

            def logq(item):
                if settings.loss not in ("in_batch", "mixed") or settings.logq == "none":
                    return 0.0
                uniform = (settings.negatives or 512) / N_ITEMS if settings.loss == "mixed" else 0
                return math.log(users_share * clicks[item - 1] + uniform)

            target_score = score(target) - (logq(target) if settings.logq == "standard" else 0)
            exponentials = [math.exp(score(item) - logq(item)) for item in candidates]
            losses.append(math.log(math.exp(target_score) + sum(exponentials)) - target_score)
    return float(np.mean(losses))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("case", OPTIONS)
def test_a_loss_is_that_of_a_plain_loop(case, objective, interactions):
    model = id_model(case, objective)
    examples = examples_of(model, interactions, IdStore())
    for step in range(examples.steps):
        ids = examples.ids(1, step)
        with torch.no_grad():
            everything = model.encode_items(IdStore().fetch(np.arange(1, N_ITEMS + 1)))
            table = torch.cat([torch.zeros(1, DIM), everything])
            vectors = model.encode_users(table[ids.positives[:, :-1]], torch.from_numpy(ids.log_mask))
            expected = plain_loss(case, objective, ids, examples, table, vectors)
            assert model(examples[1, step]).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", ["in_batch", "full"])
def test_blocks_of_scores_give_the_loss_and_gradients_of_one(case, interactions, monkeypatch):
    model = id_model(case, "sasrec")
    batch = examples_of(model, interactions, IdStore())[1, 0]
    model(batch).backward()
    whole = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    loss = model(batch).item()
    model.zero_grad()
    monkeypatch.setattr(softmax, "_SCORES_AT_ONCE_CPU", 2 * LENGTH * N_ITEMS)
    divided = model(batch)
    divided.backward()
    assert divided.item() == pytest.approx(loss, rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-5, atol=1e-7)


def test_a_batch_without_other_candidates_has_a_zero_loss_and_gradient(interactions):
    model = id_model("in_batch", "sasrec")
    loss = model(examples_of(model, interactions, IdStore(), batch_size=1)[1, 0])
    loss.backward()
    assert loss.item() == 0
    assert not model.item_encoder.head.weight.grad.any()


class ThreadedProcess(Process):
    """One of several processes, as a thread: arrays are gathered in memory, in the order of the ranks."""

    group: tuple

    def all_gather(self, array):
        shared, barrier = self.group
        shared[self.rank] = array
        barrier.wait()
        gathered = np.concatenate([shared[rank] for rank in range(self.world_size)])
        barrier.wait()
        return gathered

    def all_reduce(self, tensor):
        parts = self.all_gather(tensor.detach().numpy()[None])
        with torch.no_grad():
            return tensor.copy_(torch.as_tensor(sum(parts)))


def in_threads(count, work):
    """What ``work(process)`` returns for each of ``count`` processes, by rank."""
    group, found = ({}, threading.Barrier(count, timeout=60)), {}

    def run(rank):
        process = ThreadedProcess(rank, count, CPU)
        object.__setattr__(process, "group", group)
        found[rank] = work(process)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.keys() == set(range(count))
    return found


def setup_of(model, process, rate=1e-3, clip_norm=None):
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(model, dict.fromkeys(model.parameter_groups(), rate))
    precision = choose_precision("fp32", CPU)
    return TrainingSetup(model, parameters, optimizer, precision.scaler(), precision, clip_norm, process)


def loss_and_gradients(make_model, interactions, processes, parts):
    """Of the first step, from as many threads as processes."""
    models = [make_model() for _ in range(processes)]

    def work(process):
        model = models[process.rank]
        setup = setup_of(model, process)
        batch = examples_of(model, interactions, store_of(model), (process.rank, processes), parts)[1, 0]
        loss = backward(setup, batch, (1, 1, 0))
        return (
            float(process.all_reduce(loss)),
            {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad},
        )

    return in_threads(processes, work)


def store_of(model):
    return IdStore() if isinstance(model.item_encoder, IdItemEncoder) else store_for(model)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("case", ["bce", "gbce", "in_batch", "mixed", "sampled_softmax", "full"])
def test_processes_and_accumulation_steps_do_not_change_loss_and_gradients(
    case, objective, tiny_bert_folder, interactions
):
    def make_model():
        if case == "full":
            return id_model(case, objective)
        model = model_on(tiny_bert_folder).eval()
        add_adapters(model, HoulsbyConfig(item_bottleneck=4, user_bottleneck=4))
        model.objective, model.loss = objective, loss_of(case, N_ITEMS)
        return shaken(model)

    ((loss, gradients),) = loss_and_gradients(make_model, interactions, 1, 1).values()
    assert sum(gradient.abs().sum() > 0 for gradient in gradients.values()) > len(gradients) / 2
    for processes, parts in ((1, 4), (2, 1), (3, 2)):
        for other, divided in loss_and_gradients(make_model, interactions, processes, parts).values():
            assert other == pytest.approx(loss, rel=1e-5)
            for name, gradient in gradients.items():
                torch.testing.assert_close(divided[name], gradient, rtol=1e-4, atol=1e-5)


def test_dropout_is_the_same_in_both_passes(tiny_bert_folder, interactions):
    """The gradient of accumulation steps is that of their losses, with the dropout of the first pass."""
    model = model_on(tiny_bert_folder).train()
    model.loss = loss_of("in_batch", N_ITEMS)
    for block in model.user_encoder.modules():
        block.training = False
    setup = setup_of(model, Process(0, 1, CPU))
    batch = examples_of(model, interactions, store_for(model), parts=3)[1, 0]
    loss = backward(setup, batch, (1, 1, 0)).item()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    kept = []
    handle = model.item_encoder.register_forward_hook(lambda module, inputs, output: kept.append(output))
    backward(setup, batch, (1, 1, 0))
    handle.remove()
    assert len(kept) == 6
    for first, second in zip(kept[:3], kept[3:], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(kept[0], model.eval().item_encoder(batch.contents[0]))
    embeddings = torch.cat(kept[3:]).detach().requires_grad_()
    assert model.loss_of(embeddings, batch).item() == pytest.approx(loss)
    assert {n for n, p in model.named_parameters() if p.grad is not None} == gradients.keys()


def test_a_gradient_that_is_not_finite_leaves_the_weights(interactions):
    model = id_model("bce", "sasrec")
    setup = setup_of(model, Process(0, 1, CPU))
    batch = examples_of(model, interactions, IdStore())[1, 0]
    before = model.item_encoder.head.weight.detach().clone()
    model.item_encoder.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(FloatingPointError):
        train_step(setup, batch, (1, 1, 0))
    assert torch.equal(model.item_encoder.head.weight, before)


def test_a_loss_that_is_not_finite_is_no_overflow_of_fp16(interactions):
    model = id_model("bce", "sasrec")
    setup = replace(setup_of(model, Process(0, 1, CPU)), scaler=torch.amp.GradScaler("cpu"))
    model.item_encoder.head.weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="loss nan"):
        train_step(setup, examples_of(model, interactions, IdStore())[1, 0], (1, 1, 0))


def test_clipping_scales_the_gradient_to_the_norm(interactions):
    updates = {}
    for clip_norm in (None, 1e3, 1e-3):
        model = id_model("bce", "sasrec")
        setup = replace(
            setup_of(model, Process(0, 1, CPU), clip_norm=clip_norm),
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        )
        for group in setup.optimizer.param_groups:
            group["initial_lr"] = 1.0
        before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        train_step(setup, examples_of(model, interactions, IdStore())[1, 0], (1, 1, 0))
        updates[clip_norm] = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before
    assert torch.equal(updates[None], updates[1e3])
    assert updates[1e-3].norm().item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(
        updates[1e-3] / updates[1e-3].norm(), updates[None] / updates[None].norm(), rtol=1e-2, atol=1e-4
    )


def test_weight_decay_spares_biases_and_norms():
    model = id_model("bce", "sasrec")
    optimizer = make_optimizer(model, dict.fromkeys(model.parameter_groups(), 0.1), weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1.0 if name.endswith("bias") or "norm" in name else 0.95
        torch.testing.assert_close(parameter.detach(), before[name] * factor)
