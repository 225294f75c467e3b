"""Study scripts: a page of rows becomes runs, a ledger and a report.

What is finished is not done again: a study that was stopped, or to which a row or a seed was added, goes on
where it is. ``--name value`` sets a run's setting for all rows that know it, ``--source_name value`` one of
the source models' training.
"""

from __future__ import annotations

import fnmatch
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from adapter4rec.runs.ledger import command_of, run_key
from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies import estimating, samples
from adapter4rec.studies.plan import (
    PlannedRun,
    Study,
    StudyRow,
    known_part,
    planned,
    require_distinct,
    require_sound,
    source_settings,
    target_settings,
)
from adapter4rec.studies.running import Runner, exit_code
from adapter4rec.utils.command_line import parse_command_line
from adapter4rec.utils.errors import UserError, nearest, run_main
from adapter4rec.utils.files import REPOSITORY, write_json
from adapter4rec.utils.machine import gpu_count
from adapter4rec.utils.settings import Option, Settings, Values, option, options_of

_SOURCE = "source_"
_OF_THE_STUDY = ("run_folder", "ledger", "resume", "mode")
"""Settings that a study gives its runs, and the command line does not."""
FEW_STEPS_RATES = {
    "lr_backbone": 1e-4,
    "lr_item_head": 1e-3,
    "lr_user_encoder": 1e-3,
    "lr_adapter": 2e-3,
    "lr_item_layer_norms": 5e-4,
    "lr_user_layer_norms": 1e-3,
}
"""Learning rates where there are hundreds of steps and not tens of thousands."""


@dataclass(frozen=True)
class StudyOptions(Settings):
    """How a study is carried out."""

    seeds: tuple[int, ...] = option((1,), "run each row with these seeds instead of the page's", least=0)
    only: tuple[str, ...] = option(("*",), "only these rows, or sections: names, or patterns as *Houlsby*")
    jobs: int = option(1, "runs at once", least=1)
    processes: int = option(1, "processes of a run; with 2 GPUs and --jobs 1, take 2", least=1)
    into: Path | None = option(None, "folder of the study; by default runs/ and the study's name")
    few_steps: bool = option(
        False, "higher learning rates, for little data, instead of the page's; the sample has them"
    )
    sample: bool = option(False, "on the generated sample with a small model, to see it work")
    dry_run: bool = option(False, "print the plan with an estimate of time and disk, and run nothing")


def launch_study(study: Study) -> NoReturn:
    """Carry out a study as the command line says, and end with 0 if all of its runs have finished."""
    run_main(lambda: _launch(study, sys.argv[1:]))


def _launch(study: Study, arguments: list[str]) -> int:
    require_sound(study)
    campaign = Campaign.of(study, arguments)
    if campaign.how.dry_run:
        campaign.print_plan()
        return 0
    return campaign.carry_out()


class Campaign:
    """A study with what the command line says of it.

    Args:
        study: with the rows that are wanted.
        how: it is carried out.
        given: settings of the target runs, for all rows that know them.
        source_given: settings of the source runs.
    """

    def __init__(self, study: Study, how: StudyOptions, given: Values, source_given: Values) -> None:
        self.study = study
        self.how = how
        self.given = given
        self.source_given = source_given
        name = f"{study.name}_sample" if how.sample else study.name
        self.into = (how.into or REPOSITORY / "runs" / name).absolute()
        self.rows = _wanted(study.rows, how.only)
        self.seeds = how.seeds
        self.target = target_settings(study.modality)
        self.source = source_settings(study.modality)

    @classmethod
    def of(cls, study: Study, arguments: list[str]) -> Campaign:
        """A campaign from a command line.

        Raises:
            UserError: an unknown name, or an impossible value.
        """
        own = options_of(StudyOptions)
        run_options = _options_of_rows(study)
        source_options = {
            _SOURCE + name: one
            for name, one in source_settings(study.modality).options({}).items()
            if _SOURCE + name not in run_options and name not in (*_OF_THE_STUDY, "export")
        }
        known = own | run_options | source_options
        lists = parse_command_line(arguments, known, study.title)
        single = {name: _one(name, values, own) for name, values in lists.items()}
        asked = {name: value for name, value in single.items() if name in own}
        how = StudyOptions.from_values({"seeds": tuple(study.seeds)} | asked)
        given = {name: value for name, value in single.items() if name in run_options}
        sources = {
            name.removeprefix(_SOURCE): value for name, value in single.items() if name in source_options
        }
        here = Path.cwd()
        given = {name: run_options[name].anchored(value, here) for name, value in given.items()}
        sources = {
            name: source_options[_SOURCE + name].anchored(value, here) for name, value in sources.items()
        }
        if how.into is not None:
            how = replace(how, into=here / how.into)
        return cls(samples.on_sample(study) if how.sample else study, how, given, sources)

    def row_values(self, row: StudyRow) -> Values:
        """The settings of a row's runs, but for seed, source and folder."""
        values = _anchored(self.target, row.settings)
        if self.how.few_steps or self.how.sample:
            values |= FEW_STEPS_RATES | dict(row.few_steps)
        values |= self.given
        return known_part(self.target, values, values.get("method"))

    def distinct_rows(self) -> dict[str, RunSettings]:
        """The checked settings of each row by its label, but for seed, source and folder.

        Raises:
            UserError: one is impossible, or two rows would be the same runs.
        """
        settings = {row.label: self.target.from_values(self.row_values(row)) for row in self.rows}
        require_distinct(self.study, settings)
        return settings

    def stages(self, name: str) -> list[Values]:
        """The settings of a source model's runs, one after the other."""
        stages = self.study.sources[name].stages
        return [_anchored(self.source, stage) | self.source_given for stage in stages]

    def checkpoint(self, name: str) -> Path | None:
        """A source model that is there already, unless another is asked for."""
        place = None if self.source_given else self.study.sources[name].checkpoint
        path = REPOSITORY / place if place else None
        return path if path is not None and path.is_file() else None

    def source_runs(self, name: str) -> tuple[list[PlannedRun], Path | None]:
        """The runs of a source model that can be planned by now, and where the last one exports it.

        A stage is known when the one before it is there.
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
        """A row's run; None while its source model is not there."""
        values = self.row_values(row) | {"seed": seed}
        if row.source is not None and "source_checkpoint" not in self.given:
            _, path = self.source_runs(row.source)
            if path is None or not path.is_file():
                return None
            values["source_checkpoint"] = path
        return planned(self.target, values, f"{row.label}, seed {seed}", self.into)

    def _run_if_known(self, row: StudyRow, seed: int) -> PlannedRun | None:
        """As :meth:`target_run`; None, too, for a row that is not wanted and whose data is not there."""
        try:
            return self.target_run(row, seed)
        except UserError:
            if row in self.rows:
                raise
            return None

    def wanted_sources(self) -> list[str]:
        """Names of the source models that the rows start from."""
        if "source_checkpoint" in self.given:
            return []
        return list(dict.fromkeys(row.source for row in self.rows if row.source is not None))

    def write_plan(self) -> None:
        """Write what the report reads of the study, beside the ledger: all rows, also those not run now."""
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
            said = {"section": row.section, "name": row.name, "series": row.series or row.name}
            rows.append(said | {"scale": row.scale, "runs": runs})
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

    def print_plan(self) -> None:
        """Print the runs, what is finished of them, and what the others will take."""
        estimating.print_plan(self)

    def carry_out(self) -> int:
        """Carry out what is not finished, and write the report; the exit code."""
        if self.how.sample:
            samples.prepare(self.study.modality)
        for settings in self.distinct_rows().values():
            run_key(settings)  # a missing file is noticed now, and not hours later
        runner = Runner(
            self.into / "ledger.jsonl",
            self.into / "logs",
            self.how.jobs,
            self.how.processes,
            gpu_count(),
        )
        self.write_plan()
        try:
            names = self.wanted_sources()
            if names:
                runner.total = sum(len(self.study.sources[name].stages) for name in names)
                runner.carry_out([partial(self._train_source, runner, name) for name in names])
                self.write_plan()
            self._run_rows(runner)
        finally:
            self._report(runner)
        for name in runner.failed:
            print(f"failed: {name}")
        return exit_code(runner.failed)

    def _train_source(self, runner: Runner, name: str) -> None:
        for number in range(len(self.study.sources[name].stages)):
            runs, _ = self.source_runs(name)
            if not runs:
                return
            if len(runs) <= number:
                return  # the stage before has failed
            run = runs[number]
            if run.key in runner.finished() and Path(run.settings.export).is_file():
                runner.done += 1
                continue
            if not runner.run(run):
                return

    def _run_rows(self, runner: Runner) -> None:
        finished = runner.finished()
        runs, missing = [], []
        for seed in self.seeds:  # seed by seed, so that a stopped study has whole columns
            for row in self.rows:
                run = self.target_run(row, seed)
                if run is None:
                    missing.append(f"{row.label}, seed {seed} (no source model)")
                elif run.key not in finished:
                    runs.append(run)
        total = len(self.rows) * len(self.seeds)
        runner.total, runner.done = total, total - len(runs) - len(missing)
        if runner.done:
            print(f"{runner.done} of {total} runs are finished already")
        runner.failed += missing
        runner.carry_out([partial(runner.run, run) for run in runs])

    def _report(self, runner: Runner) -> None:
        from adapter4rec.report.writing import write_report

        if not runner.ledger.exists():
            return
        for path in write_report([runner.ledger]):
            if path.suffix in (".html", ".md"):
                print(f"report   {path}")


def _options_of_rows(study: Study) -> dict[str, Option]:
    cls = target_settings(study.modality)
    options: dict[str, Option] = {}
    for row in study.rows:
        options |= cls.options(row.settings)
    return {name: one for name, one in options.items() if name not in (*_OF_THE_STUDY, "seed")}


def _one(name: str, values: list[Any], own: Mapping[str, Option]) -> Any:
    """A setting's value; the words behind an option that takes several belong together."""
    if name in own and own[name].several:  # names of rows have commas in them
        return tuple(values) if own[name].kind is str else tuple(",".join(map(str, values)).split(","))
    if len(values) > 1:
        raise UserError(f"--{name} {' '.join(map(str, values))}: one value; a study's rows stand on its page")
    return values[0]


def _anchored(cls: type[Settings], page: Mapping[str, Any]) -> Values:
    """Settings of a page, whose relative paths start at the repository."""
    known = cls.options({"method": page["method"]} if "method" in page else {})
    return {
        name: known[name].anchored(value, REPOSITORY) if name in known else value
        for name, value in page.items()
    }


def _wanted(rows: tuple[StudyRow, ...] | list[StudyRow], only: tuple[str, ...]) -> list[StudyRow]:
    wanted: list[StudyRow] = []
    for pattern in only:
        found = [row for row in rows if _matches(row, pattern.lower())]
        if not found:
            raise UserError(f"--only {pattern}: no such row; {nearest(pattern, [row.label for row in rows])}")
        wanted += [row for row in found if row not in wanted]
    return [row for row in rows if row in wanted]


def _matches(row: StudyRow, pattern: str) -> bool:
    names = (row.name, row.label, row.section)
    return any(fnmatch.fnmatch(name.lower(), pattern) for name in names)
