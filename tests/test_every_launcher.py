"""Every launcher, started as from its own folder, runs to the end on small generated samples.

Launchers and the modules that they run are carried out in this process; only the start of another process is
replaced. What each page says of the paper is tested in test_launchers.py.
"""

import json
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from math import isfinite
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file

from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.checkpoints.settings import WITHOUT_CONTENT, WITHOUT_MODEL
from adapter4rec.checkpoints.source_models import read_source_model
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.datasets.sample import SampleSettings, make_image_sample, make_sample
from adapter4rec.runs import run as runs
from adapter4rec.utils.records import Object, read_record
from adapter4rec.utils.settings import as_argument

STAGES = {"Pretraining": "source", "Downstream": "target"}
MODALITIES = {"Text": "text", "CV": "image"}
EXPORT = "export.safetensors"
TRAIN_NOTHING = ("frozen", *WITHOUT_MODEL)
STAND_INS = {
    "bert/bert_base_uncased": "tiny_bert_folder",
    "vit-base-patch16-224": "tiny_vit_folder",
    "vit-mae-base": "tiny_mae_folder",
}
"""The fixture that takes the place of each backbone."""
BACKBONES = {"text": "bert/bert_base_uncased", "image": "vit-base-patch16-224"}
"""The default, with which target launchers start from a source model."""


@dataclass(frozen=True)
class Page:
    """A launcher."""

    path: Path

    def __str__(self):
        return f"{self.module}.{self.path.stem}".replace(".train", "")

    @property
    def module(self):
        return ".".join((*self.path.parts[-4:-2], "train"))

    @property
    def stage(self):
        return STAGES[self.path.parts[-4]]

    @property
    def modality(self):
        return MODALITIES[self.path.parts[-3]]

    @cached_property
    def says(self):
        return runpy.run_path(str(self.path))["hyperparameters"]

    @property
    def method(self):
        return self.says.get("method", "all")


@dataclass(frozen=True)
class Case:
    """A launcher, with an objective and, if it uses one, a backbone."""

    page: Page
    objective: str
    backbone: str | None

    def __str__(self):
        return "-".join(filter(None, (str(self.page), self.objective, self.backbone))).replace("/", "_")


def as_it_says(page):
    objective, backbone = page.says.get("objective", "sasrec"), page.says.get("backbone")
    return Case(page, objective, backbone or BACKBONES[page.modality])


def source_of(case):
    """The source launcher whose model a target launcher starts from."""
    same = (case.page.modality, case.objective, case.backbone)
    return next(one for one in SOURCES if (one.page.modality, one.objective, one.backbone) == same)


def cases_of(page):
    """A source that is exported as its page says; any other page with both objectives and all backbones."""
    if "export" in page.says:
        return [as_it_says(page)]
    backbones = {case.backbone: None for case in SOURCES if case.page.modality == page.modality}
    return [
        Case(page, objective, backbone)
        for objective in ("sasrec", "cpc")
        for backbone in ([None] if page.method in WITHOUT_CONTENT else backbones)
    ]


PAGES = [
    Page(path)
    for stage in STAGES
    for modality in MODALITIES
    for path in sorted((REPOSITORY / stage / modality / "script").glob("*.py"))
    if not path.stem.startswith("study_")  # see test_studies.py
]
SOURCES = [as_it_says(page) for page in PAGES if "export" in page.says]
CASES = [case for page in PAGES for case in cases_of(page)]


def exit_code(folder, name, arguments, program):
    """The exit code of a program, run with these arguments in this folder."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [name, *arguments])
        patch.setattr(sys, "path", list(sys.path))  # launchers add to it
        program()
    return ended.value.code


def in_this_process(command, cwd, **_):
    """Stands in for ``subprocess.Popen``: ``python -m MODULE …`` is carried out at once."""
    python, option, module, *arguments = command
    assert (python, option) == (sys.executable, "-m")
    program = partial(runpy.run_module, module, run_name="__main__", alter_sys=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, module, raising=False)  # the launcher has imported it for its settings
        code = exit_code(cwd, module, arguments, program)
    return SimpleNamespace(returncode=code, communicate=lambda: (None, None))


def launch(page, *arguments):
    """The exit code of ``python LAUNCHER …`` in the launcher's folder."""
    folder, name = page.path.parent, page.path.name
    program = partial(runpy.run_path, name, run_name="__main__")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", in_this_process)
        patch.setattr(runs, "draw_curves", lambda *_: None)  # would take most of the time
        return exit_code(folder, name, ["--processes", "1", *arguments], program)


@dataclass(frozen=True)
class Bench:
    """Small domains and backbones, and the runs that were carried out with them."""

    folder: Path
    backbones: dict[str, Path]

    def run(self, case):
        """The folder of a case's run, carried out if it has not been."""
        folder = self.folder / str(case)
        if not folder.exists():
            pairs = ((f"--{name}", str(value)) for name, value in self.changes(case).items())
            assert launch(case.page, *chain(*pairs)) == 0
        return folder

    def changes(self, case):
        """What the command line says in place of the page."""
        folder, domain = self.folder / str(case), self.folder / case.page.modality / case.page.stage
        changes = {
            "users": domain / "users.tsv",
            "items": domain / "items.tsv",
            "objective": case.objective,
            "epochs": 1,
            "device": "cpu",
            "run_folder": folder,
            **({"backbone": self.backbones[case.backbone]} if case.backbone else {}),
            "cache_folder": self.folder / "cache",
        }
        of_some_pages = {
            "images": lambda: domain / "images.lmdb",
            "export": lambda: folder / EXPORT,
            "source_checkpoint": lambda: self.run(source_of(case)) / EXPORT,
        }
        return changes | {name: value() for name, value in of_some_pages.items() if name in case.page.says}


@pytest.fixture(scope="module")
def bench(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("bench")
    make_sample(folder / "text", SampleSettings(users=40, target_users=40, items=112, clicks=8))
    make_image_sample(folder / "image", SampleSettings(users=40, target_users=40, items=32, clicks=8))
    for stage in STAGES.values():
        domain = folder / "image" / stage
        images = domain / "images"
        build(ImageLmdbSettings(domain / "items.tsv", domain / "images.lmdb", images, size=16, workers=1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for such small models more would only wait for each other
    yield Bench(folder, {name: request.getfixturevalue(fixture) for name, fixture in STAND_INS.items()})
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_launcher_runs_to_the_end(case, bench):
    folder = bench.run(case)
    trains = case.page.method not in TRAIN_NOTHING
    result = read_record(folder / "result.json", Object)
    assert (result["trained_parameters"] > 0) == trains
    epoch, test = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert (epoch["epoch"], epoch["split"]) == (trains, "validation")
    assert (test["epoch"], test["split"]) == (trains, "test")
    assert not trains or isfinite(epoch["loss"])
    assert set(result["validation"]) == {"HR@10", "NDCG@10", "MRR"}
    assert set(result["test"]) == {"HR@10", "NDCG@10", "MRR", "coverage@10"}
    for metrics in (result["validation"], result["test"]):
        assert all(0 <= value <= 100 for value in metrics.values())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_is_what_its_launcher_says(case, bench):
    description = read_record(bench.run(case) / "settings.json", Object)
    assert description["identity"]["stage"] == f"{case.page.modality} {case.page.stage}"
    for name in case.page.says.keys() - bench.changes(case).keys():
        assert as_argument(description["settings"][name]) == as_argument(case.page.says[name]), name


@pytest.mark.parametrize("case", [case for case in CASES if case.page.method not in TRAIN_NOTHING], ids=str)
def test_the_best_checkpoint_holds_what_was_trained(case, bench):
    folder = bench.run(case)
    best = load_file(folder / "best.safetensors")
    trained = read_record(folder / "result.json", Object)["trained_parameters"]
    assert sum(tensor.numel() for tensor in best.values()) == trained
    assert {name.startswith("adapters.") for name in best} == {case.page.method in FAMILIES}


@pytest.mark.parametrize("case", SOURCES, ids=str)
def test_a_source_launcher_exports_a_model_of_its_objective(case, bench):
    assert read_source_model(bench.run(case) / EXPORT).description["objective"] == case.objective


@pytest.mark.parametrize("page", [page for page in PAGES if "source_checkpoint" in page.says], ids=str)
def test_a_target_launcher_names_what_a_source_launcher_exports(page):
    assert page.says["source_checkpoint"] == source_of(as_it_says(page)).page.says["export"]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_dry_run_prints_the_command(page, capsys):
    assert launch(page, "--dry-run") == 0
    printed = capsys.readouterr().out.strip()
    before = f"(cd {shlex.quote(str(REPOSITORY))} && "  # the launcher was started in another folder
    assert printed.startswith(before)
    python, option, module, *arguments = shlex.split(printed.removeprefix(before).removesuffix(")"))
    assert Path(shutil.which(python)).samefile(sys.executable)
    assert (option, module) == ("-m", page.module)
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert given.keys() == {f"--{name}" for name in page.says}
    assert given["--users"] == str(REPOSITORY / page.says["users"])
