"""Metrics against torchmetrics, groups of users, and the file of ranks."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from adapter4rec.data.batches import sample_users
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.leave_one_out import (
    Split,
    by_vectors,
    eval_batch,
    rank_users,
    ranked_users,
)
from adapter4rec.evaluation.metrics import RankedUsers, metrics_of
from adapter4rec.evaluation.ranking import MISSED, rank_targets
from tests.test_evaluation import random_domain


class TestAgainstAnotherLibrary:
    """Torchmetrics sorts the scores of all candidates; the project counts those that are better."""

    @pytest.mark.parametrize("k", [1, 5, 10, 20])
    def test_the_same_figures_from_scores(self, k: int) -> None:
        _, interactions = random_domain(40)
        question = eval_batch(interactions, Split.TEST, np.arange(interactions.n_users))
        torch.manual_seed(0)
        users, items = torch.randn(interactions.n_users, 8), torch.randn(41, 8)
        found = metrics_of(rank_targets(users, Embeddings(items), question), [k])

        scores = (users @ items[1:].T).double().exp()  # torchmetrics finds nothing with a score below 0
        masked = np.zeros(scores.shape, bool)
        masked[question.masked_users, question.masked_items - 1] = True
        scores[torch.from_numpy(masked)] = 0
        relevant = torch.zeros(scores.shape, dtype=torch.bool)
        rows = np.arange(len(scores))
        relevant[rows, question.targets - 1] = True
        relevant[torch.from_numpy(masked)] = False  # a masked target is never found
        of_user = torch.arange(len(scores))[:, None].expand(scores.shape)
        flat = (scores.flatten(), relevant.flatten(), of_user.flatten())
        expected = {
            f"HR@{k}": RetrievalHitRate(top_k=k),
            f"NDCG@{k}": RetrievalNormalizedDCG(top_k=k),
            "MRR": RetrievalMRR(),
        }
        assert masked[rows, question.targets - 1].any()  # so that misses are compared, too
        for name, metric in expected.items():
            assert found[name] == pytest.approx(100 * metric(*flat[:2], indexes=flat[2]).item(), abs=1e-4)


class TestMetrics:
    def test_formula(self) -> None:
        found = metrics_of(np.array([1, 2, 10, 11, MISSED]))
        assert found["HR@10"] == pytest.approx(60)
        assert found["NDCG@10"] == pytest.approx(100 * (1 + 1 / math.log2(3) + 1 / math.log2(11)) / 5)
        assert found["MRR"] == pytest.approx(100 * (1 + 1 / 2 + 1 / 10 + 1 / 11) / 5)

    def test_several_lengths(self) -> None:
        found = metrics_of(np.array([1, 2, 4]), ks=[2, 4])
        assert list(found) == ["HR@2", "NDCG@2", "HR@4", "NDCG@4", "MRR"]
        assert found["HR@2"] == pytest.approx(200 / 3)
        assert found["HR@4"] == pytest.approx(100)


class TestCoverage:
    @pytest.mark.parametrize("users_at_once", [7, 1024])
    def test_items_in_the_lists_of_all_users(self, monkeypatch, one_process, users_at_once: int) -> None:
        monkeypatch.setattr("adapter4rec.evaluation.leave_one_out._USERS_LISTED_AT_ONCE", users_at_once)
        monkeypatch.setattr("adapter4rec.evaluation.leave_one_out.USERS_AT_ONCE", 23)
        sequences, interactions = random_domain(40)
        torch.manual_seed(1)
        table = torch.randn(41, 3)
        vectors = torch.randn(interactions.n_users, 3)
        done = iter(range(0, interactions.n_users, 23))

        def some(question):
            first = next(done)
            return vectors[first : first + len(question.targets)]

        ranker = by_vectors(some, Embeddings(table))
        ranking = rank_users(ranker, interactions, Split.TEST, one_process, (1, 3))
        shown = {1: set(), 3: set()}
        for sequence, user in zip(sequences, vectors, strict=True):
            scores = dict(enumerate((table[1:] @ user).tolist(), 1))
            order = sorted(set(scores) - set(sequence[:-1]), key=scores.get, reverse=True)
            for k, items in shown.items():
                items |= set(order[:k])
        assert ranking.shown == {k: len(items) for k, items in shown.items()}
        assert ranking.metrics([3])["coverage@3"] == pytest.approx(100 * len(shown[3]) / 40)


def some_users(ranks: list[int], history: list[int], clicks: list[int]) -> RankedUsers:
    names = [f"u{number}" for number in range(len(ranks))]
    targets = [f"i{number}" for number in range(len(ranks))]
    return RankedUsers(names, np.array(history), targets, np.array(clicks), np.array(ranks))


class TestGroups:
    def test_by_history_and_popularity(self) -> None:
        users = some_users([1, 20, 1, 20, 1], [3, 4, 5, 9, 10], [0, 1, 4, 5, 20])
        groups = users.groups()
        sizes = [(one["group"], one["users"], one["HR@10"]) for one in groups["history length"]]
        assert sizes == [("up to 4", 2, 50.0), ("5 to 9", 2, 50.0), ("10 and more", 1, 100.0)]
        sizes = [(one["group"], one["users"], one["HR@10"]) for one in groups["target item"]]
        assert sizes == [("new", 1, 100.0), ("rare", 2, 50.0), ("middle", 1, 0.0), ("popular", 1, 100.0)]

    def test_empty_groups_are_left_out(self) -> None:
        assert [one["group"] for one in some_users([1], [3], [7]).groups()["target item"]] == ["middle"]

    def test_clicks_are_those_of_the_users_trained_on(self) -> None:
        sequences, interactions = random_domain(40)
        users = np.array([2, 5, 7])
        counts = np.zeros(41, int)
        for user in users:
            np.add.at(counts, sequences[user][:-2], 1)
        assert interactions.training_clicks(users).tolist() == counts[1:].tolist()
        found = ranked_users(interactions, np.ones(interactions.n_users, int), users)
        assert found.target_clicks.tolist() == [counts[sequence[-1]] for sequence in sequences]
        assert found.history.tolist() == [min(len(one) - 1, interactions.max_seq_len) for one in sequences]


class TestRanksFile:
    def test_pandas_reads_it_and_equal_ranks_are_equal_bytes(self, tmp_path: Path) -> None:
        users = some_users([1, MISSED], [3, 9], [0, 4])
        users.write(tmp_path / "ranks.csv.gz")
        table = pd.read_csv(tmp_path / "ranks.csv.gz")
        assert list(table.columns) == ["user", "history", "target", "target_clicks", "rank"]
        assert table["rank"].tolist() == [1, MISSED]
        assert metrics_of(table["rank"].to_numpy())["HR@10"] == 50
        again = tmp_path / "again" / "ranks.csv.gz"
        users.write(again)
        assert again.read_bytes() == (tmp_path / "ranks.csv.gz").read_bytes()


class TestShareOfUsers:
    def test_larger_shares_hold_smaller_ones(self) -> None:
        small, large = (set(sample_users(1000, share, seed=3).tolist()) for share in (0.1, 0.5))
        assert (len(small), len(large)) == (100, 500)
        assert small < large
        assert small != set(sample_users(1000, 0.1, seed=4).tolist())

    def test_at_least_one(self) -> None:
        assert len(sample_users(10, 0.01, seed=0)) == 1
