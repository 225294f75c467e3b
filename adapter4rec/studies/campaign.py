"""A study with the options of its command line: which runs it consists of, and their settings."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapter4rec.runs.ledger import command_of, run_key
from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies.plan import PlannedRun, Study, StudyRow
from adapter4rec.studies.quickstarts import QUICKSTARTS
from adapter4rec.utils.command_line import from_script, parse_command_line, single_values
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import REPOSITORY, write_json
from adapter4rec.utils.settings import Option, Settings, Values, option, options_of

if TYPE_CHECKING:
    from adapter4rec.runs.exporting import SourceRunSettings

_SOURCE = "source_"
_SET_BY_STUDY = ("run_folder", "ledger", "resume", "mode", "export")
"""Settings that a study sets itself; they are not options of its command line."""
_FEW_STEPS: Values = {
    "lr_backbone": 1e-4,
    "lr_item_head": 1e-3,
    "lr_user_encoder": 1e-3,
    "lr_adapter": 2e-3,
    "lr_item_layer_norms": 5e-4,
    "lr_user_layer_norms": 1e-3,
}
"""Learning rates for training with hundreds of steps instead of tens of thousands."""
_FEW_STEPS_BY_METHOD: dict[str, Values] = {
    "k_adapter": {"lr_adapter": 1e-4, "lr_item_join": 5e-4, "lr_user_join": 1e-3},
    "lora": {"lr_adapter": 5e-3},
    "compacter": {"lr_adapter": 4e-3, "lr_rule": 1e-3},
    "prompt": {"prompt_tokens": 5, "lr_adapter": 5e-3},
    "bitfit": {"lr_adapter": 1e-3},
    "peft": {"lr_adapter": 5e-3},
}
_SOURCE_OF_STUDY = ("objective", "user_share", "seed", "user_encoder", "pooling", "loss")
"""Settings of a source model that are taken from the study with ``--sample``."""


@dataclass(frozen=True)
class StudyOptions(Settings):
    """Command-line options of a study."""

    seeds: tuple[int, ...] = option((1,), "run each row with these seeds instead of the script's", least=0)
    only: tuple[str, ...] = option(
        ("*",), "run only these rows or sections; names or patterns such as *Houlsby*"
    )
    jobs: int = option(1, "number of runs in parallel", least=1)
    processes: int = option(1, "number of processes per run; with 2 GPUs and --jobs 1, use 2", least=1)
    into: Path | None = option(None, "folder of the study; default: runs/ and the name of the study")
    few_steps: bool = option(
        False, "higher learning rates for small data sets instead of the script's; implied by --sample"
    )
    sample: bool = option(False, "try the study on generated sample data with a small model")
    dry_run: bool = option(False, "print the runs with an estimate of their time, and exit")


class Campaign:
    """A study with the options of its command line.

    Args:
        study: the study.
        arguments: command-line arguments.

    Attributes:
        how: options of the study.
        title: title of the study.
        into: folder of the study.
        ledger: ledger of the study.
        source: settings class of the runs that train source models; it requires a checkout, as the next.
        target: settings class of the runs on the target domain.
        rows: the selected rows.
        overrides: settings of target runs, applied to all rows that have them.
        source_overrides: settings of source runs.

    Raises:
        UserError: an unknown option, an invalid setting, no row that matches ``--only``, an unknown source
            model, or two rows with the same name or settings.
    """

    def __init__(self, study: Study, arguments: Sequence[str]) -> None:
        self.study = study
        self.source: type[SourceRunSettings] = import_module(f"Pretraining.{study.tree}.train").Settings
        self.target: type[RunSettings] = import_module(f"Downstream.{study.tree}.train").Settings
        self.quickstart = next(one for one in QUICKSTARTS.values() if one.tree == study.tree)
        own, of_rows = options_of(StudyOptions), self._options_of_rows()
        of_sources = {
            _SOURCE + name: one
            for name, one in self.source.options({}).items()
            if _SOURCE + name not in of_rows and name not in _SET_BY_STUDY
        }
        own["seeds"] = replace(own["seeds"], default=study.seeds)
        given = parse_command_line(arguments, own | of_rows | of_sources, study.title)
        lists = {name: given.pop(name) for name in ("seeds", "only") if name in given}
        values = single_values(given)
        options = lists | {name: value for name, value in values.items() if name in own}
        self.how = StudyOptions.from_values({"seeds": study.seeds} | options)
        self.overrides = {name: value for name, value in values.items() if name in of_rows}
        self.source_overrides = {
            name.removeprefix(_SOURCE): value for name, value in values.items() if name in of_sources
        }
        for name in ("backbone", "pooling"):  # a target starts from a source with its item encoder
            if name in self.overrides:
                self.source_overrides.setdefault(name, self.overrides[name])
        self.title = study.title + (", on generated sample data" if self.how.sample else "")
        name = study.name + ("_sample" if self.how.sample else "")
        self.into = (self.how.into or REPOSITORY / "runs" / name).absolute()
        self.ledger = self.into / "ledger.jsonl"
        self.rows = _selected(study.rows, self.how.only)
        self._check_rows()

    def _options_of_rows(self) -> dict[str, Option]:
        """Settings of the rows that can be overridden."""
        not_here = (*_SET_BY_STUDY, "seed", "method")
        of_each = [self.target.options(row.settings) for row in self.study.rows]
        return {name: one for known in of_each for name, one in known.items() if name not in not_here}

    def _check_rows(self) -> None:
        seen: dict[str, str] = {}
        for row in self.rows:
            where = f"{self.study.name}: row {row.label!r}"
            if row.source is not None and row.source not in self.study.sources:
                hint = nearest(row.source, list(self.study.sources))
                raise UserError(f"{where}: unknown source model {row.source!r}; {hint}")
            values = self.settings_of(row).plain()
            same_run = [row.section, values["source_checkpoint"] or row.source, values]
            for what, key in (("name", row.label), ("settings", same_run)):
                text = json.dumps([what, key], sort_keys=True)
                if text in seen:
                    raise UserError(
                        f"{where} has the same {what} as row {seen[text]!r}: they would be one row or run; "
                        "remove one, or the option that overrides the setting in which they differ"
                    )
                seen[text] = row.label

    def row_values(self, row: StudyRow) -> Values:
        """Settings of the runs of a row, without seed, source model and run folder."""
        known = self.target.options(row.settings)
        further: Values = {}
        if self.how.sample:
            further |= self.quickstart.settings("target") | {"epochs": self.quickstart.study_epochs}
        if self.how.few_steps or self.how.sample:
            further |= _FEW_STEPS | _FEW_STEPS_BY_METHOD.get(row.settings.get("method", ""), {})
        further |= self.overrides
        further = {name: value for name, value in further.items() if name in known}
        return from_script(row.settings, known) | further

    def settings_of(self, row: StudyRow) -> RunSettings:
        """Validated settings of a row with the first seed, without source model and run folder."""
        return self.target.from_values(self.row_values(row) | {"seed": self.how.seeds[0]})

    def source_values(self, name: str) -> Values:
        """Settings of the run that trains a source model."""
        values = {key: value for key, value in self.study.sources[name].items() if key != "export"}
        if self.how.sample:
            kept = {key: value for key, value in values.items() if key in _SOURCE_OF_STUDY}
            values = self.quickstart.settings("source") | self.quickstart.study_source | kept
        return from_script(values, self.source.options({})) | self.source_overrides

    def _planned(self, settings: RunSettings, name: str) -> PlannedRun:
        # A run that can be continued for more epochs keeps its folder.
        suffix = run_key(replace(settings, epochs=0, patience=None) if settings.extendable else settings)[:8]
        slug = re.sub(r"[^a-z0-9.]+", "_", name.lower()).strip("_")
        folder = self.into / f"{slug}_{suffix}"
        return PlannedRun(name, replace(settings, run_folder=folder, resume=True), folder, run_key(settings))

    def source_run(self, name: str) -> tuple[PlannedRun, Path]:
        """The run that trains a source model, and the path to which it exports the model.

        Raises:
            UserError: an invalid setting or a missing file.
        """
        run = self._planned(self.source.from_values(self.source_values(name)), f"source {name}")
        ends = f"epochs{run.settings.epochs}"
        if run.settings.patience is not None:
            ends += f"_patience{run.settings.patience}"
        model = self.into / "sources" / f"{run.folder.name}_{ends}.safetensors"
        settings = self.source.from_values(run.settings.plain() | {"export": model})
        return replace(run, settings=settings), model

    def source_model(self, name: str) -> Path | None:
        """Path of a source model; None if it does not exist, or its data is missing.

        A checkpoint that a launcher has exported is used if no setting of the source differs.
        """
        path: str | None = self.study.sources[name].get("export")
        if path is not None and not self.how.sample and not self.source_overrides:
            exported = REPOSITORY / path
            if exported.is_file():
                return exported
        try:
            _, model = self.source_run(name)
        except UserError:
            return None
        return model if model.is_file() else None

    def target_run(self, row: StudyRow, seed: int) -> PlannedRun | None:
        """The run of a row with a seed; None if its source model or its data is missing."""
        values = self.row_values(row) | {"seed": seed}
        if row.source is not None and "source_checkpoint" not in self.overrides:
            values["source_checkpoint"] = self.source_model(row.source)
            if values["source_checkpoint"] is None:
                return None
        try:
            return self._planned(self.target.from_values(values), f"{row.label}, seed {seed}")
        except UserError:
            return None

    def wanted_sources(self) -> list[str]:
        """Names of the source models of the selected rows."""
        if "source_checkpoint" in self.overrides:
            return []
        return list(dict.fromkeys(row.source for row in self.rows if row.source is not None))

    def write_plan(self) -> None:
        """Write ``study.json``, the selected rows, for the report next to the ledger."""
        rows = []
        for row in self.rows:
            runs = [self._in_plan(row, seed) for seed in self.how.seeds]
            rows.append({"section": row.section, "name": row.name, "scale": row.scale, "runs": runs})
        study = self.study
        plan = {
            "study": study.name,
            "title": self.title,
            "about": study.about,
            "command": shlex.join(["python", f"{study.name}.py", *sys.argv[1:]]),
            "reference": study.reference,
            "groups": study.groups,
            "scale": {"label": study.scale_label} if study.scale_label else None,
            "rows": rows,
        }
        write_json(self.into / "study.json", plan)

    def _in_plan(self, row: StudyRow, seed: int) -> dict[str, Any]:
        run = self.target_run(row, seed)
        if run is None:
            return {"seed": seed, "key": None, "folder": "", "command": ""}
        command = command_of(run.settings, without=("ledger",))
        return {"seed": seed, "key": run.key, "folder": str(run.folder), "command": command}


def _selected(rows: Sequence[StudyRow], only: Sequence[str]) -> list[StudyRow]:
    """The rows whose name, label or section matches one of the patterns."""

    def matches(row: StudyRow, pattern: str) -> bool:
        return any(fnmatch(name.lower(), pattern.lower()) for name in (row.name, row.label, row.section))

    for pattern in only:
        if not any(matches(row, pattern) for row in rows):
            raise UserError(f"--only {pattern}: no such row; {nearest(pattern, [row.label for row in rows])}")
    return [row for row in rows if any(matches(row, pattern) for pattern in only)]
