"""Training batches: padding, negatives, epochs, distinct items, and the shares of a step."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import interactions_of, random_sequences

from adapter4rec.data.batches import (
    Batch,
    IdBatch,
    Sampling,
    TrainingSet,
    draw_negatives,
    make_batch,
)
from adapter4rec.data.content import IdStore, ItemIds
from adapter4rec.data.interactions import Interactions
from adapter4rec.data.loader import load_ahead
from adapter4rec.models.registry import OBJECTIVES
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process

MAX_SEQ_LEN = 5
N_ITEMS = 30


class RecordingStore(IdStore):
    """Remembers what was fetched."""

    def __init__(self) -> None:
        self.fetched: list[list[int]] = []

    def fetch(self, items: np.ndarray) -> ItemIds:
        self.fetched.append(items.tolist())
        return super().fetch(items)


@pytest.fixture
def interactions() -> Interactions:
    return interactions_of(
        random_sequences(np.random.default_rng(5), 17, N_ITEMS, MAX_SEQ_LEN), N_ITEMS, MAX_SEQ_LEN
    )


def examples_of(
    interactions: Interactions,
    batch_size: int,
    seed: int,
    *,
    store: IdStore | None = None,
    objective: str = "sasrec",
    sampling: Sampling | None = None,
    share: tuple[int, int] = (0, 1),
    parts: int = 1,
) -> TrainingSet:
    """The training examples as the process ``share`` (rank, world size) sees them."""
    return TrainingSet(
        interactions,
        store or IdStore(),
        batch_size=batch_size,
        seed=seed,
        sampling=sampling or Sampling(OBJECTIVES[objective], per_target=1),
        process=Process(*share, torch.device("cpu")),
        accumulation_steps=parts,
    )


def sequences_of(interactions: Interactions) -> list[list[int]]:
    return [part.tolist() for part in np.split(interactions.clicks, interactions.offsets[1:-1])]


def padded(sequence: list[int], width: int) -> list[int]:
    return [0] * (width - len(sequence)) + sequence


def item_numbers(batch: Batch, places: torch.Tensor) -> np.ndarray:
    """The item numbers behind a batch's places."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), batch.items])[places].numpy()


def target_mask(batch: Batch) -> np.ndarray:
    """Bool ``[users, L]``, true where a batch has a target."""
    found = torch.zeros_like(batch.log_mask)
    found.view(-1)[batch.places] = True
    return found.numpy()


class TestLeftPadded:
    def test_last_clicks_with_padding_on_the_left(self) -> None:
        short = interactions_of([[9, 8, 1, 2], [7, 6, 5, 1, 2], [4, 3, 2, 1, 1]], 9, 4)
        found = short.padded(np.array([2, 0, 1]), short.offsets[[3, 1, 2]] - 2, 2)
        assert found.tolist() == [[3, 2], [9, 8], [6, 5]]
        assert found.dtype == np.int64
        assert short.padded(np.array([1, 0]), short.offsets[[2, 1]] - 2, 4).tolist() == [
            [0, 7, 6, 5],
            [0, 0, 9, 8],
        ]

    def test_against_plain_python(self, interactions: Interactions) -> None:
        users = np.random.default_rng(0).permutation(interactions.n_users)
        found = interactions.padded(users, interactions.split.train_stops[users], MAX_SEQ_LEN + 1)
        sequences = sequences_of(interactions)
        assert found.tolist() == [padded(sequences[user][:-2], MAX_SEQ_LEN + 1) for user in users]


class TestNegatives:
    def test_never_an_item_of_the_sequence_and_none_at_padding(self) -> None:
        chance = np.random.default_rng(1)
        sequences = random_sequences(chance, 400, 9, MAX_SEQ_LEN)
        positives = np.array([padded(sequence[:-2], MAX_SEQ_LEN + 1) for sequence in sequences])
        negatives = draw_negatives(positives, 9, 2, chance)
        assert negatives.shape == (400, MAX_SEQ_LEN, 2)
        for row, drawn in zip(positives, negatives, strict=True):
            for place, items in enumerate(drawn):
                if row[place] == 0:
                    assert not items.any()
                else:
                    assert set(items) <= set(range(1, 10)) - set(row)

    def test_uniform_over_the_other_items(self) -> None:
        n_items, allowed = 12, [1, 2, 3, 5, 6, 8, 9, 10, 12]
        positives = np.tile([0, 4, 7, 4, 11], (3_000, 1))
        negatives = draw_negatives(positives, n_items, 1, np.random.default_rng(2))[..., 0]
        for place in (1, 2, 3):
            counts = Counter(negatives[:, place].tolist())
            assert sorted(counts) == allowed
            expected = len(positives) / len(allowed)
            chi_square = sum((counts[item] - expected) ** 2 / expected for item in allowed)
            assert chi_square < 26.12  # 8 degrees of freedom, one in a thousand
        assert not negatives[:, 0].any()

    def test_the_one_item_left_is_found(self) -> None:
        negatives = draw_negatives(np.array([[1, 2, 4, 5]]), 5, 2, np.random.default_rng(0))
        assert negatives.tolist() == [[[3, 3]] * 3]

    def test_validation_and_test_targets_may_be_drawn(self) -> None:
        examples = examples_of(interactions_of([[1, 2, 3, 4, 5]], 5, 5), 1, seed=0)
        drawn = {item for epoch in range(1, 30) for item in examples.ids(epoch, 0).negatives.ravel().tolist()}
        assert drawn == {0, 4, 5}

    @pytest.mark.parametrize("max_seq_len", [3, 20])
    def test_a_user_who_clicked_on_all_items(self, max_seq_len: int) -> None:
        sequences = [[1, 2, 1, 3, 3], [2, 2, 1, 4, 4], [1, 3, 2, 2, 4, 4], [1, 2, 3, 4, 1, 2]]
        with pytest.raises(UserError, match="user 'u3', who clicked on all 4 items"):
            examples_of(interactions_of(sequences, 4, max_seq_len), 2, seed=0)
        # Validation and test targets do not count as covered.
        examples_of(interactions_of(sequences[:3], 4, max_seq_len), 2, seed=0)


class TestEpochs:
    @pytest.mark.parametrize(
        ("batch_size", "sizes"), [(5, [5, 5, 5, 2]), (17, [17]), (40, [17]), (1, [1] * 17)]
    )
    def test_each_user_once_in_the_order_of_the_epoch(
        self, interactions: Interactions, batch_size: int, sizes: list[int]
    ) -> None:
        examples = examples_of(interactions, batch_size, seed=3)
        order = examples.order(1)
        steps = [examples.ids(1, step) for step in range(examples.steps)]
        assert [len(ids.positives) for ids in steps] == sizes
        assert sorted(order.tolist()) == list(range(17))
        sequences = sequences_of(interactions)
        rows = np.concatenate([ids.positives for ids in steps])
        assert rows.tolist() == [padded(sequences[user][:-2], MAX_SEQ_LEN + 1) for user in order]

    def test_masks_are_the_real_input_places(self, interactions: Interactions) -> None:
        examples = examples_of(interactions, 17, seed=3)
        ids = examples.ids(1, 0)
        assert ids.log_mask.tolist() == [[item != 0 for item in row[:-1]] for row in ids.positives]
        assert ids.log_mask[:, -1].all()
        assert not ids.log_mask.all()

    def test_seed_and_epoch_make_the_order(self, interactions: Interactions) -> None:
        examples = examples_of(interactions, 4, seed=3)
        orders = [examples.order(1), examples.order(2), examples_of(interactions, 4, seed=4).order(1)]
        assert len({tuple(order) for order in orders}) == 3
        assert (examples_of(interactions, 4, seed=3).order(2) == orders[1]).all()

    def test_seed_epoch_and_step_make_the_batch(self) -> None:
        alike = interactions_of([[1, 2, 3, 4, 5, 6, 7]] * 17, N_ITEMS, MAX_SEQ_LEN)

        def negatives(seed: int, epoch: int, step: int) -> list[list[int]]:
            return examples_of(alike, 8, seed=seed).ids(epoch, step).negatives.tolist()

        assert negatives(3, 1, 0) == negatives(3, 1, 0)
        ways = [(3, 1, 0), (3, 1, 1), (3, 2, 0), (4, 1, 0)]
        assert len({str(negatives(*way)) for way in ways}) == len(ways)

    def test_a_step_does_not_depend_on_those_before(self, interactions: Interactions) -> None:
        def step_of(examples: TrainingSet, epoch: int, step: int) -> tuple[list, list]:
            batch = examples[epoch, step]
            return (
                item_numbers(batch, batch.positives).tolist(),
                item_numbers(batch, batch.negatives).tolist(),
            )

        in_order = examples_of(interactions, 5, seed=3)
        found = {(epoch, step): step_of(in_order, epoch, step) for epoch in (1, 2) for step in range(4)}
        for at in ((2, 2), (1, 3), (2, 0)):
            assert found[at] == step_of(examples_of(interactions, 5, seed=3), *at)
            assert found[at] == step_of(in_order, *at)

    def test_the_loader_begins_anywhere(self, interactions: Interactions) -> None:
        examples = examples_of(interactions, 5, seed=3)
        remaining = [(1, step) for step in range(1, examples.steps)]
        found = list(load_ahead(examples.__getitem__, remaining, workers=0, prefetch=4, pin_memory=False))
        assert len(found) == 3
        for at, batch in zip(remaining, found, strict=True):
            expected = examples[at]
            assert torch.equal(batch.contents[0].ids, expected.contents[0].ids)
            assert torch.equal(batch.positives, expected.positives)
            assert torch.equal(batch.negatives, expected.negatives)


class TestWithContent:
    def check(self, positives: list[list[int]], negatives: list[list[int]]) -> list[int]:
        ids = IdBatch(np.array(positives), np.array(negatives)[..., None], np.empty(0, np.int64))
        table = torch.randn(N_ITEMS + 1, 4, generator=torch.Generator().manual_seed(0))
        table[0] = 0
        store = RecordingStore()
        batch = make_batch(ids, store)
        embeddings = torch.cat([torch.zeros(1, 4), *(table[content.ids] for content in batch.contents)])
        assert torch.equal(embeddings[batch.positives], table[ids.positives])
        assert torch.equal(embeddings[batch.negatives], table[ids.negatives[ids.log_mask]])
        assert torch.equal(embeddings[batch.next_rows], table[ids.positives[:, 1:][ids.log_mask]])
        assert batch.log_mask.tolist() == ids.log_mask.tolist()
        assert batch.targets_in_step == ids.log_mask.sum()
        fetched = [item for items in store.fetched for item in items]
        assert len(set(fetched)) == len(fetched)
        assert 0 not in fetched
        return fetched

    def test_every_place_gets_its_item_and_each_is_fetched_once(self) -> None:
        fetched = self.check([[0, 0, 7, 9, 7], [0, 3, 9, 3, 2]], [[0, 0, 4, 30], [0, 1, 4, 4]])
        assert sorted(fetched) == [1, 2, 3, 4, 7, 9, 30]

    def test_without_padding(self) -> None:
        assert sorted(self.check([[5, 1, 5]], [[2, 2]])) == [1, 2, 5]


class TestShares:
    @pytest.mark.parametrize("processes", [1, 2, 3, 9])
    @pytest.mark.parametrize("parts", [1, 2, 4])
    @pytest.mark.parametrize("objective", ["sasrec", "cpc"])
    def test_all_shares_together_are_the_global_batch(
        self, interactions: Interactions, processes: int, parts: int, objective: str
    ) -> None:
        everyone = [
            examples_of(interactions, 7, seed=1, objective=objective, share=(rank, processes), parts=parts)
            for rank in range(processes)
        ]
        for step in range(everyone[0].steps):
            ids = everyone[0].ids(1, step)
            positions = OBJECTIVES[objective]
            batches = [examples[1, step] for examples in everyone]
            positives = np.concatenate([item_numbers(batch, batch.positives) for batch in batches])
            negatives = np.concatenate([item_numbers(batch, batch.negatives) for batch in batches])
            targets = np.concatenate([item_numbers(batch, batch.next_rows) for batch in batches])
            log_mask = np.concatenate([batch.log_mask.numpy() for batch in batches])
            predicted = np.concatenate([target_mask(batch) for batch in batches])
            real = log_mask.any(axis=1)
            expected = ids.log_mask[:, positions]
            assert positives[real].tolist() == ids.positives.tolist()
            assert negatives.tolist() == ids.negatives[:, positions][expected].tolist()
            assert targets.tolist() == ids.positives[:, 1:][:, positions][expected].tolist()
            assert log_mask[real].tolist() == ids.log_mask.tolist()
            assert predicted[real][:, positions].tolist() == expected.tolist()
            assert predicted.sum() == expected.sum()
            assert {batch.targets_in_step for batch in batches} == {predicted.sum()}

    @pytest.mark.parametrize("processes", [1, 2, 9])
    def test_each_item_is_encoded_by_one_process(self, interactions: Interactions, processes: int) -> None:
        batches = [
            examples_of(interactions, 3, seed=1, share=(rank, processes), parts=2)[1, 0]
            for rank in range(processes)
        ]
        for batch in batches:
            encoded = [item for content in batch.contents for item in content.ids.tolist()]
            assert encoded == batch.items[batch.own].tolist()
            assert len(batch.contents) == min(2, len(encoded))
        together = np.concatenate([batch.items[batch.own] for batch in batches])
        assert together.tolist() == batches[0].items.tolist()

    def test_shares_are_near_equal(self, interactions: Interactions) -> None:
        shares = [examples_of(interactions, 17, seed=1, share=(rank, 4))[1, 0] for rank in range(4)]
        assert [len(batch.positives) for batch in shares] == [5, 4, 4, 4]
        sizes = [len(batch.contents[0]) for batch in shares]
        assert max(sizes) - min(sizes) <= 1

    def test_an_empty_share_is_one_user_of_padding(self) -> None:
        examples = examples_of(interactions_of([[1, 2, 3, 4, 5]], 9, 4), 4, seed=0, share=(2, 3))
        batch = examples[1, 0]
        assert batch.positives.tolist() == [[0] * 5]
        assert not len(batch.negatives)
        assert not len(batch.places)
        assert batch.targets_in_step == 2


class TestSampling:
    def test_no_negative_but_the_last_is_fetched_where_the_last_place_alone_is_predicted(
        self, interactions: Interactions
    ) -> None:
        store = RecordingStore()
        examples = examples_of(interactions, 6, seed=2, store=store, objective="cpc")
        spared = 0
        for step in range(examples.steps):
            batch, ids = examples[1, step], examples.ids(1, step)
            needed = {*ids.positives.ravel().tolist(), *ids.negatives[:, -1].ravel().tolist()} - {0}
            assert set(store.fetched[-1]) == needed
            assert batch.targets_in_step == len(ids.positives)
            spared += len(set(ids.negatives.ravel().tolist()) - needed - {0})
        assert spared > 0

    def test_in_batch_candidates_need_no_other_items(self, interactions: Interactions) -> None:
        examples = examples_of(interactions, 6, seed=2, sampling=Sampling(in_batch=True))
        assert examples[1, 0].items.tolist() == sorted({*examples.ids(1, 0).positives.ravel()} - {0})

    def test_shared_negatives_are_distinct_and_uniform(self, interactions: Interactions) -> None:
        examples = examples_of(interactions, 6, seed=2, sampling=Sampling(shared=5))
        counts = Counter()
        for epoch in range(1, 201):
            batch = examples[epoch, 0]
            drawn = item_numbers(batch, batch.shared).tolist()
            assert len(set(drawn)) == 5
            counts.update(drawn)
        expected = 200 * 5 / N_ITEMS
        chi_square = sum((counts[item] - expected) ** 2 / expected for item in range(1, N_ITEMS + 1))
        assert chi_square < 58.3  # 29 degrees of freedom, one in a thousand

    def test_the_expected_number_of_draws_is_the_mean_over_batches(self, interactions: Interactions) -> None:
        examples = examples_of(interactions, 5, seed=2, sampling=Sampling(in_batch=True, shared=5))
        drawn = np.zeros(N_ITEMS + 1)
        batches = [(epoch, step) for epoch in range(1, 301) for step in range(examples.steps - 1)]
        for at in batches:
            ids = examples.ids(*at)
            drawn += np.bincount(ids.positives.ravel(), minlength=N_ITEMS + 1)
            drawn += np.bincount(ids.shared, minlength=N_ITEMS + 1)
        assert examples.expected == pytest.approx(drawn[1:] / len(batches), rel=0.1, abs=0.05)

    def test_the_catalogue_is_all_items(self, interactions: Interactions) -> None:
        examples = examples_of(interactions, 6, seed=2, sampling=Sampling(catalogue=True))
        assert examples[1, 0].items.tolist() == list(range(1, N_ITEMS + 1))

    @pytest.mark.parametrize("sampling", [Sampling(per_target=N_ITEMS + 1), Sampling(shared=N_ITEMS + 1)])
    def test_more_negatives_than_items_are_refused(
        self, interactions: Interactions, sampling: Sampling
    ) -> None:
        with pytest.raises(UserError, match="--negatives 31"):
            examples_of(interactions, 6, seed=2, sampling=sampling)


def test_a_worker_is_silent_when_the_main_process_has_gone(capfd):
    def fails(kind):
        sys.excepthook(kind, kind("lost"), None)  # as a thread that serves the main process does
        sys.stderr.flush()
        return 0

    kinds = [ConnectionResetError, EOFError, ValueError]
    assert list(load_ahead(fails, kinds, workers=1, prefetch=1, pin_memory=False)) == [0, 0, 0]
    printed = capfd.readouterr().err
    assert "ValueError: lost" in printed
    assert "Connection" not in printed
    assert "EOFError" not in printed


def test_a_killed_loader_process_names_the_settings_to_lower():
    def killed(_):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match=r"memory .*lower --workers 1 or --prefetch 2"):
        list(load_ahead(killed, [0], workers=1, prefetch=2, pin_memory=False))
