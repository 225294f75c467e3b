"""Training batches: padding, negatives, epochs, distinct items, and the shares of a step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import interactions_of, random_sequences

from adapter4rec.data.batches import (
    Batch,
    IdBatch,
    TrainingSet,
    draw_negatives,
    fetch_content,
    pad_left,
)
from adapter4rec.data.content import IdStore, ItemIds
from adapter4rec.data.interactions import Interactions, Ranges
from adapter4rec.data.loader import load_ahead
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.losses import CpcLoss, Loss, SasRecLoss
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoder import UserEncoder
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process

MAX_SEQ_LEN = 5
N_ITEMS = 30


class RecordingStore(IdStore):
    """Remembers what was fetched."""

    def __init__(self, n_items: int) -> None:
        super().__init__(n_items)
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
    loss: type[Loss] = SasRecLoss,
    share: tuple[int, int] = (0, 1),
    parts: int = 1,
) -> TrainingSet:
    """The training examples as the process ``share`` (rank, world size) sees them."""
    return TrainingSet(
        interactions,
        store or IdStore(interactions.n_items),
        batch_size=batch_size,
        seed=seed,
        predicted=loss.predicted,
        process=Process(*share, torch.device("cpu")),
        accumulation_steps=parts,
    )


def sequences_of(interactions: Interactions) -> list[list[int]]:
    return [part.tolist() for part in np.split(interactions.clicks, interactions.offsets[1:-1])]


def padded(sequence: list[int], width: int) -> list[int]:
    return [0] * (width - len(sequence)) + sequence


def item_numbers(batch: Batch, places: torch.Tensor) -> np.ndarray:
    """The item numbers behind a batch's places."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), batch.content.ids])[places].numpy()


class TestLeftPadded:
    def test_last_clicks_with_padding_on_the_left(self) -> None:
        clicks = np.array([9, 8, 7, 6, 5, 4, 3], np.int32)
        ranges = Ranges(np.array([0, 1, 4]), np.array([1, 4, 7]))
        found = pad_left(clicks, ranges, np.array([2, 0, 1]), 2)
        assert found.tolist() == [[4, 3], [0, 9], [7, 6]]
        assert found.dtype == np.int64
        assert pad_left(clicks, ranges, np.array([1, 0]), 4).tolist() == [[0, 8, 7, 6], [0, 0, 0, 9]]

    def test_against_plain_python(self, interactions: Interactions) -> None:
        users = np.random.default_rng(0).permutation(interactions.n_users)
        found = pad_left(interactions.clicks, interactions.train, users, MAX_SEQ_LEN + 1)
        sequences = sequences_of(interactions)
        assert found.tolist() == [padded(sequences[user][:-2], MAX_SEQ_LEN + 1) for user in users]


class TestNegatives:
    def test_never_an_item_of_the_sequence_and_none_at_padding(self) -> None:
        chance = np.random.default_rng(1)
        sequences = random_sequences(chance, 400, 9, MAX_SEQ_LEN)
        positives = np.array([padded(sequence[:-2], MAX_SEQ_LEN + 1) for sequence in sequences])
        negatives = draw_negatives(positives, 9, chance)
        assert negatives.shape == (400, MAX_SEQ_LEN)
        for row, drawn in zip(positives, negatives, strict=True):
            for place, item in enumerate(drawn):
                if row[place] == 0:
                    assert item == 0
                else:
                    assert 1 <= item <= 9
                    assert item not in row

    def test_uniform_over_the_other_items(self) -> None:
        n_items, allowed = 12, [1, 2, 3, 5, 6, 8, 9, 10, 12]
        positives = np.tile([0, 4, 7, 4, 11], (3_000, 1))
        negatives = draw_negatives(positives, n_items, np.random.default_rng(2))
        for place in (1, 2, 3):
            counts = Counter(negatives[:, place].tolist())
            assert sorted(counts) == allowed
            expected = len(positives) / len(allowed)
            chi_square = sum((counts[item] - expected) ** 2 / expected for item in allowed)
            assert chi_square < 26.12  # 8 degrees of freedom, one in a thousand
        assert not negatives[:, 0].any()

    def test_the_one_item_left_is_found(self) -> None:
        negatives = draw_negatives(np.array([[1, 2, 4, 5]]), 5, np.random.default_rng(0))
        assert negatives.tolist() == [[3, 3, 3]]

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
            (batch,) = examples[epoch, step]
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
        found = list(load_ahead(examples, remaining, workers=0, prefetch=4, pin_memory=False))
        assert len(found) == 3
        for at, (batch,) in zip(remaining, found, strict=True):
            (expected,) = examples[at]
            assert torch.equal(batch.content.ids, expected.content.ids)
            assert torch.equal(batch.positives, expected.positives)
            assert torch.equal(batch.negatives, expected.negatives)


class TestWithContent:
    def check(self, positives: list[list[int]], negatives: list[list[int]]) -> Batch:
        ids = IdBatch(np.array(positives), np.array(negatives))
        table = torch.randn(N_ITEMS + 1, 4, generator=torch.Generator().manual_seed(0))
        table[0] = 0
        store = RecordingStore(N_ITEMS)
        batch = fetch_content(ids, store, targets_in_step=3)
        embeddings = torch.cat([torch.zeros(1, 4), table[batch.content.ids]])
        assert torch.equal(embeddings[batch.positives], table[ids.positives])
        assert torch.equal(embeddings[batch.negatives], table[ids.negatives])
        assert batch.log_mask.tolist() == ids.log_mask.tolist()
        assert batch.targets_in_step == 3
        (fetched,) = store.fetched
        assert len(set(fetched)) == len(fetched)
        assert 0 not in fetched
        return batch

    def test_every_place_gets_its_item_and_each_is_fetched_once(self) -> None:
        batch = self.check([[0, 0, 7, 9, 7], [0, 3, 9, 3, 2]], [[0, 0, 4, 30], [0, 1, 4, 4]])
        assert sorted(batch.content.ids.tolist()) == [1, 2, 3, 4, 7, 9, 30]

    def test_without_padding(self) -> None:
        batch = self.check([[5, 1, 5]], [[2, 2]])
        assert sorted(batch.content.ids.tolist()) == [1, 2, 5]

    def test_of_padding_alone_something_is_fetched(self) -> None:
        batch = self.check([[0, 0, 0]], [[0, 0]])
        assert len(batch.content) == 1
        assert not batch.log_mask.any()


class TestShares:
    @pytest.mark.parametrize("processes", [1, 2, 3, 7])
    @pytest.mark.parametrize("parts", [1, 2, 4])
    @pytest.mark.parametrize("loss", [SasRecLoss, CpcLoss])
    def test_all_shares_together_are_the_global_batch(
        self, interactions: Interactions, processes: int, parts: int, loss: type[Loss]
    ) -> None:
        everyone = [
            examples_of(interactions, 7, seed=1, loss=loss, share=(rank, processes), parts=parts)
            for rank in range(processes)
        ]
        for step in range(everyone[0].steps):
            ids = everyone[0].ids(1, step)
            last_place_only = loss is CpcLoss
            targets = len(ids.positives) if last_place_only else int((ids.positives[:, :-1] > 0).sum())
            shares = [examples[1, step] for examples in everyone]
            assert all(len(share) == parts for share in shares)
            batches = [batch for share in shares for batch in share]
            positives = np.concatenate([item_numbers(batch, batch.positives) for batch in batches])
            negatives = np.concatenate([item_numbers(batch, batch.negatives) for batch in batches])
            log_mask = np.concatenate([batch.log_mask.numpy() for batch in batches])
            real = log_mask.any(axis=1)
            if last_place_only:
                ids.negatives[:, :-1] = 0
            assert positives[real].tolist() == ids.positives.tolist()
            assert negatives[real].tolist() == ids.negatives.tolist()
            assert log_mask[real].tolist() == ids.log_mask.tolist()
            assert {batch.targets_in_step for batch in batches} == {targets}

    def test_shares_are_near_equal(self, interactions: Interactions) -> None:
        shares = [examples_of(interactions, 17, seed=1, share=(rank, 4))[1, 0] for rank in range(4)]
        assert [len(batch.positives) for (batch,) in shares] == [5, 4, 4, 4]

    @pytest.mark.parametrize("objective", ["sasrec", "cpc"])
    def test_the_loss_and_its_gradient_do_not_depend_on_the_shares(
        self, interactions: Interactions, objective: str
    ) -> None:
        torch.manual_seed(0)
        model = TransRec(IdItemEncoder(N_ITEMS, 8), UserEncoder(8, MAX_SEQ_LEN, 2, 1, 0.0), objective)
        loss_class = type(model.loss)

        def loss_and_gradient(processes: int, parts: int) -> tuple[float, torch.Tensor]:
            model.zero_grad()
            total = 0.0
            for rank in range(processes):
                share = (rank, processes)
                examples = examples_of(interactions, 7, seed=1, loss=loss_class, share=share, parts=parts)
                for batch in examples[1, 2]:  # the short one, of 3 users
                    loss = model(batch)
                    loss.backward()
                    total += float(loss.detach())
            return total, model.item_encoder.head.weight.grad.clone()

        whole, gradient = loss_and_gradient(1, 1)
        assert whole > 0
        for processes, parts in ((2, 1), (1, 3), (2, 2), (5, 1)):
            divided, divided_gradient = loss_and_gradient(processes, parts)
            assert divided == pytest.approx(whole, rel=1e-5)
            torch.testing.assert_close(divided_gradient, gradient, rtol=1e-4, atol=1e-6)

    def test_an_empty_share_is_one_user_of_padding(self) -> None:
        examples = examples_of(interactions_of([[1, 2, 3, 4, 5]], 9, 4), 4, seed=0, share=(2, 3))
        (batch,) = examples[1, 0]
        assert batch.positives.tolist() == [[0] * 5]
        assert batch.negatives.tolist() == [[0] * 4]
        assert not batch.log_mask.any()
        assert len(batch.content) == 1
        assert batch.targets_in_step == 2


class TestPredictedPlaces:
    def test_no_negative_but_the_last_is_fetched_where_the_last_place_alone_is_predicted(
        self, interactions: Interactions
    ) -> None:
        store = RecordingStore(N_ITEMS)
        examples = examples_of(interactions, 6, seed=2, store=store, loss=CpcLoss)
        spared = 0
        for step in range(examples.steps):
            (batch,) = examples[1, step]
            ids = examples.ids(1, step)
            needed = {*ids.positives.ravel().tolist(), *ids.negatives[:, -1].tolist()} - {0}
            assert set(store.fetched[-1]) == needed
            assert item_numbers(batch, batch.negatives)[:, -1].tolist() == ids.negatives[:, -1].tolist()
            assert not batch.negatives[:, :-1].any()
            assert batch.targets_in_step == len(ids.positives)
            spared += len(set(ids.negatives.ravel().tolist()) - needed - {0})
        assert spared > 0
