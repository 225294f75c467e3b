"""Timestamps in ``users.tsv``, and a split at a global cut in time, against a plain double loop."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_domain
from trees import TextSourceSettings, TextTargetSettings, carry_out

import adapter4rec
from adapter4rec.data import lines
from adapter4rec.data.batches import Sampling, TrainingSet
from adapter4rec.data.content import IdStore
from adapter4rec.data.interactions import Interactions, read_interactions, read_items
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.leave_one_out import Split, by_vectors, eval_batch, rank_users, ranked_users
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process

ITEMS = {f"i{number}": f"house {number}" for number in range(12)}
Timed = dict[str, list[tuple[str, int]]]


def write_timed(folder: Path, users: Timed) -> tuple[Path, Path]:
    clicks = {name: [item for item, _ in history] for name, history in users.items()}
    users_path, items_path = write_domain(folder, clicks, ITEMS)
    rows = users_path.read_text("utf-8").splitlines()
    times = (" ".join(str(time) for _, time in history) for history in users.values())
    both = zip(rows, times, strict=True)
    users_path.write_text("".join(f"{row}\t{time}\n" for row, time in both), encoding="utf-8")
    return users_path, items_path


def random_users(seed: int, count: int = 60) -> Timed:
    """Users of whom some are active only before, within or after the windows; many equal times."""
    chance = np.random.default_rng(seed)
    users = {}
    for user in range(count):
        length, first = int(chance.integers(2, 14)), int(chance.integers(0, 80))
        times = np.sort(chance.integers(first, first + int(chance.integers(1, 60)), length)) + 1
        items = chance.integers(0, len(ITEMS), length)
        users[f"u{user}"] = [(f"i{i}", int(time)) for i, time in zip(items, times, strict=True)]
    return users


def read(paths: tuple[Path, Path], cut: tuple[float, float] | None, max_seq_len: int = 4) -> Interactions:
    table = read_items(paths[1])
    return read_interactions(paths[0], table, min_seq_len=4, max_seq_len=max_seq_len, cut=cut)


def plain_split(users: Timed, cut: tuple[float, float], max_seq_len: int) -> dict[str, dict[str, list[str]]]:
    """Training sequence, and history and target of validation and test, one click after the other."""
    kept = {name: history for name, history in users.items() if len(history) >= 4}
    times = sorted(time for history in kept.values() for _, time in history)
    starts = [times[int(at * len(times))] if at < 1 else at for at in cut]
    found = {}
    for name, history in kept.items():
        training, before_test, validation, test = [], [], [], []
        for item, time in history:
            if time >= starts[1]:
                if before_test:
                    test = [*before_test, item]
                break
            if time >= starts[0]:
                if training and before_test == training:
                    validation = [*before_test, item]
            else:
                training.append(item)
            before_test.append(item)
        dropped = max(0, len(training) - (max_seq_len + 1))
        parts = {"training": training, "validation": validation, "test": test}
        found[name] = {part: clicks[dropped:] for part, clicks in parts.items()}
    return found


class TestTimestamps:
    @pytest.mark.parametrize("at_once", [1, 7, 50_000])
    def test_they_are_kept_beside_the_clicks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        monkeypatch.setattr(lines, "_BLOCK", at_once)
        users = random_users(0)
        found = read(write_timed(tmp_path / "timed", users), None)
        clicks = {name: [item for item, _ in history] for name, history in users.items()}
        plain = read(write_domain(tmp_path / "plain", clicks, ITEMS), None)
        assert plain.timestamps is None
        assert found.identity == plain.identity
        assert found.clicks.tolist() == plain.clicks.tolist()
        expected = [time for history in users.values() if len(history) >= 4 for _, time in history[-7:]]
        assert found.timestamps is not None
        assert found.timestamps.tolist() == expected

    def test_clicks_that_are_left_out_lose_theirs(self, tmp_path: Path) -> None:
        users, items = write_timed(tmp_path, {"a": [(f"i{i % 3}", i + 1) for i in range(9)]})
        found = read_interactions(users, read_items(items), min_seq_len=4, max_seq_len=20, without={b"i1"})
        assert found.timestamps is not None
        assert found.timestamps.tolist() == [1, 3, 4, 6, 7, 9]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("b\ti1 i2 i3 i1\t1 2 3", "4 clicks, but 3 timestamps"),
            ("b\ti1 i2 i3 i1\t1 2 3 4 5", "4 clicks, but 5 timestamps"),
            ("b\ti1 i2 i3 i1\t", "4 clicks, but 0 timestamps"),
            ("b\ti1 i2 i3 i1\t1 2 3.5 4", "the timestamp '3.5' .* is not an integer"),
            ("b\ti1 i2 i3 i1\t1 2 x 4", "the timestamp 'x' .* is not an integer"),
            (f"b\ti1 i2 i3 i1\t1 2 3 {2**63}", f"the timestamp '{2**63}' .* is not an integer"),
            ("b\ti1 i2 i3 i1\t1 3 2 4", "the timestamp 2 follows 3; .*must not decrease"),
            ("b\ti1 i2 i3 i1", "found 2 columns"),
            ("b\ti1 i2 i3 i1\t1 2 3 4\t5", "found 4 columns"),
        ],
    )
    @pytest.mark.parametrize("at_once", [1, 50_000])
    def test_wrong_ones_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, words: str, at_once: int
    ) -> None:
        monkeypatch.setattr(lines, "_BLOCK", at_once)
        _, items = write_domain(tmp_path, {}, ITEMS)
        users = tmp_path / "users.tsv"
        users.write_text(f"a\ti1 i2 i3 i1\t7 7 8 9\n{line}\nc\ti1 i2 i3 i1\t1 2 3 4\n", encoding="utf-8")
        with pytest.raises(UserError, match=f"{users}:2: .*{words}"):
            read((users, items), None)


@pytest.mark.parametrize("cut", [(0.8, 0.9), (0.5, 0.7), (40, 70), (0.6, 90.0)])
@pytest.mark.parametrize("max_seq_len", [2, 4, 20])
class TestAgainstADoubleLoop:
    def both(
        self, tmp_path: Path, cut: tuple[float, float], max_seq_len: int
    ) -> tuple[Interactions, dict[str, dict[str, list[int]]]]:
        users = random_users(3)
        found = read(write_timed(tmp_path, users), cut, max_seq_len)
        number = {name: at for at, name in enumerate(found.item_names, 1)}
        plain = plain_split(users, cut, max_seq_len)
        in_numbers = {
            name: {part: [number[item] for item in clicks] for part, clicks in parts.items()}
            for name, parts in plain.items()
        }
        assert found.user_names == list(plain)
        return found, in_numbers

    def test_training(self, tmp_path: Path, cut: tuple[float, float], max_seq_len: int) -> None:
        found, plain = self.both(tmp_path, cut, max_seq_len)
        width = max_seq_len + 1
        users = np.arange(found.n_users)
        sequences = found.padded(users, found.split.train_stops, width)
        expected = [parts["training"] for parts in plain.values()]
        assert [[item for item in row if item] for row in sequences.tolist()] == expected
        trainable = [user for user, training in enumerate(expected) if len(training) >= 2]
        assert found.trainable_users().tolist() == trainable
        assert len(trainable) < found.n_users
        examples = TrainingSet(found, IdStore(), batch_size=7, seed=1, sampling=Sampling(per_target=1))
        rows = np.concatenate([examples.ids(1, step).positives for step in range(examples.steps)])
        assert sorted(map(tuple, rows)) == sorted(map(tuple, sequences[trainable]))
        counts = Counter(item for training in expected if len(training) >= 2 for item in training)
        assert found.training_clicks().tolist() == [counts[i] for i in range(1, found.n_items + 1)]

    @pytest.mark.parametrize("split", list(Split))
    def test_targets_and_ranks(
        self, tmp_path: Path, cut: tuple[float, float], max_seq_len: int, split: Split, one_process: Process
    ) -> None:
        found, plain = self.both(tmp_path, cut, max_seq_len)
        expected = {name: parts[split.value] for name, parts in plain.items() if parts[split.value]}
        users = found.split.ranked(split.value)
        assert [found.user_names[user] for user in users] == list(expected)
        assert 0 < len(users) < found.n_users
        batch = eval_batch(found, split, users)
        assert batch.targets.tolist() == [clicks[-1] for clicks in expected.values()]
        masked = [batch.masked_items[batch.masked_users == row].tolist() for row in range(len(users))]
        assert masked == [clicks[:-1] for clicks in expected.values()]
        inputs = [[item for item in row if item] for row in batch.inputs.tolist()]
        assert inputs == [clicks[:-1][-max_seq_len:] for clicks in expected.values()]

        scores = np.random.default_rng(0).permutation(found.n_items).astype(np.float32)
        catalogue = Embeddings(torch.from_numpy(np.concatenate([[0], scores]).astype(np.float32))[:, None])
        ranking = rank_users(
            by_vectors(lambda batch: torch.ones(len(batch.targets), 1), catalogue), found, split, one_process
        )
        ranks = []
        for clicks in expected.values():
            *history, target = clicks
            rank = 1
            for item in range(1, found.n_items + 1):
                if item not in history and item != target and scores[item - 1] >= scores[target - 1]:
                    rank += 1
            ranks.append(np.iinfo(np.int32).max if target in history else rank)
        assert ranking.ranks.tolist() == ranks
        if split is Split.TEST:
            table = ranked_users(found, ranking.ranks)
            assert list(table.users) == list(expected)
            assert table.targets == [found.item_names[clicks[-1] - 1] for clicks in expected.values()]
            lengths = [min(len(clicks) - 1, max_seq_len) for clicks in expected.values()]
            assert table.history.tolist() == lengths


class TestRefused:
    def test_without_timestamps(self, tmp_path: Path) -> None:
        paths = write_domain(tmp_path, {"a": ["i1", "i2", "i3", "i1"]}, ITEMS)
        with pytest.raises(UserError, match=r"--split time: .*users\.tsv has no timestamps; add a third"):
            read(paths, (0.8, 0.9))

    @pytest.mark.parametrize(
        ("cut", "words"),
        [
            ((0.9, 0.8), "test must start after validation"),
            ((50, 50), "test must start after validation"),
            ((1, 50), "no user has two clicks before validation"),
            ((1000, 2000), "no user has a validation target"),
            ((50, 2000), "no user has a test target"),
        ],
    )
    def test_times_without_data(self, tmp_path: Path, cut: tuple[float, float], words: str) -> None:
        with pytest.raises(UserError, match=words):
            read(write_timed(tmp_path, random_users(0)), cut)


def test_the_cut_is_part_of_the_identity(tmp_path: Path) -> None:
    paths = write_timed(tmp_path, random_users(0))
    identities = [read(paths, cut).identity for cut in (None, (0.8, 0.9), (0.7, 0.9), (0.8, 0.95))]
    assert len(set(identities)) == 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_bert_folder: Path) -> Path:
    """Runs with a cut in time: a source model, and popularity."""
    folder = tmp_path_factory.mktemp("time")
    users, items = write_timed(folder, random_users(5))
    common = {"users": users, "items": items, "backbone": str(tiny_bert_folder), "device": "cpu", "seed": 1}
    common |= {"cache_folder": folder / "cache", "max_seq_len": 4, "embedding_dim": 8, "epochs": 2}
    common |= {"split": "time", "validation_from": 0.6, "test_from": 0.8, "min_seq_len": 4, "batch_size": 8}
    values = common | {"method": "head", "run_folder": folder / "head", "user_share": 0.5}
    carry_out(TextSourceSettings.from_values(values))
    carry_out(
        TextTargetSettings.from_values(common | {"method": "popularity", "run_folder": folder / "popularity"})
    )
    return folder


class TestRuns:
    def interactions(self, runs: Path) -> Interactions:
        return read((runs / "users.tsv", runs / "items.tsv"), (0.6, 0.8))

    @pytest.mark.parametrize("name", ["head", "popularity"])
    def test_results_and_ledger(self, runs: Path, name: str) -> None:
        with gzip.open(runs / name / "test_ranks.csv.gz", "rt", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = self.interactions(runs)
        tested = [found.user_names[user] for user in found.split.ranked("test")]
        assert [row["user"] for row in rows] == tested
        result = json.loads((runs / name / "result.json").read_text("utf-8"))
        hits = [int(row["rank"]) <= 10 for row in rows]
        assert result["test"]["HR@10"] == pytest.approx(100 * sum(hits) / len(hits))
        records = [json.loads(line) for line in (runs / "ledger.jsonl").read_text("utf-8").splitlines()]
        record = next(one for one in records if one["name"] == name)
        assert record["identity"]["split"] == "time"
        assert record["identity"]["test_from"] == 0.8
        assert "validation from" in (runs / name / "log.txt").read_text("utf-8")

    def test_recommendations_and_vectors(self, runs: Path, tmp_path: Path) -> None:
        model = adapter4rec.load(runs / "head", device="cpu")
        found = self.interactions(runs)
        assert model.interactions.identity == found.identity
        assert len(model.recommend(model.clicks_of(found.user_names[0]), top_k=2)) == 2
        for split in ("validation", "test", "all"):
            assert model.user_vectors(split).shape == (found.n_users, 8)
        model.export(tmp_path / "vectors.safetensors")
        tested = found.split.ranked("test")
        batch = eval_batch(found, Split.TEST, tested)
        expected = model.vectors_of([row[row > 0] for row in batch.inputs])
        assert torch.equal(model.user_vectors("test")[tested], expected.cpu())

    def test_a_run_without_timestamps_is_refused(self, tmp_path: Path) -> None:
        users, items = write_domain(tmp_path, {"a": ["i1", "i2", "i3", "i1", "i2"]}, ITEMS)
        values = {"users": users, "items": items, "method": "popularity", "split": "time", "device": "cpu"}
        with pytest.raises(UserError, match="has no timestamps"):
            carry_out(TextTargetSettings.from_values(values | {"run_folder": tmp_path / "run"}))
