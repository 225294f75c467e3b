"""Train a TransRec model on a source domain with text.

The launchers in ``script/`` hold the settings; one run by hand is
``python -m Pretraining.Text.train --users … --items …``.
"""

from __future__ import annotations

import sys

from adapter4rec.checkpoints import weights_hash
from adapter4rec.distributed import Process, joined_process
from adapter4rec.domains import load_text_domain
from adapter4rec.errors import run_main
from adapter4rec.launching import settings_from_command_line
from adapter4rec.runs import Identity, Run
from adapter4rec.source_models import export_source_model, read_source_model, require_export_path
from adapter4rec.states import with_cached_states
from adapter4rec.training.loop import carry_out
from Pretraining.Text.model import TextSourceSettings, build_model


def main(settings: TextSourceSettings) -> None:
    """Check what would be noticed too late, and carry out a run."""
    if settings.export:
        require_export_path(settings.export)  # before hours of training, not after
    with joined_process(settings.device, settings.threads) as process:
        carry_out_source(settings, process)


def carry_out_source(settings: TextSourceSettings, process: Process) -> None:
    """One run, from the files to the tested and exported model."""
    domain = load_text_domain(settings, process)
    start = read_source_model(settings.start_from) if settings.start_from else None
    model = build_model(settings, domain.interactions.n_items, start)

    weights = weights_hash(model.state_dict())
    identity = Identity("text source", settings.plain(runtime=False), domain.identity, weights)
    run = Run(settings, identity, run_name(settings, domain.name), process)
    model.to(process.device)
    if settings.method == "head" and settings.uses_content:
        domain = with_cached_states(domain, model, settings, process)
    result = carry_out(model, domain, settings, process, run)
    if settings.export and settings.mode == "train" and process.is_first:
        export_source_model(
            model.state_dict(), settings.export, settings.objective, run.described("", result)
        )
        run.say(f"exported for target domains: {settings.export}")


def run_name(settings: TextSourceSettings, domain: str) -> str:
    """What the run is, as part of a folder's name."""
    encoder = settings.backbone.rpartition("/")[2] if settings.uses_content else "id"
    return f"text_source_{domain}_{settings.method}_{settings.objective.value}_{encoder}_seed{settings.seed}"


if __name__ == "__main__":
    run_main(lambda: main(settings_from_command_line(TextSourceSettings, sys.argv[1:])))
