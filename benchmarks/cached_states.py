"""An epoch of K-Adapter with cached states of the frozen backbone, against the released way."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable

import torch

from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.data.batches import Division, EpochSteps, TrainingSet
from adapter4rec.data.content import ContentStore
from adapter4rec.distributed import Process
from adapter4rec.domains import Domain
from adapter4rec.files import REPOSITORY
from adapter4rec.models.transrec import TransRec
from adapter4rec.stages import TextTargetSettings
from adapter4rec.states import with_cached_states
from adapter4rec.training.parameters import make_optimizer, parameter_groups
from benchmarks import released_way
from benchmarks.measuring import Row, arguments, in_turns, medians, report
from benchmarks.models import domain_folder, read_domain, text_model
from benchmarks.text_step import trainer_steps

_FOLDER = REPOSITORY / "cache" / "benchmarks"
_CONFIG = KAdapterConfig(item_inner=192)  # the text launcher's


def _options() -> argparse.Namespace:
    return arguments(__doc__, batch=8, layers=12, rounds=3).parse_args()


def main() -> None:
    """Measure and report."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    interactions, texts = read_domain(domain_folder(), 20)
    examples = TrainingSet(interactions, options.batch, seed=1)
    settings = TextTargetSettings(
        users="-",
        items="-",
        batch_size=options.batch,
        method="k_adapter",
        adapter=_CONFIG,
        cache_frozen=True,
        cache_folder=_FOLDER,
        precision="bf16",
    )

    def model() -> TransRec:
        return text_model(_CONFIG, options.layers).train()

    def project(store: ContentStore, form: str) -> Callable[[int], float]:
        steps = EpochSteps(examples, store, 1, Division(), last_place_only=False)
        return trainer_steps(model(), steps, form, settings)

    shutil.rmtree(_FOLDER / "states", ignore_errors=True)
    started = time.perf_counter()
    domain = Domain("benchmark", interactions, texts, "")
    cached = with_cached_states(domain, model(), settings, Process(0, 1, torch.device("cpu"))).store
    once = time.perf_counter() - started
    arms = {
        "released": _released(released_way.plain(model()), texts, examples, settings),
        "bf16 without": project(texts, "bf16"),
        "fp32": project(cached, "fp32"),
        "bf16": project(cached, "bf16"),
    }
    numbers = {name: iter(range(options.rounds + 1)) for name in arms}
    seconds = medians(
        in_turns({name: lambda name=name: arms[name](next(numbers[name])) for name in arms}, options.rounds)
    )
    steps = examples.steps
    rows = [
        Row(
            f"K-Adapter epoch with cached states, {form}",
            seconds[form] * steps,
            seconds["released"] * steps,
            goal=20,
            more={
                "against the project without the cache": f"{seconds['bf16 without'] / seconds[form]:.1f}",
                "seconds that the cache took, once": f"{once:.0f}",
                "MiB on disk": f"{cached.rows.nbytes / 2**20:,.0f}",
            },
        )
        for form in ("fp32", "bf16")
    ]
    shutil.rmtree(_FOLDER / "states")
    report("cached_states", rows, {"users a step": options.batch, "steps": steps, "layers": options.layers})


def _released(
    model: TransRec, texts: ContentStore, examples: TrainingSet, settings: TextTargetSettings
) -> Callable[[int], None]:
    optimizer = make_optimizer(parameter_groups(model, settings.learning_rates()))
    order = examples.order(1)

    def step(number: int) -> None:
        ids = examples.ids(order, 1, number)
        released_way.loss(
            model, lambda items: released_way.encoded_titles(model, texts, items), ids
        ).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
