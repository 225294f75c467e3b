"""Ranking a catalogue for many users."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.ranking import EvalBatch, rank_targets
from adapter4rec.utils.errors import run_main
from benchmarks import released_way
from benchmarks.measuring import Measurement, arguments, in_turns, matmul_rate, medians, parsed, report
from benchmarks.models import DIM

_HISTORY = 10


def _question(users: int, items: int, chance: np.random.Generator) -> EvalBatch:
    return EvalBatch(
        np.zeros((users, 1), np.int64),
        chance.integers(1, items + 1, users),
        np.repeat(np.arange(users), _HISTORY),
        chance.integers(1, items + 1, users * _HISTORY),
    )


def _compared(users: int, items: int, released_users: int, rounds: int) -> Measurement:
    """Time both implementations. The released code's ranks some of the users; its time is extrapolated."""
    chance = np.random.default_rng(0)
    torch.manual_seed(0)
    vectors, table = torch.randn(users, DIM), torch.randn(items + 1, DIM)
    question = _question(users, items, chance)
    some = min(users, released_users)
    masked = [question.masked_items[user * _HISTORY : (user + 1) * _HISTORY] - 1 for user in range(some)]

    def project() -> np.ndarray:
        return rank_targets(vectors, Embeddings(table), question)

    def released() -> list[int]:
        return released_way.ranks(vectors[:some], table[1:], question.targets[:some] - 1, masked)

    found, expected = project()[:some], np.array(released())
    kept = found < items + 1
    # Matrix products of different shapes differ by rounding, so near-ties may be ranked differently.
    assert np.abs(found[kept] - expected[kept]).max() <= 2
    taken = in_turns({"project": project, "released": released}, rounds)
    seconds = medians(taken)
    limit = 2 * users * items * DIM / matmul_rate(torch.float32)
    return Measurement(
        f"ranking {users:,} users, {items:,} items",
        seconds["project"],
        seconds["released"] * users / some,
        goal=100,
        share=limit / seconds["project"],
        more={"users timed with the released code": some},
    )


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, users=10_000, released_users=200, rounds=3)
    parser.add_argument("--items", type=int, nargs="+", default=[20_000, 200_000], help="(%(default)s)")
    return parsed(parser)


def main() -> None:
    """Run the benchmark."""
    options = _options()
    rows = [
        _compared(options.users, items, options.released_users, options.rounds) for items in options.items
    ]
    report("ranking", rows, {"d": DIM})


if __name__ == "__main__":
    run_main(main)
