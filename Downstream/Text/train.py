"""Adapt a source model to a target domain with text.

The launchers in ``script/`` set the hyperparameters. Without a launcher: ``python -m Downstream.Text.train
--method houlsby --users … --items … --source_checkpoint …``; in a notebook: ``run(method="houlsby", …)``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from adapter4rec.checkpoints.settings import WITHOUT_MODEL
from adapter4rec.models.settings import TextModelSettings
from adapter4rec.runs.records import RunResult
from adapter4rec.training.settings import TargetTraining
from adapter4rec.utils.command_line import settings_from_command_line
from adapter4rec.utils.errors import run_main
from Downstream.Text.data import read_domain
from Downstream.Text.model import build_model


@dataclass(frozen=True, kw_only=True)
class Settings(TextModelSettings, TargetTraining):
    """Adapt a source model to a target domain with text."""

    modality: ClassVar[str] = "text"
    module: ClassVar[str] = "Downstream.Text.train"


def run(**settings: Any) -> RunResult:
    """Execute one run. ``settings`` are the options that ``--help`` lists. Returns the result."""
    return train(Settings.from_values(settings))


def train(settings: Settings) -> RunResult:
    """Read the domain, build and train the model, test its best epoch, and save the adapter."""
    from adapter4rec.runs.run import Run
    from adapter4rec.training.testing import evaluate, evaluate_again, evaluate_baseline
    from adapter4rec.utils.process_group import process_group

    if settings.needs_source:  # fail before items are read and tokenised
        from adapter4rec.checkpoints.source_models import require_source

        require_source(settings.source_checkpoint, settings.method)
    with process_group(settings.device, settings.threads) as process:
        domain = read_domain(settings, process)
        if settings.method in WITHOUT_MODEL:
            return evaluate_baseline(domain, settings, Run(settings, domain, None, process))
        model = build_model(settings, domain.interactions.n_items)
        run = Run(settings, domain, model, process)
        model.to(process.device)
        if settings.caches_states:
            from adapter4rec.training.cached_states import cache_hidden_states

            domain = cache_hidden_states(domain, model, settings, process)
        if settings.mode == "test":
            return evaluate_again(model, domain, settings, run)
        with run.locked():
            result = run.finished_result(model)
            if result is None:
                from adapter4rec.training.fit import fit

                run.begin(domain)
                history = fit(model, domain, settings, run)
                result = evaluate(model, domain, settings, run, history)
        if settings.adapter is not None and process.is_rank0:
            from adapter4rec.adapters.files import save_adapter

            path = run.folder / "adapter.safetensors"
            save_adapter(model, path, run.describe_adapter(result))
            run.log(f"adapter: {path}")
    return result


if __name__ == "__main__":
    run_main(lambda: train(settings_from_command_line(Settings, sys.argv[1:])), one_of_several=True)
