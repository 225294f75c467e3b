"""Encoding a catalogue of titles with BERT-base."""

from __future__ import annotations

import numpy as np
import torch

from adapter4rec.evaluation.catalogue import encode_catalogue, evaluating
from adapter4rec.evaluation.settings import RankingSettings
from adapter4rec.utils.errors import run_main
from benchmarks import released_way
from benchmarks.measuring import Measurement, in_turns, matmul_rate, medians, options_of, report
from benchmarks.models import domain_folder, forward_operations, read_domain, text_model
from benchmarks.steps import ALONE

_RELEASED_AT_ONCE = 512


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, items=1024, layers=12, rounds=3)
    _, store = read_domain(domain_folder(), 20)
    model, plain = text_model(None, options.layers), released_way.plain(text_model(None, options.layers))
    items = np.arange(1, options.items + 1)

    def released() -> torch.Tensor:
        with evaluating(plain):
            parts = np.array_split(items, -(-len(items) // _RELEASED_AT_ONCE))
            return torch.cat([released_way.encoded_titles(plain, store, part) for part in parts])

    def project(form: str) -> torch.Tensor:
        with evaluating(model):
            how = RankingSettings(evaluation_precision=form, workers=0)
            return encode_catalogue(model, store, options.items, ALONE, how).rows

    assert torch.allclose(project("fp32")[1:], released(), atol=1e-4)
    taken = in_turns(
        {"released": released, "fp32": lambda: project("fp32"), "bf16": lambda: project("bf16")},
        options.rounds,
    )
    seconds = medians(taken)
    config = model.item_encoder.backbone.config
    useful = forward_operations(config, store.costs(items))
    rates = {"fp32": matmul_rate(torch.float32), "bf16": matmul_rate(torch.bfloat16)}
    rows = [
        Measurement(
            f"encoding titles, {form}",
            seconds[form],
            seconds["released"],
            goal=goal,
            share=useful / seconds[form] / rates[form],
        )
        for form, goal in (("fp32", 1.5), ("bf16", 5))
    ]
    report("embedding", rows, {"titles": options.items, "layers": options.layers})


if __name__ == "__main__":
    run_main(main)
