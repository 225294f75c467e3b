"""A study with the options of its command line: which runs it consists of, and their settings."""

from __future__ import annotations

import fnmatch
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapter4rec.runs.ledger import command_of
from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies import samples
from adapter4rec.studies.plan import (
    PlannedRun,
    Study,
    StudyRow,
    known_part,
    planned,
    require_distinct,
    source_settings,
    target_settings,
)
from adapter4rec.utils.command_line import parse_command_line
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import REPOSITORY, write_json
from adapter4rec.utils.settings import Option, Settings, Values, option, options_of

_SOURCE = "source_"
_SET_BY_STUDY = ("run_folder", "ledger", "resume", "mode")
"""Settings that a study sets itself; they are not options of its command line."""
FEW_STEPS_RATES = {
    "lr_backbone": 1e-4,
    "lr_item_head": 1e-3,
    "lr_user_encoder": 1e-3,
    "lr_adapter": 2e-3,
    "lr_item_layer_norms": 5e-4,
    "lr_user_layer_norms": 1e-3,
}
"""Learning rates for training with hundreds of steps instead of tens of thousands."""


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
    dry_run: bool = option(False, "print the runs with an estimate of time and disk space, and exit")


class Campaign:
    """A study with the options of its command line.

    Args:
        study: the study.
        how: options of the study.
        overrides: settings of target runs, applied to all rows that have them.
        source_overrides: settings of source runs.

    Raises:
        UserError: no row matches ``--only``.
    """

    def __init__(self, study: Study, how: StudyOptions, overrides: Values, source_overrides: Values) -> None:
        self.study = study
        self.how = how
        self.overrides = overrides
        self.source_overrides = source_overrides
        name = f"{study.name}_sample" if how.sample else study.name
        self.into = (how.into or REPOSITORY / "runs" / name).absolute()
        self.rows = _selected(study.rows, how.only)
        self.seeds = how.seeds
        self.target = target_settings(study.modality)
        self.source = source_settings(study.modality)

    @classmethod
    def of(cls, study: Study, arguments: list[str]) -> Campaign:
        """Parse a command line.

        Raises:
            UserError: an unknown option or an invalid value.
        """
        own = options_of(StudyOptions)
        run_options = _options_of_rows(study)
        source_options = {
            _SOURCE + name: one
            for name, one in source_settings(study.modality).options({}).items()
            if _SOURCE + name not in run_options and name not in (*_SET_BY_STUDY, "export")
        }
        known = own | run_options | source_options
        lists = parse_command_line(arguments, known, study.title)
        single = {name: _one(name, values, own) for name, values in lists.items()}
        study_values = {name: value for name, value in single.items() if name in own}
        how = StudyOptions.from_values({"seeds": tuple(study.seeds)} | study_values)
        overrides = {name: value for name, value in single.items() if name in run_options}
        sources = {
            name.removeprefix(_SOURCE): value for name, value in single.items() if name in source_options
        }
        cwd = Path.cwd()
        overrides = {name: run_options[name].anchored(value, cwd) for name, value in overrides.items()}
        sources = {
            name: source_options[_SOURCE + name].anchored(value, cwd) for name, value in sources.items()
        }
        if how.into is not None:
            how = replace(how, into=cwd / how.into)
        return cls(samples.on_sample(study) if how.sample else study, how, overrides, sources)

    def row_values(self, row: StudyRow) -> Values:
        """Settings of the runs of a row, without seed, source model and run folder."""
        values = _anchored(self.target, row.settings)
        if self.how.few_steps or self.how.sample:
            values |= FEW_STEPS_RATES | dict(row.few_steps)
        values |= self.overrides
        return known_part(self.target, values, values.get("method"))

    def distinct_rows(self) -> dict[str, RunSettings]:
        """Validated settings of each row by its label, without seed, source model and run folder.

        Raises:
            UserError: an invalid setting, or two rows with the same settings.
        """
        settings = {row.label: self.target.from_values(self.row_values(row)) for row in self.rows}
        require_distinct(self.study, settings)
        return settings

    def stages(self, name: str) -> list[Values]:
        """Settings of the runs that train a source model, in order."""
        stages = self.study.sources[name].stages
        return [_anchored(self.source, stage) | self.source_overrides for stage in stages]

    def checkpoint(self, name: str) -> Path | None:
        """Checkpoint of a source model if it exists and no source setting is overridden."""
        place = None if self.source_overrides else self.study.sources[name].checkpoint
        path = REPOSITORY / place if place else None
        return path if path is not None and path.is_file() else None

    def source_runs(self, name: str) -> tuple[list[PlannedRun], Path | None]:
        """Plan the runs that train a source model.

        The settings of a stage depend on the model of the previous one, so a stage is planned once the
        previous one has been exported.

        Returns:
            The runs that can be planned now, and the path of the final model; None if not all stages can be
            planned.

        Raises:
            UserError: an invalid setting or a missing file.
        """
        ready = self.checkpoint(name)
        if ready is not None:
            return [], ready
        runs: list[PlannedRun] = []
        start: Path | None = None
        stages = self.stages(name)
        for number, stage in enumerate(stages, 1):
            if start is not None and not start.is_file():
                return runs, None
            values = stage | ({} if start is None else {"start_from": start})
            title = f"source {name}" + (f", stage {number}" if len(stages) > 1 else "")
            run = planned(self.source, values, title, self.into)
            start = self.into / "sources" / f"{run.folder.name}.safetensors"
            runs.append(replace(run, settings=replace(run.settings, export=start)))
        return runs, start

    def target_run(self, row: StudyRow, seed: int) -> PlannedRun | None:
        """The run of a row with a seed; None if its source model does not exist yet.

        Raises:
            UserError: an invalid setting or a missing file.
        """
        values = self.row_values(row) | {"seed": seed}
        if row.source is not None and "source_checkpoint" not in self.overrides:
            _, path = self.source_runs(row.source)
            if path is None or not path.is_file():
                return None
            values["source_checkpoint"] = path
        return planned(self.target, values, f"{row.label}, seed {seed}", self.into)

    def _run_if_known(self, row: StudyRow, seed: int) -> PlannedRun | None:
        """:meth:`target_run`; also None for a row that is not selected and whose data is missing."""
        try:
            return self.target_run(row, seed)
        except UserError:
            if row in self.rows:
                raise
            return None

    def wanted_sources(self) -> list[str]:
        """Names of the source models of the selected rows."""
        if "source_checkpoint" in self.overrides:
            return []
        return list(dict.fromkeys(row.source for row in self.rows if row.source is not None))

    def write_plan(self) -> None:
        """Write ``study.json`` for the report next to the ledger. It lists all rows, selected or not."""
        study = self.study
        rows = []
        for row in study.rows:
            runs = []
            for seed in self.seeds:
                run = self._run_if_known(row, seed)
                runs.append(
                    {
                        "seed": seed,
                        "key": run.key if run else None,
                        "folder": str(run.folder) if run else "",
                        "command": command_of(run.settings, without=("ledger",)) if run else "",
                    }
                )
            names = {"section": row.section, "name": row.name, "series": row.series or row.name}
            rows.append(names | {"scale": row.scale, "runs": runs})
        write_json(
            self.into / "study.json",
            {
                "study": study.name,
                "title": study.title,
                "about": study.about,
                "command": shlex.join(["python", f"{study.name}.py", *sys.argv[1:]]),
                "reference": study.reference,
                "groups": study.groups,
                "scale": {"label": study.scale_label} if study.scale_label else None,
                "rows": rows,
            },
        )


def _options_of_rows(study: Study) -> dict[str, Option]:
    cls = target_settings(study.modality)
    options: dict[str, Option] = {}
    for row in study.rows:
        options |= cls.options(row.settings)
    return {name: one for name, one in options.items() if name not in (*_SET_BY_STUDY, "seed")}


def _one(name: str, values: list[Any], own: Mapping[str, Option]) -> Any:
    """The value of an option of the command line; options of the study may take several words."""
    if name in own and own[name].several:  # row names may contain commas, so strings are not split
        return tuple(values) if own[name].kind is str else tuple(",".join(map(str, values)).split(","))
    if len(values) > 1:
        raise UserError(
            f"--{name} {' '.join(map(str, values))}: expected one value; to vary a setting, add rows to the "
            "study script"
        )
    return values[0]


def _anchored(cls: type[Settings], page: Mapping[str, Any]) -> Values:
    """Settings of a study script, with paths resolved relative to the repository."""
    known = cls.options({"method": page["method"]} if "method" in page else {})
    return {
        name: known[name].anchored(value, REPOSITORY) if name in known else value
        for name, value in page.items()
    }


def _selected(rows: tuple[StudyRow, ...] | list[StudyRow], only: tuple[str, ...]) -> list[StudyRow]:
    selected: list[StudyRow] = []
    for pattern in only:
        found = [row for row in rows if _matches(row, pattern.lower())]
        if not found:
            raise UserError(f"--only {pattern}: no such row; {nearest(pattern, [row.label for row in rows])}")
        selected += [row for row in found if row not in selected]
    return [row for row in rows if row in selected]


def _matches(row: StudyRow, pattern: str) -> bool:
    names = (row.name, row.label, row.section)
    return any(fnmatch.fnmatch(name.lower(), pattern) for name in names)
