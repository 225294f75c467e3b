"""The plan of a study, with estimates of time and disk space from runs that have finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.runs.ledger import FINISHED, Record, command_of, read_ledger
from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies.campaign import Campaign


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run.

    Attributes:
        seconds: time of training and validation.
        bytes: size of the run folder.
        basis: the finished run that the estimate is taken from.
    """

    seconds: float
    bytes: int
    basis: str

    @classmethod
    def of(cls, record: Record, basis: str, ratio: float = 1) -> Estimate:
        """From a finished run, with its time multiplied by a ratio."""
        seconds = record["seconds"] + sum(epoch.get("evaluation_seconds", 0) for epoch in record["epochs"])
        files = [path for path in Path(record["folder"]).rglob("*") if path.is_file()]
        return cls(ratio * seconds, sum(path.stat().st_size for path in files), f"{basis} {record['name']}")


def estimate(settings: RunSettings, finished: Sequence[Record]) -> Estimate | None:
    """Estimate the cost of a run.

    From a finished run that differs in the seed only, or else from the last finished training, in proportion
    to the number of trained sequences.

    Args:
        settings: settings of the run.
        finished: records of finished runs.

    Returns:
        The estimate; None if no finished run or no file of users to count is there.
    """
    row = settings.plain(runtime=False) | {"epochs": settings.epochs}
    del row["seed"]
    for record in finished:
        if row.items() <= record["settings"].items():
            return Estimate.of(record, "as")
    trained = [record for record in finished if record["seconds"]]
    if not trained or not settings.trained_parts or not settings.users.is_file():
        return None
    with settings.users.open("rb") as lines:
        users = sum(1 for _ in lines)
    last = trained[-1]
    ratio = users * _passes(settings.plain()) / (last["domain"]["users"] * _passes(last["settings"]))
    return Estimate.of(last, "scaled from", ratio)


def _passes(settings: Record) -> float:
    """Number of passes over all users."""
    return float(settings["epochs"] * settings["user_share"])


def print_plan(campaign: Campaign) -> None:
    """Print the runs of a study, which of them are finished, and an estimate of the remaining cost."""
    ledger = campaign.into / "ledger.jsonl"
    records = read_ledger(ledger) if ledger.exists() else []
    finished = [record for record in records if record["outcome"] == FINISHED]
    keys = {record["key"] for record in finished}
    print(f"{campaign.title}\nfolder {campaign.into}\n")
    costs: list[tuple[int, Estimate | None]] = []
    for name in campaign.wanted_sources():
        model = campaign.source_model(name)
        if model is not None:
            print(f"source {name}: {model}")
            continue
        training = campaign.source.from_values(campaign.source_values(name))
        costs.append((1, _show(f"source {name}", training, finished)))
    for row in campaign.rows:
        runs = [campaign.target_run(row, seed) for seed in campaign.how.seeds]
        missing = sum(run is None or run.key not in keys for run in runs)
        settings = campaign.settings_of(row)
        what = f"{row.label}: {len(runs)} seeds, {len(runs) - missing} finished"
        costs.append((missing, _show(what, settings, finished)))
    hours = sum(count * cost.seconds for count, cost in costs if cost) / 3600 / campaign.how.jobs
    size = sum(count * cost.bytes for count, cost in costs if cost) / 2**30
    unknown = sum(count for count, cost in costs if cost is None)
    print(f"\nremaining, roughly: {hours:,.1f} hours, {size:,.2f} GiB of disk space", end="")
    print(f", and {unknown} runs of unknown cost" if unknown else "")


def _show(what: str, settings: RunSettings, finished: Sequence[Record]) -> Estimate | None:
    """Print runs with equal settings, and return the estimate for one of them."""
    cost = estimate(settings, finished)
    known = cost and f"{cost.seconds / 60:,.1f} min, {cost.bytes / 2**20:,.0f} MiB each ({cost.basis})"
    print(f"{what}; {known or 'cost unknown'}\n    {command_of(settings)}")
    return cost
