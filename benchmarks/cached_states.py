"""An epoch of K-Adapter training with cached hidden states of the frozen backbone."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.data.content import ContentStore
from adapter4rec.data.domain import Domain
from adapter4rec.training.cached_states import cache_hidden_states
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.files import REPOSITORY
from benchmarks.measuring import Measurement, medians, options_of, report
from benchmarks.steps import (
    ALONE,
    Course,
    ProjectSteps,
    examples_of,
    released_steps,
    settings_of,
    taken_in_turns,
)
from benchmarks.text_step import text_course

_FOLDER = REPOSITORY / "cache" / "benchmarks"
_CONFIG = KAdapterConfig(item_inner=192)  # the text launcher's


def _cached(course: Course) -> tuple[ContentStore, float]:
    """The cached states of all items, and the seconds taken to compute them."""
    shutil.rmtree(_FOLDER / "states", ignore_errors=True)
    settings = replace(
        settings_of(course.examples.batch_size, "bf16"),
        adapter=_CONFIG,
        cache_frozen=True,
        cache_folder=_FOLDER,
    )
    domain = Domain("benchmark", course.examples.interactions, course.examples.store, "")
    started = time.perf_counter()
    store = cache_hidden_states(domain, course.model().train(), settings, ALONE).store
    return store, time.perf_counter() - started


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, batch=8, layers=12, rounds=3)
    course = text_course(options, _CONFIG, "cached_states")
    store, once = _cached(course)
    cached = examples_of(course.examples.interactions, store, options.batch)
    arms = {
        "released": released_steps(course),
        "bf16 without": ProjectSteps(course.model().train(), course.examples, "bf16"),
        "fp32": ProjectSteps(course.model().train(), cached, "fp32"),
        "bf16": ProjectSteps(course.model().train(), cached, "bf16"),
    }
    seconds, steps = medians(taken_in_turns(arms, options.rounds)), course.examples.steps
    rows = [
        Measurement(
            f"K-Adapter epoch with cached states, {form}",
            seconds[form] * steps,
            seconds["released"] * steps,
            goal=20,
            more={
                "speedup over bf16 without cache": f"{seconds['bf16 without'] / seconds[form]:.1f}",
                "seconds to build the cache": f"{once:.0f}",
                "MiB on disk": f"{store.rows.nbytes / 2**20:,.0f}",
            },
        )
        for form in ("fp32", "bf16")
    ]
    shutil.rmtree(_FOLDER / "states")
    report(course.name, rows, {"users per step": options.batch, "steps": steps, "layers": options.layers})


if __name__ == "__main__":
    run_main(main)
