"""Running a study from its script: train source models, run all rows and seeds, write the report.

Finished runs are not repeated: run the script again to resume a study, or after adding a row or a seed.
``--name value`` overrides a setting in all rows that have it, ``--source_name value`` a setting of the source
models.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from adapter4rec.runs.ledger import command_of, finished_runs, reads_content, run_key
from adapter4rec.runs.records import SHEET_FILE
from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies.campaign import Campaign
from adapter4rec.studies.plan import PlannedRun, Study
from adapter4rec.studies.running import Runner
from adapter4rec.utils.errors import EXIT_USER_ERROR, run_main
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.machine import gpu_count
from adapter4rec.utils.processes import run


def launch_study(study: Study) -> NoReturn:
    """Run a study with the options of the command line. Exits with 0 if all of its runs have finished."""
    run_main(lambda: carry_out(Campaign(study, sys.argv[1:])))


def carry_out(campaign: Campaign) -> int:
    """Run everything that is not finished yet, and write the report; with ``--dry_run``, print the plan.

    Returns:
        The exit code.

    Raises:
        UserError: an invalid setting, or a missing file.
        KeyboardInterrupt: the study or one of its runs was interrupted.
    """
    if campaign.how.dry_run:
        print_plan(campaign)
        return 0
    if campaign.how.sample:
        campaign.quickstart.prepare(campaign.quickstart)
    for row in campaign.rows:  # a missing file is reported before the first run
        run_key(campaign.settings_of(row))
    runner = Runner(campaign.ledger, campaign.how.jobs, campaign.how.processes, gpu_count())
    campaign.write_plan()
    try:
        missing = [name for name in campaign.wanted_sources() if campaign.source_model(name) is None]
        runner.carry_out([campaign.source_run(name)[0] for name in missing])
        campaign.write_plan()
        _run_rows(campaign, runner)
        if campaign.ledger.exists():
            finished = finished_runs(campaign.ledger).values()
            draw_examples([record for record in finished if record["stage"] == "image target"])
    finally:
        _report(campaign.ledger)
    for name in runner.failed:
        print(f"failed: {name}")
    return EXIT_USER_ERROR if runner.failed else 0


def _run_rows(campaign: Campaign, runner: Runner) -> None:
    finished, done = finished_runs(campaign.ledger), 0
    runs: list[PlannedRun] = []
    for seed in campaign.how.seeds:  # seeds in the outer loop: an interrupted study has complete seeds
        for row in campaign.rows:
            run = campaign.target_run(row, seed)
            if run is None:
                runner.failed.append(f"{row.label}, seed {seed} (no source model)")
            elif run.key in finished:
                done += 1
            else:
                runs.append(run)
    if done:
        print(f"{done} of {len(campaign.rows) * len(campaign.how.seeds)} runs are already finished")
    runner.carry_out(runs)


def draw_examples(runs: Collection[Mapping[str, Any]]) -> Path | None:
    """Draw recommendations of the best run on images, by validation HR@10, in its folder.

    Args:
        runs: records of finished runs.

    Returns:
        The contact sheet, which reports show; None if no run encodes images.
    """
    shown = [run for run in runs if run["settings"].get("images") and reads_content(run["settings"])]
    if not shown:
        return None
    best = max(shown, key=lambda run: float(run["validation"].get("HR@10", 0)))
    sheet = Path(best["folder"]) / SHEET_FILE
    command = [sys.executable, "-m", "adapter4rec.recommend", best["folder"], "--sheet", str(sheet)]
    if not sheet.is_file():
        print(f"drawing recommendations of {best['folder']}", flush=True)
        run([*command, "--top-k", "6"], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    return sheet if sheet.is_file() else None


def _report(ledger: Path) -> None:
    from adapter4rec.report.writing import write_report

    if not ledger.exists():
        return
    for path in write_report([ledger]):
        if path.suffix in (".html", ".md"):
            print(f"report   {path}")


def print_plan(campaign: Campaign) -> None:
    """Print the runs of a study, which of them are finished, and an estimate of the remaining time.

    The estimate is the number of sequences to train on times the mean time per sequence of the finished runs.
    """
    finished = finished_runs(campaign.ledger)
    remaining: list[RunSettings] = []
    print(f"{campaign.title}\nfolder {campaign.into}\n")
    for name in campaign.wanted_sources():
        model = campaign.source_model(name)
        training = campaign.source.from_values(campaign.source_values(name))
        print(f"source {name}: {model or 'not trained yet'}\n    {command_of(training)}")
        remaining += [] if model else [training]
    for row in campaign.rows:
        runs = [campaign.target_run(row, seed) for seed in campaign.how.seeds]
        missing = sum(run is None or run.key not in finished for run in runs)
        settings = campaign.settings_of(row)
        print(f"{row.label}: {len(runs)} seeds, {len(runs) - missing} finished\n    {command_of(settings)}")
        remaining += missing * [settings]
    print(f"\n{len(remaining)} runs remain", end="")
    trained = [record for record in finished.values() if record["seconds"]]
    if trained and all(settings.users.is_file() for settings in remaining):
        sequences = sum(record["domain"]["users"] * _passes(record["settings"]) for record in trained)
        pace = sum(record["seconds"] for record in trained) / sequences / campaign.how.jobs
        print(f", roughly {pace * sum(map(_sequences, remaining)) / 3600:,.1f} hours of training")
    else:
        print("; their time can be estimated once one has finished")


def _sequences(settings: RunSettings) -> float:
    """Number of sequences that a run trains on, over all epochs."""
    with settings.users.open("rb") as users:
        return sum(1 for _ in users) * _passes(settings.plain()) if settings.trained_parts else 0.0


def _passes(settings: Mapping[str, Any]) -> float:
    """Number of passes over all users."""
    return float(settings["epochs"] * settings["user_share"])
