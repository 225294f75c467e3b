"""The runs of the study of real data (:mod:`benchmarks.gpu_study`): their settings and their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapter4rec.runs.ledger import FINISHED, read_ledger
from adapter4rec.utils.files import write_json

Values = dict[str, Any]

LADDER = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Factors of the learning rates: 1 and 3 are tried, then what is next to the best one."""
SEEDS = (1, 2, 3)
FEW, FEWER = 0.2, 0.05
"""Shares of the target's 10,000 users: 2,000, also for the search of rates, and 500."""

_PASSES = {1.0: (1.0, 1), FEW: (1.5, 3), FEWER: (4.0, 6)}
"""By share of the users: factor of the epochs, and epochs between validations."""

_CHEAP = {"loss": "mixed", "negatives": 512, "epochs": 40, "patience": 8}
"""Rows whose item embeddings are cheap (head, id tower); others have the loss and the epochs of the call.
Their rates for all users are searched on all users: the best ones of 2,000 users are too high there."""
_DECAY = {"schedule": "linear", "warmup_steps": 50, "clip_norm": 1.0}
"""Rows that compute the backbone in each step: few epochs, which the decay makes good use of."""
_ALL = {"lr_backbone": 1e-4, "lr_item_head": 1e-3, "lr_user_encoder": 1e-3} | _DECAY
_HEAD = {"method": "head", "lr_item_head": 1e-3, "lr_user_encoder": 1e-3} | _CHEAP
_FROM_HEAD = {"method": "all"} | _ALL
"""The second step of the source model; its optimizer starts anew beside a trained head."""
_HOULSBY = {"method": "houlsby", "item_bottleneck": 64, "lr_adapter": 3e-3} | _DECAY

METHODS: dict[str, Values] = {
    "popularity": {"method": "popularity"},
    "head without source": _HEAD,
    "head": _HEAD,
    "id tower": {"method": "id", "lr_item_head": 1e-2, "lr_user_encoder": 1e-3} | _CHEAP,
    "full fine-tuning": {"method": "finetune"} | _ALL,
    "Houlsby": _HOULSBY,
    "from scratch": {"method": "scratch"} | _ALL,
    "LoRA": {"method": "lora", "lr_adapter": 3e-3} | _DECAY,
}
"""Rows of three seeds; the backbone and the user encoder are adapted unless the method says otherwise."""
SINGLE: dict[str, Values] = {
    "frozen": {"method": "frozen"},
    "Houlsby, head trained": _HOULSBY | {"train_head": True, "lr_item_head": 1e-3},
    "Houlsby, directly": _HOULSBY,
    "full fine-tuning, after the head": {"method": "finetune"} | _ALL,
    "Houlsby, without source": _HOULSBY,
    "full fine-tuning, without source": {"method": "finetune"} | _ALL,
    "Pfeiffer": {"method": "pfeiffer", "lr_adapter": 3e-3} | _DECAY,
    "Compacter": {"method": "compacter", "lr_adapter": 4e-3, "lr_rule": 1e-3} | _DECAY,
    "K-Adapter": {"method": "k_adapter", "item_inner": 192, "cache_frozen": True}
    | {"lr_adapter": 1e-4, "lr_item_join": 5e-4, "lr_user_join": 1e-3}
    | _DECAY,
    "BitFit": {"method": "bitfit", "lr_adapter": 1e-3} | _DECAY,
    "full fine-tuning, bce": {"method": "finetune", "loss": "bce"} | _ALL,
    "Houlsby, bce": _HOULSBY | {"loss": "bce"},
    "Houlsby, item encoder": _HOULSBY | {"encoders": "item"},
    "Houlsby, user encoder": _HOULSBY | {"encoders": "user"},
}
"""Rows of one seed, in the order of their importance."""
LOW_DATA = ("head without source", "head", "from scratch", "full fine-tuning", "Houlsby", "LoRA")
TRAINED = {
    name: values
    for name, values in (METHODS | SINGLE).items()
    if values["method"] not in ("popularity", "frozen") and "," not in name
}
"""Rows whose learning rates are searched; "Houlsby, …" has those of Houlsby."""
_SOURCE = "source"


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
        yield from self.searches(best)
        for seed in SEEDS:
            for name, values in METHODS.items():
                yield from self.target(name, values, best, seed)
        for name, values in SINGLE.items():
            yield from self.target(name, values, best, SEEDS[0])
        for share in (FEWER, FEW):
            for seed in SEEDS:
                for name in LOW_DATA:
                    yield from self.target(name, METHODS[name], best, seed, share)
        yield from self.further(best)

    def searches(self, source: Path | None) -> Iterator[Task]:
        """The runs that search the learning rates of each method."""
        for share in (FEW, 1.0):
            section = "Search of rates" + (f", {FEW:.0%} of the users" if share == FEW else "")
            for name, values in TRAINED.items():
                for factor in self.factors(name, share) if share == _searched_on(name, share) else []:
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
        head = self._of_source(f"head{note}", _HEAD | dict(changed or {}))
        values = _scaled(_FROM_HEAD, factor) | {"start_from": head.settings["export"]} | dict(changed or {})
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
        settings = self._of_domain("Instruments") | _scaled(values, factor) | {"seed": seed}
        if values["method"] != "popularity":
            times, every = _PASSES[share]
            epochs = round(settings["epochs"] * times)
            settings |= {"user_share": share, "epochs": epochs, "eval_every": min(every, epochs)}
        if values["method"] == "head":
            task = replace(task, module="Pretraining.Text.train")
            settings["export"] = self.into / task.folder / "head.safetensors"
        start = _start(name)
        if start is None:
            yield replace(task, settings=settings)
        elif start == _SOURCE:
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
        """The factors of a method's rates that are searched, as far as they are known."""
        tried = [1.0, 3.0]
        while best := self._best_of(name, tried, _searched_on(name, share)):
            place = LADDER.index(best)
            further = [one for one in LADDER[max(place - 1, 0) : place + 2] if one not in tried]
            if not further:
                break
            tried += further
        return tried

    def best_factor(self, name: str, share: float = FEW) -> float | None:
        """The factor of a method's rates with the highest validation HR@10; None before the search ends."""
        return self._best_of(name, self.factors(name, share), _searched_on(name, share))

    def _best_of(self, name: str, factors: list[float], share: float) -> float | None:
        folder = f"target {name} users {share} x{{}} seed{SEEDS[0]}".replace(",", "").replace(" ", "_")
        found = {factor: self.results.get(folder.format(factor)) for factor in factors}
        scores = {factor: one["validation"]["HR@10"] for factor, one in found.items() if one}
        return max(scores, key=scores.__getitem__) if len(scores) == len(factors) else None

    def _of_domain(self, name: str) -> Values:
        users, items = self.data / name / "users.tsv", self.data / name / "items.tsv"
        return {"users": users, "items": items} | self.common


def _scaled(values: Mapping[str, Any], factor: float) -> Values:
    """Settings with all learning rates multiplied by a factor."""
    return {
        name: float(f"{value * factor:.3g}") if name.startswith("lr_") else value
        for name, value in values.items()
    }


def _start(name: str) -> str | None:
    """What a row starts from: the source model, the head of the named row on the same users, or None."""
    method, _, note = name.partition(", ")
    if method in ("popularity", "id tower", "head without source", "from scratch"):
        return None
    if note == "without source":
        return "head without source"
    of_source = method in ("head", "frozen", "full fine-tuning") and note != "after the head"
    if of_source or note == "directly":
        return _SOURCE
    return f"head, {note}" if note.startswith("source") else "head"


def _searched_on(name: str, share: float) -> float:
    """The share of the users on which the rates of a row are searched."""
    return 1.0 if share == 1.0 and TRAINED[name].get("loss") == _CHEAP["loss"] else FEW


def _section(share: float) -> str:
    return "Target, Instruments" + ("" if share == 1.0 else f", {share:.0%} of the users")
