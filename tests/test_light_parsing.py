"""Help and dry runs answer at once, and runs start fast: libraries are imported where they are needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, write_domain

from adapter4rec.checkpoints.settings import WITHOUT_MODEL

TREES = ("Pretraining/Text", "Pretraining/CV", "Downstream/Text", "Downstream/CV")
HEAVY = ("torch", "torchvision", "transformers", "loralib", "lmdb")
LAUNCHERS = {
    "Pretraining/Text": "sm_base_sasrec",
    "Pretraining/CV": "sm_vit_sasrec",
    "Downstream/Text": "adapter_houlsby",
    "Downstream/CV": "adapter_lora",
}

_IMPORTED = f"""
import sys
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("imported:", ",".join(heavy) or "none")
"""


def imported_by(code: str, folder: Path = REPOSITORY) -> str:
    """Which of ``HEAVY`` a fresh interpreter has imported after it ran ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code + _IMPORTED], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].removeprefix("imported: ")


def test_training_modules_import_nothing_that_computes() -> None:
    modules = ", ".join(f"{tree.replace('/', '.')}.train" for tree in TREES)
    assert imported_by(f"import {modules}") == "none"


@pytest.mark.parametrize("arguments", [["--help"], ["--dry-run"], ["--dry-run", "--method", "id"]])
@pytest.mark.parametrize("tree", TREES)
def test_a_launcher_shows_its_help_and_its_command_without_what_computes(
    tree: str, arguments: list[str]
) -> None:
    launcher = REPOSITORY / tree / "script" / f"{LAUNCHERS[tree]}.py"
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[str(launcher), '--processes', '1', *arguments]!r}\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code, ended.code\n"
    )
    assert imported_by(code) == "none"


def test_every_method_is_listed_and_checked_without_what_computes() -> None:
    code = (
        "from adapter4rec.adapters.registry import FAMILIES\n"
        "from adapter4rec.utils.command_line import settings_from_command_line\n"
        "from Downstream.Text.train import Settings\n"
        "for family in FAMILIES:\n"
        "    words = ['--users', 'u', '--items', 'i', '--method', family]\n"
        "    assert settings_from_command_line(Settings, words).adapter is not None\n"
    )
    assert imported_by(code) == "none"


def test_a_baseline_and_the_plan_of_a_study_need_no_transformers() -> None:
    modules = "adapter4rec.training.testing, adapter4rec.data.domain"
    assert "transformers" not in imported_by(f"import {modules}")
    assert imported_by("import adapter4rec.studies.launching") == "none"


@pytest.mark.parametrize("method", WITHOUT_MODEL)
def test_a_run_without_a_backbone_imports_no_library_that_only_others_need(tmp_path, method):
    clicks = {f"u{n}": [*"abcde"] for n in range(4)}
    users, items = write_domain(tmp_path, clicks, dict.fromkeys("abcdef", ()))
    code = (
        "import sys; from Downstream.Text.train import run; "
        f"run(method={method!r}, users={str(users)!r}, items={str(items)!r}, ledger='none', "
        f"run_folder={str(tmp_path / 'run')!r}); "
        "print({'transformers', 'polars', 'huggingface_hub', 'peft'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.stdout.splitlines()[-1:] == ["set()"], ended.stderr
