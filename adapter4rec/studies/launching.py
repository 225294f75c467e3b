"""Running a study from its script: train source models, run all rows and seeds, write the report.

Finished runs are not repeated: run the script again to resume a study, or after adding a row or a seed.
``--name value`` overrides a setting in all rows that have it, ``--source_name value`` a setting of the source
models.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

from adapter4rec.runs.ledger import run_key
from adapter4rec.studies import estimating, samples
from adapter4rec.studies.campaign import Campaign
from adapter4rec.studies.plan import Study, validate
from adapter4rec.studies.running import Runner, exit_code
from adapter4rec.utils.errors import run_main
from adapter4rec.utils.machine import gpu_count


def launch_study(study: Study) -> NoReturn:
    """Run a study with the options of the command line. Exits with 0 if all of its runs have finished."""
    run_main(lambda: _launch(study, sys.argv[1:]))


def _launch(study: Study, arguments: list[str]) -> int:
    validate(study)
    campaign = Campaign.of(study, arguments)
    if campaign.how.dry_run:
        estimating.print_plan(campaign)
        return 0
    return carry_out(campaign)


def carry_out(campaign: Campaign) -> int:
    """Run everything that is not finished yet, and write the report.

    Returns:
        The exit code.

    Raises:
        UserError: an invalid setting, or a missing file.
        KeyboardInterrupt: the study or one of its runs was interrupted.
    """
    if campaign.how.sample:
        samples.prepare(campaign.study.modality)
    for settings in campaign.distinct_rows().values():
        run_key(settings)  # reads the input files, so that a missing one is reported before the first run
    runner = Runner(
        campaign.into / "ledger.jsonl",
        campaign.into / "logs",
        campaign.how.jobs,
        campaign.how.processes,
        gpu_count(),
    )
    campaign.write_plan()
    try:
        names = campaign.wanted_sources()
        if names:
            runner.total = sum(len(campaign.study.sources[name].stages) for name in names)
            runner.carry_out([partial(_train_source, campaign, runner, name) for name in names])
            campaign.write_plan()
        _run_rows(campaign, runner)
    finally:
        _report(runner.ledger)
    for name in runner.failed:
        print(f"failed: {name}")
    return exit_code(runner.failed)


def _train_source(campaign: Campaign, runner: Runner, name: str) -> None:
    for number in range(len(campaign.study.sources[name].stages)):
        runs, _ = campaign.source_runs(name)
        if len(runs) <= number:
            return  # the checkpoint exists already, or the previous stage has failed
        run = runs[number]
        if run.key in runner.finished() and Path(run.settings.export).is_file():
            runner.done += 1
            continue
        if not runner.run(run):
            return


def _run_rows(campaign: Campaign, runner: Runner) -> None:
    finished = runner.finished()
    runs, missing = [], []
    for seed in campaign.seeds:  # seeds in the outer loop: an interrupted study has complete seeds
        for row in campaign.rows:
            run = campaign.target_run(row, seed)
            if run is None:
                missing.append(f"{row.label}, seed {seed} (no source model)")
            elif run.key not in finished:
                runs.append(run)
    total = len(campaign.rows) * len(campaign.seeds)
    runner.total, runner.done = total, total - len(runs) - len(missing)
    if runner.done:
        print(f"{runner.done} of {total} runs are already finished")
    runner.failed += missing
    runner.carry_out([partial(runner.run, run) for run in runs])


def _report(ledger: Path) -> None:
    from adapter4rec.report.writing import write_report

    if not ledger.exists():
        return
    for path in write_report([ledger]):
        if path.suffix in (".html", ".md"):
            print(f"report   {path}")
