"""The package alone, built as a wheel, installed into an environment of its own, in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import REPOSITORY
from test_recommend import clicks, text_runs  # noqa: F401 (fixtures)

import adapter4rec
from adapter4rec.__main__ import COMMANDS, main
from adapter4rec.serving.bundles import write_bundle

SOURCES = ("pyproject.toml", "README.md", "requirements.txt")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a virtual environment with the wheel; libraries are those of this interpreter."""
    place = tmp_path_factory.mktemp("installed")
    shutil.copytree(
        REPOSITORY / "adapter4rec", place / "tree/adapter4rec", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in SOURCES:
        shutil.copy(REPOSITORY / name, place / "tree")
    venv, libraries = place / "venv", sysconfig.get_path("purelib")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", place, place / "tree"], place)
    run([sys.executable, "-m", "venv", "--without-pip", venv], place)
    (wheel,) = place.glob("*.whl")
    run([*pip, "--python", venv / "bin" / "python", "install", *offline, wheel], place)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    return venv / "bin"


def run(command: list, folder: Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    ran = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def site_packages(installed: Path) -> set[Path]:
    (site,) = installed.parent.glob("lib/python*/site-packages")
    return {path for path in site.rglob("*") if "__pycache__" not in path.parts}


def test_the_command_and_the_version(installed, tmp_path):
    printed = run([installed / "adapter4rec", "--version"], tmp_path)
    assert printed == f"adapter4rec {adapter4rec.__version__}\n"
    listed = run([installed / "adapter4rec", "--help"], tmp_path)
    assert all(f"  {name} " in listed for name in COMMANDS)
    program = "from importlib.metadata import version; print(version('adapter4rec'))"
    assert run([installed / "python", "-c", program], tmp_path).strip() == adapter4rec.__version__


@pytest.mark.parametrize("name", COMMANDS)
def test_each_subcommand_shows_its_help(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["adapter4rec", name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert f"usage: adapter4rec {name}" in capsys.readouterr().out


def test_an_unknown_subcommand_is_refused(installed, tmp_path):
    ran = subprocess.run(
        [installed / "adapter4rec", "recomend"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "invalid choice: 'recomend'" in ran.stderr


def test_user_data_are_in_the_cache_of_the_user(installed, text_runs, tmp_path):
    before = site_packages(installed)
    empty, cache = tmp_path / "empty", tmp_path / "cache"
    empty.mkdir()
    options = ["--users", "u3", "--top-k", "2", "--device", "cpu"]
    command = [installed / "adapter4rec", "recommend", text_runs / "houlsby", *options]
    assert "u3: recommended" in run(command, empty, XDG_CACHE_HOME=str(cache))
    assert list(empty.iterdir()) == []
    assert list((cache / "adapter4rec" / "cache" / "tokens").glob("*.safetensors"))
    assert site_packages(installed) == before
    program = "from adapter4rec.models.pretrained import PRETRAINED_MODELS as folder; print(folder)"
    where = run([installed / "python", "-c", program], empty, XDG_CACHE_HOME=str(cache)).strip()
    assert where == str(cache / "adapter4rec" / "pretrained_models")


def test_a_bundle_is_used_in_an_empty_folder(installed, text_runs, tmp_path):
    bundle, empty = tmp_path / "bundle", tmp_path / "empty"
    write_bundle(adapter4rec.load(text_runs / "houlsby", device="cpu"), bundle)
    empty.mkdir()
    program = (
        "import adapter4rec\n"
        f"model = adapter4rec.from_pretrained({str(bundle)!r}, device='cpu')\n"
        "print(model.recommend(['i1', 'i2'], top_k=3))\n"
        "print(adapter4rec.__file__)\n"
    )
    *recommended, where = run([installed / "python", "-c", program], empty).splitlines()
    assert len(recommended) == 3
    assert Path(where).is_relative_to(installed.parent)
    assert list(empty.iterdir()) == []
    run([installed / "adapter4rec", "export", bundle, "--onnx", "onnx", "--device", "cpu"], empty)
    without_torch = run([installed / "python", "onnx/recommend.py", "i1", "i2", "--top-k", "3"], empty)
    assert [line.split() for line in without_torch.splitlines()] == [line.split() for line in recommended]


def test_a_table_is_prepared_and_checked(installed, tmp_path):
    lines = [f"u{user},i{item}" for user in range(6) for item in range(8)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item", *lines]), encoding="utf-8")
    names = [f"i{item},title {item}" for item in range(8)]
    (tmp_path / "items.csv").write_text("\n".join(["item,title", *names]), encoding="utf-8")
    files = ["--interactions", "clicks.csv", "--items", "items.csv", "--into", "made"]
    printed = run([installed / "adapter4rec", "prepare", "table", *files], tmp_path)
    assert f"adapter4rec check {tmp_path / 'made'} " in printed
    assert "8 items" in run([installed / "adapter4rec", "check", "made"], tmp_path)
