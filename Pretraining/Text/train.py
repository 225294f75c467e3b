"""Train a source model with text.

The launchers in ``script/`` set the hyperparameters. Without a launcher: ``python -m Pretraining.Text.train
--users … --items … --export source.safetensors``; in a notebook: ``run(users=…, items=…, export=…)``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from adapter4rec.models.settings import TextModelSettings
from adapter4rec.runs.records import RunResult
from adapter4rec.training.settings import SourceTraining
from adapter4rec.utils.command_line import settings_from_command_line
from adapter4rec.utils.errors import run_main
from Pretraining.Text.data import read_domain
from Pretraining.Text.model import build_model


@dataclass(frozen=True, kw_only=True)
class Settings(TextModelSettings, SourceTraining):
    """Train a TransRec model on a source domain with text."""

    modality: ClassVar[str] = "text"
    module: ClassVar[str] = "Pretraining.Text.train"


def run(**settings: Any) -> RunResult:
    """Execute one run. ``settings`` are the options that ``--help`` lists. Returns the result."""
    return train(Settings.from_values(settings))


def train(settings: Settings) -> RunResult:
    """Read the domain, build and train the model, test its best epoch, and export it for target domains."""
    from adapter4rec.runs.exporting import export_for_targets, require_export
    from adapter4rec.runs.run import Run
    from adapter4rec.training.cached_states import cache_hidden_states
    from adapter4rec.training.fit import fit
    from adapter4rec.training.testing import evaluate, evaluate_again
    from adapter4rec.utils.process_group import process_group

    with process_group(settings.device, settings.threads) as process:
        domain = read_domain(settings, process)
        model = build_model(settings, domain.interactions.n_items)
        run = Run(settings, domain, model, process)
        require_export(settings, run)  # fail before training, not after
        model.to(process.device)
        if settings.caches_states:
            domain = cache_hidden_states(domain, model, settings, process)
        if settings.mode == "test":
            return evaluate_again(model, domain, settings, run)
        with run.locked():
            result = run.finished_result(model)
            if result is None:
                run.begin(domain)
                history = fit(model, domain, settings, run)
                result = evaluate(model, domain, settings, run, history)
        export_for_targets(model, settings, run, result)
    return result


if __name__ == "__main__":
    run_main(lambda: train(settings_from_command_line(Settings, sys.argv[1:])), one_of_several=True)
