"""Ranking and its metrics, against plain loops over users and items."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import interactions_of, random_sequences
from test_losses import in_threads
from torch import Tensor, nn

from adapter4rec.checkpoints.settings import WITHOUT_MODEL
from adapter4rec.data.content import IdStore, ItemIds
from adapter4rec.data.domain import Domain
from adapter4rec.data.interactions import Interactions
from adapter4rec.evaluation import baselines, catalogue, ranking
from adapter4rec.evaluation import leave_one_out as evaluation
from adapter4rec.evaluation.baselines import BASELINES, by_scores, item_knn, popularity
from adapter4rec.evaluation.catalogue import (
    Embeddings,
    encode_catalogue,
    evaluating,
)
from adapter4rec.evaluation.leave_one_out import (
    Split,
    by_vectors,
    eval_batch,
    rank,
    rank_users,
)
from adapter4rec.evaluation.metrics import metrics_of
from adapter4rec.evaluation.ranking import MISSED, EvalBatch, best_items, rank_targets
from adapter4rec.evaluation.settings import RankingSettings
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process

MAX_SEQ_LEN = 4
both_splits = pytest.mark.parametrize("split", list(Split))
sizes = pytest.mark.parametrize("n_items", [3, 8, 40])


def random_domain(n_items: int, users: int = 60) -> tuple[list[list[int]], Interactions]:
    sequences = random_sequences(np.random.default_rng(n_items), users, n_items, MAX_SEQ_LEN)
    return sequences, interactions_of(sequences, n_items, MAX_SEQ_LEN)


def domain_of(interactions: Interactions) -> Domain:
    return Domain("made for a test", interactions, IdStore(), "")


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
        "MRR": 100 * sum(1 / rank for rank in ranks if rank != MISSED) / len(ranks),
    }


class OneOfMany(Process):
    """A process that hears nothing of the others: its part of each sum is left as it is."""

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def all_gather(self, array: np.ndarray) -> np.ndarray:
        return array


def processes(count: int) -> list[Process]:
    return [OneOfMany(rank, count, torch.device("cpu")) for rank in range(count)]


class TestQuestions:
    @both_splits
    def test_against_plain_python(self, split: Split) -> None:
        sequences, interactions = random_domain(8)
        users = np.arange(7, 40)
        found = eval_batch(interactions, split, users)
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
        found = eval_batch(interactions_of([[1, 2, 3, 4, 5, 6, 7]], 9, 4), Split.TEST, np.array([0]))
        assert found.inputs.tolist() == [[3, 4, 5, 6]]
        assert found.masked_items.tolist() == [1, 2, 3, 4, 5, 6]


def test_history_stays_among_the_candidates() -> None:
    interactions = interactions_of([[1, 2, 3, 4, 5, 6, 2]], 9, 4)
    scores = torch.tensor([[9.0, 5, 8, 1, 1, 1, 7, 1, 1]])

    def rank_of(*, exclude_history: bool) -> int:
        found = eval_batch(interactions, Split.TEST, np.array([0]), exclude_history=exclude_history)
        return int(ranked(scores, found)[0])

    assert rank_of(exclude_history=False) == 4  # items 1, 3 and 7 have higher scores
    assert rank_of(exclude_history=True) == MISSED  # item 2 is in the history


def ranked(scores: Tensor, question: EvalBatch) -> np.ndarray:
    """Ranks by any table of scores ``[users, N]``: each user's vector picks a row of the table."""
    table = torch.cat([torch.zeros(1, len(scores)), scores.T.float()])
    return rank_targets(torch.eye(len(scores)), Embeddings(table), question)


@pytest.fixture(params=[(4096, 512), (64, 32), (16, 16)], ids=str)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of scores of several sizes."""
    items_at_once, users_at_once = request.param
    monkeypatch.setattr(ranking, "_ITEMS_AT_ONCE", items_at_once)
    monkeypatch.setattr(ranking, "_USERS_AT_ONCE", {"cpu": users_at_once})


@pytest.mark.usefixtures("blocks")
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
        assert ranked(scores, eval_batch(interactions, split, np.arange(len(sequences)))).tolist() == expected

    @both_splits
    def test_equal_embeddings_tie_wherever_they_stand(self, split: Split) -> None:
        """Scores are real numbers here: those of equal items must come out equal in all blocks."""
        _, interactions = random_domain(40)
        question = eval_batch(interactions, split, np.arange(interactions.n_users))
        torch.manual_seed(0)
        users, few = torch.randn(interactions.n_users, 64), torch.randn(4, 64)
        which = torch.arange(41) % 4
        ranks = rank_targets(users, Embeddings(few[which]), question)
        scores = (users.double() @ few.double().T)[:, which]
        for user, found in enumerate(ranks):
            mine = question.masked_users == user
            masked = {0, *question.masked_items[mine].tolist()}
            target = question.targets[user]
            if target in masked:
                assert found == MISSED
                continue
            others = [item for item in range(1, 41) if item not in masked and item != target]
            assert found == 1 + sum(bool(scores[user, item] >= scores[user, target]) for item in others)

    def question(self, target: int, masked: list[int]) -> EvalBatch:
        return EvalBatch(
            np.zeros((1, 1), np.int64),
            np.array([target]),
            np.zeros(len(masked), np.int64),
            np.array(masked, np.int64),
        )

    def test_ties_count_against_the_target(self) -> None:
        scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 4.0]])
        assert ranked(scores, self.question(3, [])).tolist() == [4]

    def test_what_is_masked_is_no_candidate(self) -> None:
        scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 4.0]])
        assert ranked(scores, self.question(3, [5, 2, 5])).tolist() == [2]

    def test_a_masked_target_is_a_miss_in_a_small_catalogue_too(self) -> None:
        ranks = ranked(torch.tensor([[9.0, 1.0, 2.0]]), self.question(1, [1, 2]))
        assert ranks.tolist() == [MISSED]
        assert metrics_of(ranks) == {"HR@10": 0.0, "NDCG@10": 0.0, "MRR": 0.0}

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("item", [1, 2, 3])
    def test_a_score_that_is_not_finite_stops_even_where_it_is_masked(self, value: float, item: int) -> None:
        scores = torch.tensor([[1.0, 2.0, 3.0]])
        scores[0, item - 1] = value
        with pytest.raises(UserError, match="non-finite"):
            ranked(scores, self.question(2, [3]))

    def test_a_score_that_overflows_stops(self) -> None:
        table = torch.tensor([[0.0, 0.0], [3e38, 3e38], [1.0, 0.0], [0.0, 1.0]])
        with pytest.raises(UserError, match="non-finite"):
            rank_targets(torch.ones(1, 2), Embeddings(table), self.question(2, []))
        large = torch.tensor([[0.0, 0.0], [3e38, 0.0], [1.0, 0.0], [0.0, 1.0]])
        assert rank_targets(torch.ones(1, 2), Embeddings(large), self.question(2, [])).tolist() == [3]

    def test_the_best_items_of_each_user(self) -> None:
        torch.manual_seed(0)
        scores = torch.randn(7, 20)
        table = Embeddings(torch.cat([torch.zeros(1, 7), scores.T]))
        excluded = [np.arange(1, 2 + user) for user in range(7)]
        numbers, values = best_items(torch.eye(7), table, excluded, 5)
        for user in range(7):
            allowed = scores[user].clone()
            allowed[excluded[user] - 1] = -torch.inf
            best = allowed.topk(5)
            assert numbers[user].tolist() == (best.indices + 1).tolist()
            assert torch.equal(torch.from_numpy(values[user]), best.values)
        everything, _ = best_items(torch.eye(7), table, excluded, 100)
        assert sorted(everything[3].tolist()) == list(range(1, 21))


def integer_vectors(inputs: np.ndarray) -> Tensor:
    """Vectors of few whole numbers that depend on a user's inputs alone: their scores have many ties."""
    weights = torch.randint(-1, 2, (MAX_SEQ_LEN, 41, 3), generator=torch.Generator().manual_seed(2))
    weights[:, 0] = 0
    return weights[torch.arange(MAX_SEQ_LEN), torch.from_numpy(inputs)].sum(1).float()


class TestChunks:
    @both_splits
    @sizes
    def test_neither_chunks_nor_processes_change_anything(
        self,
        monkeypatch: pytest.MonkeyPatch,
        one_process: Process,
        split: Split,
        n_items: int,
    ) -> None:
        sequences, interactions = random_domain(n_items)
        table = torch.randint(-1, 2, (n_items + 1, 3), generator=torch.Generator().manual_seed(3)).float()
        in_memory = Embeddings(table)
        inputs = eval_batch(interactions, split, np.arange(len(sequences))).inputs
        scores = integer_vectors(inputs) @ table[1:].T
        expected = [
            plain_rank(row.tolist(), *history_and_target(sequence, split))
            for row, sequence in zip(scores, sequences, strict=True)
        ]
        for users_at_once in (1, 7, 60, 8192):
            monkeypatch.setattr(evaluation, "USERS_AT_ONCE", users_at_once)
            asked = []

            def vectors(question: EvalBatch, asked: list[int] = asked) -> Tensor:
                asked.append(len(question.targets))
                return integer_vectors(question.inputs)

            found = rank_users(by_vectors(vectors, in_memory), interactions, split, one_process).ranks
            assert found.tolist() == expected
            assert sum(asked) == len(sequences)
            assert max(asked) == min(users_at_once, len(sequences))
            parts = np.stack(
                [
                    rank_users(by_vectors(vectors, in_memory), interactions, split, process).ranks
                    for process in processes(3)
                ]
            )
            assert ((parts > 0).sum(0) == 1).all(), "each user is ranked by exactly one process"
            assert parts.sum(0).tolist() == expected


class CostlyStore(IdStore):
    """Items of different costs; remembers what was fetched."""

    def __init__(self, costs: np.ndarray) -> None:
        self._costs = costs
        self.fetched: list[list[int]] = []

    def costs(self, items: np.ndarray) -> np.ndarray:
        return self._costs[items - 1]

    def fetch(self, items: np.ndarray) -> ItemIds:
        self.fetched.append(items.tolist())
        return super().fetch(items)


class TestCatalogue:
    TABLE = torch.randn(11, 3, generator=torch.Generator().manual_seed(3))
    COSTS = np.array([5, 1, 4, 1, 5, 9, 2, 6, 5, 3])

    def encode(self, content: ItemIds) -> Tensor:
        return self.TABLE[content.ids]

    def encoded(
        self, store: CostlyStore, process: Process, settings: RankingSettings | None = None
    ) -> Embeddings:
        model = SimpleNamespace(
            item_encoder=nn.Identity(), user_encoder=SimpleNamespace(width=3), encode_items=self.encode
        )
        return encode_catalogue(model, store, 10, process, settings or RankingSettings())

    @pytest.mark.parametrize(
        ("at_once", "group_sizes"), [(3, [3, 3, 3, 1]), (5, [5, 5]), (10, [10]), (512, [10])]
    )
    def test_groups(
        self, monkeypatch: pytest.MonkeyPatch, one_process: Process, at_once: int, group_sizes: list[int]
    ) -> None:
        monkeypatch.setattr(catalogue, "_ITEMS_AT_ONCE", at_once)
        store = CostlyStore(self.COSTS)
        rows = self.encoded(store, one_process).rows
        assert rows.dtype == torch.float32
        assert torch.equal(rows[1:], self.TABLE[1:])
        assert not rows[0].any()
        assert [len(items) for items in store.fetched] == group_sizes
        in_order = [item for items in store.fetched for item in items]
        assert [self.COSTS[item - 1] for item in in_order] == sorted(self.COSTS)

    @pytest.mark.parametrize(
        ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)], ids=["fp32", "bf16"]
    )
    def test_items_are_encoded_in_the_format_that_is_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, one_process: Process, name: str, dtype: torch.dtype
    ) -> None:
        table, square = self.TABLE, torch.eye(3)
        seen = []

        def encode(_: TestCatalogue, content: ItemIds) -> Tensor:
            seen.append((table[content.ids] @ square).dtype)
            return table[content.ids]

        monkeypatch.setattr(TestCatalogue, "encode", encode)
        self.encoded(CostlyStore(self.COSTS), one_process, RankingSettings(evaluation_precision=name))
        assert set(seen) == {dtype}

    @pytest.mark.parametrize("count", [2, 3, 6])
    def test_processes_share_the_groups_of_the_catalogue(
        self, monkeypatch: pytest.MonkeyPatch, one_process: Process, count: int
    ) -> None:
        monkeypatch.setattr(catalogue, "_ITEMS_AT_ONCE", 3)
        alone = CostlyStore(self.COSTS)
        self.encoded(alone, one_process)
        store = CostlyStore(self.COSTS)
        parts = [self.encoded(store, process).rows for process in processes(count)]
        assert torch.equal(sum(parts)[1:], self.TABLE[1:])
        assert sorted(store.fetched) == sorted(alone.fetched)

    def test_worker_processes_change_nothing(
        self, monkeypatch: pytest.MonkeyPatch, one_process: Process
    ) -> None:
        monkeypatch.setattr(catalogue, "_ITEMS_AT_ONCE", 3)
        found = self.encoded(CostlyStore(self.COSTS), one_process, RankingSettings(workers=2))
        assert torch.equal(found.rows[1:], self.TABLE[1:])
        assert torch.equal(found.of(np.array([[0, 4], [9, 1]]))[1], self.TABLE[[9, 1]])
        assert not found.of(np.array([0])).any()


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
    user_encoder = TransformerUserEncoder(8, MAX_SEQ_LEN, heads=2, blocks=2, dropout=0.5)
    return TransRec(IdItemEncoder(n_items, 8), user_encoder, "sasrec")


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

        monkeypatch.setattr(catalogue, "_ITEMS_AT_ONCE", 7)
        monkeypatch.setattr(evaluation, "_USERS_ENCODED_AT_ONCE", 9)
        model.train(training)
        found = rank(model, domain_of(interactions), split, one_process, RankingSettings()).metrics()
        assert found == {name: pytest.approx(value) for name, value in plain_metrics(ranks).items()}
        assert all(module.training is training for module in model.modules())

    def test_several_processes_find_the_ranking_of_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalogue, "_ITEMS_AT_ONCE", 7)
        monkeypatch.setattr(evaluation, "USERS_AT_ONCE", 9)
        domain, model = domain_of(random_domain(40)[1]), random_model(40).eval()

        def metrics(process: Process) -> dict[str, float]:
            return rank(model, domain, Split.TEST, process, RankingSettings(), (1, 10)).metrics((1, 10))

        (alone,) = in_threads(1, metrics).values()
        assert 0 < alone["coverage@1"] < 100
        assert in_threads(3, metrics) == dict.fromkeys(range(3), alone)

    def test_the_splits_differ(self, one_process: Process) -> None:
        _, interactions = random_domain(40)
        model = random_model(40)
        domain = domain_of(interactions)
        validation, test = (
            rank(model, domain, split, one_process, RankingSettings()).metrics() for split in Split
        )
        assert validation != test

    def test_broken_weights_stop_it_and_the_mode_is_put_back(self, one_process: Process) -> None:
        _, interactions = random_domain(8)
        model = random_model(8).train()
        with torch.no_grad():
            model.item_encoder.head.weight[3, 0] = math.nan
        with pytest.raises(UserError, match="non-finite"):
            rank(model, domain_of(interactions), Split.TEST, one_process, RankingSettings())
        assert model.training


class TestBaselines:
    def test_each_is_a_method(self) -> None:
        assert set(BASELINES) == set(WITHOUT_MODEL)

    @sizes
    def test_scores_are_counts_of_training_clicks(self, n_items: int) -> None:
        sequences, interactions = random_domain(n_items)
        counts = Counter(item for sequence in sequences for item in sequence[:-2])
        scores = interactions.training_clicks()
        assert scores.tolist() == [counts[item] for item in range(1, n_items + 1)]

    @both_splits
    @sizes
    def test_metrics(self, one_process: Process, split: Split, n_items: int) -> None:
        sequences, interactions = random_domain(n_items)
        counts = Counter(item for sequence in sequences for item in sequence[:-2])
        scores = [counts[item] for item in range(1, n_items + 1)]
        ranks = [plain_rank(scores, *history_and_target(sequence, split)) for sequence in sequences]
        found = rank_users(popularity(interactions), interactions, split, one_process).metrics()
        assert found == {name: pytest.approx(value) for name, value in plain_metrics(ranks).items()}

    @pytest.mark.parametrize("exclude", [True, False])
    @both_splits
    @sizes
    def test_neighbours_against_a_double_loop(
        self,
        one_process: Process,
        monkeypatch: pytest.MonkeyPatch,
        split: Split,
        n_items: int,
        *,
        exclude: bool,
    ) -> None:
        monkeypatch.setattr(baselines, "_SCORES_AT_ONCE", 7 * n_items)
        sequences, interactions = random_domain(n_items)
        users = np.arange(0, len(sequences), 2)
        trained = [sequences[user][:-2] for user in users]
        popular = Counter(item for sequence in trained for item in sequence)
        clicked = {
            item: {user for user, one in enumerate(trained) if item in one} for item in range(n_items + 1)
        }
        ranks = []
        for sequence in sequences:
            history, target = history_and_target(sequence, split)
            scores = [
                sum(
                    len(clicked[item] & clicked[other]) / math.sqrt(max(1, len(clicked[other])))
                    for other in history[-MAX_SEQ_LEN:]
                    if other != item
                )
                for item in range(1, n_items + 1)
            ]
            pairs = [(round(score, 6), popular[item]) for item, score in enumerate(scores, 1)]
            ranks.append(plain_rank(pairs, history if exclude else [], target))
        ranker = item_knn(interactions, users)
        found = rank_users(ranker, interactions, split, one_process, exclude_history=exclude)
        assert found.ranks.tolist() == ranks

    @pytest.mark.parametrize("exclude_history", [True, False])
    def test_scores_are_ranked_like_vectors(self, one_process: Process, *, exclude_history: bool) -> None:
        _, interactions = random_domain(40, users=600)
        scores = np.random.default_rng(0).permutation(40).astype(np.float32)
        table = Embeddings(torch.from_numpy(np.append(np.float32(0), scores))[:, None])
        of_vectors = by_vectors(lambda batch: torch.ones(len(batch.targets), 1), table)
        of_scores = by_scores(lambda inputs: np.tile(scores, (len(inputs), 1)), 40)
        found, same = (
            rank_users(
                one, interactions, Split.TEST, one_process, (1, 3, 99), exclude_history=exclude_history
            )
            for one in (of_scores, of_vectors)
        )
        assert found.ranks.tolist() == same.ranks.tolist()
        assert found.shown == same.shown
