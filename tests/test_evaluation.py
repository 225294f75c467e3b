"""Ranking and its metrics, against plain loops over users and items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import interactions_of, random_sequences
from torch import Tensor, nn

from adapter4rec import evaluation
from adapter4rec.data.content import IdStore, ItemIds
from adapter4rec.data.interactions import Interactions
from adapter4rec.distributed import Process
from adapter4rec.errors import UserError
from adapter4rec.evaluation import (
    MISSED,
    Question,
    Split,
    encode_catalogue,
    evaluate,
    evaluate_popularity,
    evaluating,
    metrics_of,
    popularity_scores,
    questions,
    rank_users,
    target_ranks,
)
from adapter4rec.models.item_encoders import IdItemEncoder
from adapter4rec.models.objectives import Objective
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoder import UserEncoder

MAX_SEQ_LEN = 4
both_splits = pytest.mark.parametrize("split", list(Split))
sizes = pytest.mark.parametrize("n_items", [3, 8, 40])


def random_domain(n_items: int, users: int = 60) -> tuple[list[list[int]], Interactions]:
    sequences = random_sequences(np.random.default_rng(n_items), users, n_items, MAX_SEQ_LEN)
    return sequences, interactions_of(sequences, n_items, MAX_SEQ_LEN)


def history_and_target(sequence: list[int], split: Split) -> tuple[list[int], int]:
    if split is Split.VALIDATION:
        return sequence[:-2], sequence[-2]
    return sequence[:-1], sequence[-1]


def plain_rank(scores: list[float], history: list[int], target: int) -> int:
    """One plus the number of other candidates that score at least as high; ``scores[i - 1]`` is item i's."""
    if target in history:
        return MISSED
    rank = 1
    for item, score in enumerate(scores, 1):
        if item != target and item not in history and score >= scores[target - 1]:
            rank += 1
    return rank


def plain_metrics(ranks: list[int]) -> dict[str, float]:
    hits = [rank for rank in ranks if rank <= 10]
    return {
        "HR@10": 100 * len(hits) / len(ranks),
        "NDCG@10": 100 * sum(1 / math.log2(rank + 1) for rank in hits) / len(ranks),
    }


class OneOfMany(Process):
    """A process that hears nothing of the others: its part of each sum is left as it is."""

    def sum_over_all(self, tensor: Tensor) -> Tensor:
        return tensor

    def gathered(self, array: np.ndarray) -> np.ndarray:
        return array


def processes(count: int) -> list[Process]:
    return [OneOfMany(rank, count, torch.device("cpu")) for rank in range(count)]


class TestQuestions:
    @both_splits
    def test_against_plain_python(self, split: Split) -> None:
        sequences, interactions = random_domain(8)
        users = np.arange(7, 40)
        found = questions(interactions, split, users)
        masked = [set() for _ in users]
        for row, item in zip(found.masked_users, found.masked_items, strict=True):
            masked[row].add(int(item))
        for row, user in enumerate(users):
            history, target = history_and_target(sequences[user], split)
            inputs = history[-MAX_SEQ_LEN:]
            assert found.targets[row] == target
            assert found.inputs[row].tolist() == [0] * (MAX_SEQ_LEN - len(inputs)) + inputs
            assert masked[row] == set(history)

    def test_a_click_before_the_inputs_is_masked_too(self) -> None:
        found = questions(interactions_of([[1, 2, 3, 4, 5, 6, 7]], 9, 4), Split.TEST, np.array([0]))
        assert found.inputs.tolist() == [[3, 4, 5, 6]]
        assert found.masked_items.tolist() == [1, 2, 3, 4, 5, 6]


class TestRanks:
    @both_splits
    @sizes
    def test_against_plain_loops_with_many_ties(self, split: Split, n_items: int) -> None:
        sequences, interactions = random_domain(n_items)
        scores = torch.randint(-2, 3, (len(sequences), n_items), generator=torch.Generator().manual_seed(1))
        expected = [
            plain_rank(row.tolist(), *history_and_target(sequence, split))
            for row, sequence in zip(scores, sequences, strict=True)
        ]
        assert MISSED in expected
        assert min(expected) < n_items
        question = questions(interactions, split, np.arange(len(sequences)))
        assert target_ranks(scores.float(), question).tolist() == expected

    def question(self, target: int, masked: list[int]) -> Question:
        return Question(
            np.zeros((1, 1), np.int64),
            np.array([target]),
            np.zeros(len(masked), np.int64),
            np.array(masked, np.int64),
        )

    def test_ties_count_against_the_target(self) -> None:
        scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 4.0]])
        assert target_ranks(scores, self.question(3, [])).tolist() == [4]

    def test_what_is_masked_is_no_candidate(self) -> None:
        scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 4.0]])
        assert target_ranks(scores, self.question(3, [5, 2, 5])).tolist() == [2]

    def test_a_masked_target_is_a_miss_in_a_small_catalogue_too(self) -> None:
        ranks = target_ranks(torch.tensor([[9.0, 1.0, 2.0]]), self.question(1, [1, 2]))
        assert ranks.tolist() == [MISSED]
        assert metrics_of(ranks) == {"HR@10": 0.0, "NDCG@10": 0.0}

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("item", [1, 2, 3])
    def test_a_score_that_is_not_finite_stops_even_where_it_is_masked(self, value: float, item: int) -> None:
        scores = torch.tensor([[1.0, 2.0, 3.0]])
        scores[0, item - 1] = value
        with pytest.raises(UserError, match="not finite"):
            target_ranks(scores, self.question(2, [3]))


class TestMetrics:
    def test_formula(self) -> None:
        found = metrics_of(np.array([1, 2, 10, 11, MISSED]))
        assert found["HR@10"] == pytest.approx(60)
        assert found["NDCG@10"] == pytest.approx(100 * (1 + 1 / math.log2(3) + 1 / math.log2(11)) / 5)

    def test_other_lengths(self) -> None:
        assert metrics_of(np.array([1, 2, 4]), k=2) == {
            "HR@2": pytest.approx(200 / 3),
            "NDCG@2": pytest.approx(100 * (1 + 1 / math.log2(3)) / 3),
        }


def integer_scores(n_items: int) -> Callable[[Question], Tensor]:
    """Scores with many ties that depend on a user's inputs alone, place by place."""
    weights = torch.randint(
        -1, 2, (MAX_SEQ_LEN, n_items + 1, n_items), generator=torch.Generator().manual_seed(2)
    )
    weights[:, 0] = 0

    def score(question: Question) -> Tensor:
        places = torch.arange(MAX_SEQ_LEN)
        return weights[places, torch.from_numpy(question.inputs)].sum(1).float()

    return score


class TestChunks:
    @both_splits
    @sizes
    def test_neither_chunks_nor_processes_change_anything(
        self, monkeypatch: pytest.MonkeyPatch, one_process: Process, split: Split, n_items: int
    ) -> None:
        sequences, interactions = random_domain(n_items)
        score = integer_scores(n_items)
        whole = rank_users(score, interactions, split, one_process)
        expected = [
            plain_rank(row.tolist(), *history_and_target(sequence, split))
            for row, sequence in zip(
                score(questions(interactions, split, np.arange(len(sequences)))), sequences, strict=True
            )
        ]
        assert whole.tolist() == expected
        for scores_at_once in (1, 7 * n_items, 60 * n_items):
            monkeypatch.setattr(evaluation, "_SCORES_AT_ONCE", scores_at_once)
            asked = []

            def remembered(question: Question, asked: list[int] = asked) -> Tensor:
                asked.append(len(question.targets))
                return score(question)

            assert (rank_users(remembered, interactions, split, one_process) == whole).all()
            assert sum(asked) == len(sequences)
            assert max(asked) == max(1, scores_at_once // n_items)
            parts = np.stack([rank_users(score, interactions, split, process) for process in processes(3)])
            assert ((parts > 0).sum(0) == 1).all(), "each user is ranked by exactly one process"
            assert (parts.sum(0) == whole).all()


class CostlyStore(IdStore):
    """Items of different costs; remembers what was fetched."""

    def __init__(self, costs: np.ndarray) -> None:
        super().__init__(len(costs))
        self._costs = costs
        self.fetched: list[list[int]] = []

    def costs(self) -> np.ndarray:
        return self._costs

    def fetch(self, items: np.ndarray) -> ItemIds:
        self.fetched.append(items.tolist())
        return super().fetch(items)


class TestCatalogue:
    TABLE = torch.randn(11, 3, generator=torch.Generator().manual_seed(3))
    COSTS = np.array([5, 1, 4, 1, 5, 9, 2, 6, 5, 3])

    def encode(self, content: ItemIds) -> Tensor:
        return self.TABLE[content.ids].double()

    @pytest.mark.parametrize(
        ("at_once", "group_sizes"), [(3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (512, [10])]
    )
    def test_groups(
        self, monkeypatch: pytest.MonkeyPatch, one_process: Process, at_once: int, group_sizes: list[int]
    ) -> None:
        monkeypatch.setattr(evaluation, "_ITEMS_AT_ONCE", at_once)
        store = CostlyStore(self.COSTS)
        rows = encode_catalogue(self.encode, store, 10, one_process)
        assert rows.dtype == torch.float32
        assert torch.equal(rows[1:], self.TABLE[1:])
        assert not rows[0].any()
        assert [len(items) for items in store.fetched] == group_sizes
        in_order = [item for items in store.fetched for item in items]
        assert [self.COSTS[item - 1] for item in in_order] == sorted(self.COSTS)

    @pytest.mark.parametrize("count", [2, 3, 6])
    def test_processes_share_the_groups_of_the_catalogue(
        self, monkeypatch: pytest.MonkeyPatch, one_process: Process, count: int
    ) -> None:
        monkeypatch.setattr(evaluation, "_ITEMS_AT_ONCE", 3)
        alone = CostlyStore(self.COSTS)
        encode_catalogue(self.encode, alone, 10, one_process)
        store = CostlyStore(self.COSTS)
        parts = [encode_catalogue(self.encode, store, 10, process) for process in processes(count)]
        assert torch.equal(sum(parts)[1:], self.TABLE[1:])
        assert all(items in alone.fetched for items in store.fetched)


class TestEvaluating:
    def test_mode_and_gradients_are_put_back(self) -> None:
        model = nn.Linear(2, 2)
        for training in (True, False):
            model.train(training)
            with evaluating(model):
                assert not model.training
                assert not model(torch.ones(1, 2)).requires_grad
            assert model.training is training
            assert torch.is_grad_enabled()

    def test_after_an_error_too(self) -> None:
        model = nn.Linear(2, 2).train()
        with pytest.raises(UserError), evaluating(model):
            raise UserError("broken")
        assert model.training


def random_model(n_items: int) -> TransRec:
    torch.manual_seed(4)
    user_encoder = UserEncoder(8, MAX_SEQ_LEN, heads=2, blocks=2, dropout=0.5)
    return TransRec(IdItemEncoder(n_items, 8), user_encoder, Objective.SASREC)


class TestEvaluate:
    @both_splits
    @sizes
    @pytest.mark.parametrize("training", [True, False])
    def test_equals_a_plain_computation_user_by_user(
        self,
        monkeypatch: pytest.MonkeyPatch,
        one_process: Process,
        split: Split,
        n_items: int,
        *,
        training: bool,
    ) -> None:
        sequences, interactions = random_domain(n_items)
        model = random_model(n_items).eval()
        table = model.item_encoder.head.weight.detach()
        ranks = []
        for sequence in sequences:
            history, target = history_and_target(sequence, split)
            inputs = torch.zeros(1, MAX_SEQ_LEN, 8)
            mask = torch.zeros(1, MAX_SEQ_LEN, dtype=torch.bool)
            for place, item in enumerate(reversed(history[-MAX_SEQ_LEN:]), 1):
                inputs[0, -place] = table[item - 1]
                mask[0, -place] = True
            with torch.no_grad():
                user = model.encode_users(inputs, mask)[0, -1]
            ranks.append(plain_rank((table @ user).tolist(), history, target))

        monkeypatch.setattr(evaluation, "_ITEMS_AT_ONCE", 7)
        monkeypatch.setattr(evaluation, "_SCORES_AT_ONCE", 25 * n_items)
        model.train(training)
        found = evaluate(model, IdStore(n_items), interactions, split, one_process)
        assert found == {name: pytest.approx(value) for name, value in plain_metrics(ranks).items()}
        assert all(module.training is training for module in model.modules())

    def test_the_splits_differ(self, one_process: Process) -> None:
        _, interactions = random_domain(40)
        model = random_model(40)
        validation, test = (evaluate(model, IdStore(40), interactions, split, one_process) for split in Split)
        assert validation != test

    def test_broken_weights_stop_it_and_the_mode_is_put_back(self, one_process: Process) -> None:
        _, interactions = random_domain(8)
        model = random_model(8).train()
        with torch.no_grad():
            model.item_encoder.head.weight[3, 0] = math.nan
        with pytest.raises(UserError, match="not finite"):
            evaluate(model, IdStore(8), interactions, Split.TEST, one_process)
        assert model.training


class TestPopularity:
    @sizes
    def test_scores_are_counts_of_training_clicks(self, n_items: int) -> None:
        sequences, interactions = random_domain(n_items)
        counts = Counter(item for sequence in sequences for item in sequence[:-2])
        scores = popularity_scores(interactions)
        assert scores.dtype == np.float32
        assert scores.tolist() == [counts[item] for item in range(1, n_items + 1)]

    @both_splits
    @sizes
    def test_metrics(
        self, monkeypatch: pytest.MonkeyPatch, one_process: Process, split: Split, n_items: int
    ) -> None:
        monkeypatch.setattr(evaluation, "_SCORES_AT_ONCE", 11 * n_items)
        sequences, interactions = random_domain(n_items)
        counts = Counter(item for sequence in sequences for item in sequence[:-2])
        scores = [counts[item] for item in range(1, n_items + 1)]
        ranks = [plain_rank(scores, *history_and_target(sequence, split)) for sequence in sequences]
        found = evaluate_popularity(interactions, split, one_process)
        assert found == {name: pytest.approx(value) for name, value in plain_metrics(ranks).items()}
