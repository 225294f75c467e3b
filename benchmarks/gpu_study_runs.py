"""The runs of the study of real data (:mod:`benchmarks.gpu_study`) and their order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapter4rec.runs.ledger import FINISHED, read_ledger
from adapter4rec.utils.files import write_json
from benchmarks.gpu_study_rows import (
    FEW,
    FEWER,
    FROM_HEAD,
    HEAD,
    LADDER,
    LOW_DATA,
    METHODS,
    PASSES,
    SEEDS,
    SINGLE,
    SOURCE,
    TRAINED,
    Values,
    is_cheap,
    scaled,
    start_of,
)


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        name: name of the run.
        module: the module of its tree.
        settings: settings that differ from the defaults.
        section: section of the report.
        row: row of the section.
        needs: name of the folder of the run that must have finished before; None if there is none.
    """

    name: str
    module: str
    settings: Values
    section: str
    row: str
    needs: str | None = None

    @property
    def folder(self) -> str:
        """Name of the run folder."""
        return self.name.replace(",", "").replace(" ", "_")


@dataclass
class Study:
    """The runs of the study, as far as they are known from the results so far.

    Attributes:
        data: folder of the two domains.
        into: folder of the runs and of the ledger.
        common: settings of every run.
        source_factors: factors of the source's learning rates that are tried.
        source_file: a source model in place of those of the study; None: train them.
        results: records of the finished runs, by name of the run folder.
    """

    data: Path
    into: Path
    common: Values
    source_factors: tuple[float, ...] = (1.0, 3.0)
    source_file: Path | None = None
    results: dict[str, Any] = field(default_factory=dict)

    def read(self) -> None:
        """Read the results of the finished runs."""
        ledger = self.into / "ledger.jsonl"
        records = read_ledger(ledger) if ledger.is_file() else []
        self.results = {one["name"]: one for one in records if one["outcome"] == FINISHED}

    def tasks(self) -> Iterator[Task]:
        """All runs that can be started now or have finished, the most important first."""
        return (task for task in self._known_tasks() if task.needs is None or task.needs in self.results)

    def write_plan(self) -> None:
        """Write ``study.json``, by which ``python -m adapter4rec.report`` makes the tables of the ledger."""
        rows: dict[tuple[str, str], list[Values]] = {}
        for task in self._known_tasks():
            if record := self.results.get(task.folder):
                run = {name: record[name] for name in ("seed", "key", "folder", "command")}
                runs = rows.setdefault((task.section, task.row), [])
                runs += [run] if run not in runs else []
        plan = {
            "study": "real_data",
            "title": "Scientific to Instruments",
            "about": "Does adaptation work? A source domain, a target domain, and full-catalogue ranking.",
            "reference": "full fine-tuning",
            "groups": True,
            "rows": [
                {"section": section, "name": row, "scale": None, "runs": runs}
                for (section, row), runs in sorted(rows.items(), key=lambda one: one[0][0])
            ],
        }
        write_json(self.into / "study.json", plan)

    def _known_tasks(self) -> Iterator[Task]:
        """All runs that can be named now."""
        best = self.source_file
        if best is None:
            sources = [self.source(factor) for factor in self.source_factors]
            for head, all_weights in sources:
                yield from (head, all_weights)
            best = self.best([all_weights for _, all_weights in sources])
        yield from self.searches(best, METHODS)
        for seed in SEEDS:
            for name, values in METHODS.items():
                yield from self.target(name, values, best, seed)
        for share in (FEWER, FEW):
            for seed in SEEDS:
                for name in LOW_DATA:
                    yield from self.target(name, METHODS[name], best, seed, share)
        yield from self.searches(best, SINGLE)
        for name, values in SINGLE.items():
            yield from self.target(name, values, best, SEEDS[0])
        yield from self.further(best)

    def searches(self, source: Path | None, names: Collection[str]) -> Iterator[Task]:
        """The runs that search the learning rates of the named rows."""
        for share in (FEW, 1.0):
            section = "Search of rates" + (f", {FEW:.0%} of the users" if share == FEW else "")
            for name, values in ((name, TRAINED[name]) for name in names if name in TRAINED):
                for factor in self.factors(name, share):
                    for task in self._of_target(name, values, factor, source, SEEDS[0], share):
                        yield replace(task, section=section, row=f"{name} x{factor}")

    def further(self, source: Path | None) -> Iterator[Task]:
        """Larger batches, fractions of the source's users, and CPC: what a CPU does not reach."""
        for name in ("full fine-tuning", "Houlsby"):
            larger = METHODS[name] | {"batch_size": 256}
            yield from self.target(f"{name}, batch 256", larger, source, 1)
        for note, changed in (
            ("a quarter of the users", {"user_share": 0.25}),
            ("half of the users", {"user_share": 0.5}),
            ("cpc", {"objective": "cpc"}),
        ):
            source_head, other = self.source(1.0, f", {note}", changed)
            yield from (source_head, other)
            same = {key: value for key, value in changed.items() if key == "objective"}
            for name in ("head", "full fine-tuning", "Houlsby"):
                row = f"{name}, source {note}"
                yield from self.target(row, METHODS[name] | same, self.best([other]), 1)

    def source(
        self, factor: float, note: str = "", changed: Mapping[str, Any] | None = None
    ) -> tuple[Task, Task]:
        """The two runs of a source model: the head, then all weights, from that head."""
        head = self._of_source(f"head{note}", HEAD | dict(changed or {}))
        values = scaled(FROM_HEAD, factor) | {"start_from": head.settings["export"]} | dict(changed or {})
        return head, self._of_source(f"all x{factor}{note}", values, needs=head.folder)

    def _of_source(self, row: str, values: Values, needs: str | None = None) -> Task:
        name = f"source {row}"
        task = Task(name, "Pretraining.Text.train", {}, "Source, Scientific", row, needs)
        export = self.into / task.folder / "source.safetensors"
        return replace(task, settings=self._of_domain("Scientific") | values | {"export": export})

    def target(
        self, name: str, values: Values, source: Path | None, seed: int, share: float = 1.0
    ) -> Iterator[Task]:
        """The run of a row with the best rates of its method, as soon as they are known."""
        method = name.split(",", maxsplit=1)[0]
        factor = self.best_factor(method, share) if method in TRAINED else 1.0
        if factor is not None:
            yield from self._of_target(name, values, factor, source, seed, share)

    def _of_target(
        self, name: str, values: Values, factor: float, source: Path | None, seed: int, share: float
    ) -> Iterator[Task]:
        """A run on the target domain; none if the model that it starts from is not known yet."""
        full_name = f"target {name} users {share} x{factor} seed{seed}"
        task = Task(full_name, "Downstream.Text.train", {}, _section(share), name)
        settings = self._of_domain("Instruments") | scaled(values, factor) | {"seed": seed}
        if values["method"] != "popularity":
            times, every = PASSES[share]
            epochs = round(settings["epochs"] * times)
            settings |= {"user_share": share, "epochs": epochs, "eval_every": min(every, epochs)}
        if values["method"] == "head":
            task = replace(task, module="Pretraining.Text.train")
            settings["export"] = self.into / task.folder / "head.safetensors"
        start = start_of(name)
        if start is None:
            yield replace(task, settings=settings)
        elif start == SOURCE:
            option = "start_from" if values["method"] == "head" else "source_checkpoint"
            if source:
                yield replace(task, settings=settings | {option: source})
        else:
            for head in self.target(start, METHODS["head"], source, seed, share):
                settings["source_checkpoint"] = head.settings["export"]
                yield replace(task, settings=settings, needs=head.folder)

    def best(self, tasks: list[Task]) -> Path | None:
        """The source model with the highest validation HR@10; None before all have finished."""
        if any(task.folder not in self.results for task in tasks):
            return None
        best = max(tasks, key=lambda task: self.results[task.folder]["validation"]["HR@10"])
        exported: Path = best.settings["export"]
        return exported

    def factors(self, name: str, share: float = FEW) -> list[float]:
        """The factors of a method's rates that are tried on a share of the users, as far as they are known.

        The best rates of few users may be too high for all. Where all users are expensive, only the two best
        ones are compared there, and lower ones while the lowest is the best.
        """
        tried, above = [1.0, 3.0], 2
        if share == 1.0 and not is_cheap(name):
            few = self._scores(name, self.factors(name), FEW)
            tried, above = sorted(few, key=few.__getitem__)[-2:], 1
        while scores := self._scores(name, tried, share):
            place = LADDER.index(max(scores, key=scores.__getitem__))
            further = [one for one in LADDER[max(place - 1, 0) : place + above] if one not in tried]
            if not further:
                break
            tried += further
        return tried

    def best_factor(self, name: str, share: float = FEW) -> float | None:
        """The factor of a method's rates with the highest validation HR@10; None before the search ends."""
        share = max(share, FEW)  # fewer users have the rates of a fifth
        scores = self._scores(name, self.factors(name, share), share)
        return max(scores, key=scores.__getitem__, default=None)

    def _scores(self, name: str, factors: list[float], share: float) -> dict[float, float]:
        """Validation HR@10 by factor; empty before all runs have finished."""
        folder = f"target {name} users {share} x{{}} seed{SEEDS[0]}".replace(",", "").replace(" ", "_")
        found = {factor: self.results.get(folder.format(factor)) for factor in factors}
        scores = {factor: one["validation"]["HR@10"] for factor, one in found.items() if one}
        return scores if len(scores) == len(factors) else {}

    def _of_domain(self, name: str) -> Values:
        users, items = self.data / name / "users.tsv", self.data / name / "items.tsv"
        return {"users": users, "items": items} | self.common


def _section(share: float) -> str:
    return "Target, Instruments" + ("" if share == 1.0 else f", {share:.0%} of the users")
