"""Adapt a source model to a target domain with text.

The launchers in ``script/`` hold the settings; one run by hand is
``python -m Downstream.Text.train --method houlsby --users … --items … --source_checkpoint …``.
"""

from __future__ import annotations

import sys

from adapter4rec.checkpoints import weights_hash
from adapter4rec.distributed import Process, joined_process
from adapter4rec.domains import load_text_domain
from adapter4rec.errors import UserError, run_main
from adapter4rec.launching import settings_from_command_line
from adapter4rec.runs import Identity, Run
from adapter4rec.source_models import SourceModel, read_source_model
from adapter4rec.states import with_cached_states
from adapter4rec.training.loop import carry_out, carry_out_popularity
from Downstream.Text.model import TextTargetSettings, build_model


def main(settings: TextTargetSettings) -> None:
    """Carry out a run."""
    with joined_process(settings.device, settings.threads) as process:
        carry_out_target(settings, process)


def carry_out_target(settings: TextTargetSettings, process: Process) -> None:
    """One run, from the files to the tested model."""
    domain = load_text_domain(settings, process)
    name = run_name(settings, domain.name)
    if settings.method == "popularity":
        identity = Identity("text target", settings.plain(runtime=False), domain.identity, None)
        carry_out_popularity(domain, process, Run(settings, identity, name, process))
        return
    model = build_model(settings, domain.interactions.n_items, source_model(settings))

    weights = weights_hash(model.state_dict())
    identity = Identity("text target", settings.plain(runtime=False), domain.identity, weights)
    run = Run(settings, identity, name, process)
    model.to(process.device)
    if settings.method == "head":
        domain = with_cached_states(domain, model, settings, process)
    carry_out(model, domain, settings, process, run)


def source_model(settings: TextTargetSettings) -> SourceModel | None:
    """The source model, where the method starts from one.

    Raises:
        UserError: none is named, or it cannot be read.
    """
    if not settings.needs_source:
        return None
    if settings.source_checkpoint is None:
        raise UserError(f"--source_checkpoint is needed: {settings.method} starts from a source model")
    return read_source_model(settings.source_checkpoint)


def run_name(settings: TextTargetSettings, domain: str) -> str:
    """What the run is, as part of a folder's name."""
    encoder = f"_{settings.backbone.rpartition('/')[2]}" if settings.uses_content else ""
    return f"text_target_{domain}_{settings.method}_{settings.objective.value}{encoder}_seed{settings.seed}"


if __name__ == "__main__":
    run_main(lambda: main(settings_from_command_line(TextTargetSettings, sys.argv[1:])))
