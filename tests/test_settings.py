"""Settings: conversions, checks, command lines; and launchers, which merge, sweep and carry out."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trees import TextTargetSettings

from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.launching import launch
from adapter4rec.models.parts import ADAPTER_PARTS
from adapter4rec.utils.command_line import settings_from_command_line
from adapter4rec.utils.errors import EXIT_USER_ERROR, UserError
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import FolderName, Settings, as_argument, option, options_of


@dataclass(frozen=True)
class Example(Settings):
    """An experiment."""

    data: Path = option(help="the data")
    number: int = option(3, "a number", least=1, most=9)
    rate: float = option(0.5, "a rate", above=0)
    flag: bool = option(False, "a flag")
    word: str = option("up", "a word, 100 % safe", choices=("up", "down"))
    kinds: tuple[str, ...] = option(("up",), "kinds", choices=("up", "down"))
    folder: FolderName = option(FolderName("some/model"), "a folder")
    most: int | None = option(None, "at most", least=1)
    where: Path | None = option(None, "where", runtime=True)
    computed: int = 5

    ledger_path = Path("no_such_ledger.jsonl")


def complaint(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


def value(name: str, raw: Any) -> Any:
    return options_of(Example)[name].value_of(raw)


class TestConversions:
    @pytest.mark.parametrize(
        ("name", "raw", "expected"),
        [
            ("number", "4", 4),
            ("number", 4.0, 4),
            ("rate", "1e-3", 0.001),
            ("rate", 2, 2.0),
            ("flag", "yes", True),
            ("flag", "False", False),
            ("flag", "0", False),
            ("flag", 1, True),
            ("flag", True, True),
            ("word", "down", "down"),
            ("kinds", "up,down", ("up", "down")),
            ("kinds", ("down",), ("down",)),
            ("kinds", ["down", "up"], ("down", "up")),
            ("data", "a/b", Path("a/b")),
            ("folder", "bert/base", FolderName("bert/base")),
            ("most", "none", None),
            ("most", "None", None),
            ("most", "", None),
            ("most", None, None),
            ("most", "7", 7),
            ("where", "none", None),
            ("where", "here", Path("here")),
        ],
    )
    def test_values(self, name: str, raw: Any, expected: Any) -> None:
        found = value(name, raw)
        assert found == expected
        assert type(found) is type(expected) or isinstance(expected, Path)

    @pytest.mark.parametrize(
        ("name", "raw", "words"),
        [
            ("number", "four", "expected an integer"),
            ("number", "4.5", "expected an integer"),
            ("number", 4.5, "expected an integer"),
            ("number", None, "expected an integer"),
            ("number", "none", "expected an integer"),
            ("rate", "fast", "expected a number"),
            ("flag", "maybe", "expected true or false"),
            ("data", 5, "expected a path"),
            ("data", "a\0b", "expected a path"),
            ("data", "\ud800", "expected a path"),
            ("number", "0", "at least 1"),
            ("number", "10", "at most 9"),
            ("rate", "0", "greater than 0"),
            ("rate", "nan", "greater than 0"),
            ("most", "0", "at least 1"),
            ("word", "dwon", "did you mean 'down'?"),
            ("word", "xyzzy", "choose from: down, up"),
            ("kinds", "up,dwn", "did you mean 'down'?"),
            ("kinds", "", "choose from: down, up"),
        ],
    )
    def test_impossible_values(self, name: str, raw: Any, words: str) -> None:
        message = complaint(lambda: value(name, raw))
        assert message.startswith(f"--{name} ")
        assert words in message

    @pytest.mark.parametrize(("name", "raw"), [("number", "1"), ("number", "9"), ("most", "1")])
    def test_limits_are_allowed_values(self, name: str, raw: str) -> None:
        assert value(name, raw) == int(raw)


class TestSettings:
    def test_defaults_and_checks_without_a_command_line(self) -> None:
        example = Example(data="here", number="4", kinds=["down"])
        assert example == Example(data=Path("here"), number=4, kinds=("down",))
        assert example.word == "up"
        assert "at most 9" in complaint(lambda: Example(data="here", number=10))

    def test_a_required_value(self) -> None:
        assert complaint(lambda: Example.from_values({"number": "4"})).startswith("--data is ")

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("nubmer", "did you mean 'number'?"), ("computed", "choose from: "), ("q", "choose from: ")],
    )
    def test_an_unknown_name(self, name: str, hint: str) -> None:
        message = complaint(lambda: Example.from_values({"data": "here", name: 1}))
        assert message.startswith(f"unknown option --{name}; ")
        assert hint in message

    @pytest.mark.parametrize(
        "values",
        [
            {"data": "here"},
            {
                "data": "/there",
                "number": 9,
                "rate": 1e-7,
                "flag": True,
                "word": "down",
                "kinds": ("down", "up"),
                "folder": "x",
                "most": 2,
                "where": "w",
            },
        ],
    )
    def test_plain_values_come_back(self, values: Mapping[str, Any]) -> None:
        example = Example.from_values(values)
        plain = json.loads(json.dumps(example.plain()))
        assert Example.from_values(plain) == example
        assert set(plain) == set(options_of(Example))
        texts = {name: as_argument(one) for name, one in example.plain().items()}
        assert all(isinstance(text, str) for text in texts.values())
        assert Example.from_values(texts) == example

    def test_plain_without_runtime_options(self) -> None:
        example = Example(data="here", where="there")
        assert set(example.plain()) - set(example.plain(runtime=False)) == {"where"}

    @pytest.mark.parametrize(
        ("raw", "text"),
        [
            (None, "none"),
            (True, "true"),
            (False, "false"),
            (("a", "b"), "a,b"),
            (1e-5, "1e-05"),
            (Path("a/b"), "a/b"),
        ],
    )
    def test_arguments(self, raw: Any, text: str) -> None:
        assert as_argument(raw) == text


class TestAdapterOptions:
    FILES = {"users": "u.tsv", "items": "i.tsv"}  # noqa: RUF012

    def test_are_nested(self) -> None:
        settings = TextTargetSettings.from_values(
            {
                **self.FILES,
                "method": "houlsby",
                "item_bottleneck": "8",
                "encoders": "user",
                "objective": "cpc",
            }
        )
        assert settings.adapter == HoulsbyConfig(encoders=("user",), item_bottleneck=8)
        assert settings.objective == "cpc"
        assert settings.trained_parts == ADAPTER_PARTS

    def test_plain_values_come_back(self) -> None:
        settings = TextTargetSettings.from_values({**self.FILES, "method": "houlsby", "user_bottleneck": "3"})
        plain = json.loads(json.dumps(settings.plain()))
        assert plain["user_bottleneck"] == 3
        assert TextTargetSettings.from_values(plain) == settings
        assert settings.plain(runtime=False)["user_bottleneck"] == 3

    def test_are_checked(self) -> None:
        values = {**self.FILES, "method": "houlsby", "item_bottleneck": 0}
        assert complaint(lambda: TextTargetSettings.from_values(values)).startswith("--item_bottleneck 0: ")

    def test_belong_to_their_method_alone(self) -> None:
        values = {**self.FILES, "method": "finetune", "item_bottleneck": 8}
        assert "unknown option --item_bottleneck" in complaint(lambda: TextTargetSettings.from_values(values))
        settings = TextTargetSettings.from_values({**self.FILES, "method": "finetune"})
        assert settings.adapter is None
        assert "item_bottleneck" not in settings.plain()

    def test_an_unknown_method(self) -> None:
        values = {**self.FILES, "method": "houlsbi"}
        assert "did you mean 'houlsby'?" in complaint(lambda: TextTargetSettings.from_values(values))

    def test_on_the_command_line(self) -> None:
        arguments = ["--users", "u", "--item-bottleneck", "8", "--items", "i", "--method", "houlsby"]
        settings = settings_from_command_line(TextTargetSettings, arguments)
        assert settings.adapter == HoulsbyConfig(item_bottleneck=8)


class TestCommandLine:
    def test_names_and_values(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "local").mkdir()
        (tmp_path / "local" / "config.json").touch()
        example = settings_from_command_line(
            Example,
            [
                "--data",
                "d",
                "--flag",
                "--number=4",
                "--kinds",
                "up,down",
                "--where",
                "w",
                "--folder",
                "local",
            ],
        )
        assert example == Example(
            data=tmp_path / "d",
            flag=True,
            number=4,
            kinds=("up", "down"),
            where=tmp_path / "w",
            folder=str(tmp_path / "local"),
        )

    def test_what_is_no_relative_path_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        example = settings_from_command_line(
            Example, ["--data", "/d", "--where", "none", "--folder", "not/here"]
        )
        assert (example.data, example.where, example.folder) == (Path("/d"), None, "not/here")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--number", "1", "2"], "--number 1 2: expected a single value"),
            (["--numbr", "1"], "unknown option --numbr; did you mean 'number'?"),
            (["--numbr=1"], "unknown option --numbr; did you mean 'number'?"),
            (["--num", "1"], "unknown option --num;"),
            (["number", "1"], "unexpected argument 'number'"),
            (["--number"], "--number: expected a value: a number"),
            (["--number", "-1"], "--number -1: must be at least 1"),
        ],
    )
    def test_errors(self, arguments: list[str], words: str) -> None:
        # "number 1" comes first: behind an option it would be read as its values.
        assert words in complaint(lambda: settings_from_command_line(Example, [*arguments, "--data", "d"]))

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            settings_from_command_line(Example, ["--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert ended.value.code == 0
        assert "An experiment." in shown
        assert "a word, 100 % safe; one of up, down (default up)" in shown
        assert "{" not in shown  # argparse would put a dictionary in place of "% s"
        assert "kinds; one of up, down; separated by commas (default up)" in shown


class Commands(list):
    """Stands in for starting a process: remembers the commands, and ends with the given exit codes."""

    def __init__(self, *codes: int) -> None:
        super().__init__()
        self.codes = list(codes)
        self.folders: list[Path] = []

    def __call__(self, command: list[str], cwd: Path, **_: object) -> Commands:
        self.append(command)
        self.folders.append(cwd)
        return self

    def communicate(self) -> tuple[None, None]:
        self.returncode = self.codes.pop(0) if self.codes else 0
        return None, None

    @property
    def settings(self) -> list[dict[str, str]]:
        """What each command sets."""
        return [settings_in(command) for command in self]


def settings_in(command: list[str]) -> dict[str, str]:
    rest = command[command.index("-m") + 2 :]
    assert all(name.startswith("--") for name in rest[::2])
    return {name[2:]: value for name, value in zip(rest[::2], rest[1::2], strict=True)}


def run_tiny_launcher(folder: Path, inline: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """A launcher of two processes, in a process of its own: torchrun works inside it. The second fails."""
    (folder / "tiny_run.py").write_text(
        "import os, sys\n"
        "from adapter4rec.utils.settings import Settings\n"
        "if __name__ == '__main__':\n"
        "    assert os.environ['WORLD_SIZE'] == '2'\n"
        "    sys.exit(7 if os.environ['RANK'] == '1' else 0)\n",
        encoding="utf-8",
    )
    (folder / "launcher.py").write_text(
        f"from adapter4rec.launching import launch\nlaunch('tiny_run', {inline!r})\n", encoding="utf-8"
    )
    return subprocess.run(
        [sys.executable, str(folder / "launcher.py")],
        env={"PYTHONPATH": f"{folder}:{REPOSITORY}", "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )


def launched(
    monkeypatch: pytest.MonkeyPatch,
    inline: Mapping[str, Any],
    *arguments: str,
    settings: type[Settings] = Example,
    module: str = "some.train",
) -> int:
    """The exit code of a launcher with this page and these arguments."""
    monkeypatch.setattr(sys, "argv", ["launcher.py", *arguments])
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(Settings=settings))
    with pytest.raises(SystemExit) as ended:
        launch(module, {"processes": 1, **inline})
    return ended.value.code


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launchers print commands for the current folder, and for the ``python`` of the shell's path."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    stand_in = Commands()
    monkeypatch.setattr(subprocess, "Popen", stand_in)
    # The table of a sweep reads the ledger of the checkout, which may have runs of its user.
    monkeypatch.setattr("adapter4rec.runs.ledger.finished_runs", lambda ledger: {})
    return stand_in


class TestLaunching:
    def test_one_run(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = {"data": "/d", "kinds": ("up", "down"), "rate": 1e-4, "flag": True, "most": None}
        assert launched(monkeypatch, page) == 0
        (command,) = commands
        assert command[:3] == [sys.executable, "-m", "some.train"]
        assert settings_in(command) == {
            "data": "/d",
            "kinds": "up,down",
            "rate": "0.0001",
            "flag": "true",
            "most": "none",
        }
        assert commands.folders == [REPOSITORY]
        assert capsys.readouterr().out == shlex.join(["python", *command[1:]]) + "\n"

    def test_the_command_line_goes_before_the_page(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands
    ) -> None:
        page = {"data": "/d", "number": [1, 2, 3], "word": "up"}
        assert launched(monkeypatch, page, "--number", "7", "--word=down", "--flag") == 0
        assert commands.settings == [{"data": "/d", "number": "7", "word": "down", "flag": "true"}]

    def test_lists_are_swept_in_all_combinations(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = {"data": "/d", "number": [1, 2], "word": "up", "kinds": [("up",), ("up", "down")]}
        assert launched(monkeypatch, page, "--word", "up", "down") == 0
        expected = [
            {"data": "/d", "number": number, "word": word, "kinds": kinds}
            for number in ("1", "2")
            for kinds in ("up", "up,down")
            for word in ("up", "down")
        ]
        assert len(commands) == len(expected)
        assert all(one in commands.settings for one in expected)
        assert "run 8 of 8" in capsys.readouterr().out

    def test_a_dry_run_prints_and_runs_nothing(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert launched(monkeypatch, {"data": "/d", "number": [1, 2]}, "--dry-run") == 0
        assert commands == []
        printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("python ")]
        assert printed == [f"python -m some.train --data /d --number {number}" for number in (1, 2)]

    def test_a_dry_run_of_several_processes(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert launched(monkeypatch, {"data": "/d", "processes": 3}, "--dry-run") == 0
        expected = "torchrun --nnodes=1 --nproc-per-node=3 --standalone -m some.train --data /d\n"
        assert capsys.readouterr().out == expected

    def test_a_dry_run_of_several_machines(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = {"data": "/d", "nodes": 2, "node_rank": 1, "master_address": "first", "port": 1234}
        assert launched(monkeypatch, page, "--dry-run") == 0
        assert capsys.readouterr().out == (
            "torchrun --nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint=first:1234 "
            "--rdzv-id=adapter4rec --rdzv-conf=is_host=false,read_timeout=300 -m some.train --data /d\n"
        )

    def test_paths_start_at_the_repository_or_the_current_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands
    ) -> None:
        monkeypatch.chdir(tmp_path)
        page = {"data": "Dataset/d", "where": "runs/w", "folder": "pretrained_models/a"}
        monkeypatch.setattr(FolderName, "is_folder", lambda path: path.is_relative_to(REPOSITORY))
        assert launched(monkeypatch, page, "--where", "w") == 0
        assert commands.settings == [
            {
                "data": str(REPOSITORY / "Dataset/d"),
                "where": str(tmp_path / "w"),
                "folder": str(REPOSITORY / "pretrained_models/a"),
            }
        ]

    def test_a_method_on_the_command_line_brings_its_options(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands
    ) -> None:
        page = {"users": "/u", "items": "/i", "method": "finetune"}
        arguments = ["--method", "houlsby", "--item_bottleneck", "4", "8"]
        assert launched(monkeypatch, page, *arguments, settings=TextTargetSettings) == 0
        assert [one["item_bottleneck"] for one in commands.settings] == ["4", "8"]
        assert {one["method"] for one in commands.settings} == {"houlsby"}


class TestLauncherErrors:
    @pytest.mark.parametrize(
        ("page", "arguments", "words"),
        [
            ({"data": "/d"}, ["--numbr", "4"], "unknown option --numbr; did you mean 'number'?"),
            ({"data": "/d", "numbr": 4}, [], "unknown option --numbr; did you mean 'number'?"),
            ({"data": "/d"}, ["--proceses", "4"], "did you mean 'processes'?"),
            ({"number": 4}, [], "--data is "),
            ({"data": "/d"}, ["--processes", "0"], "--processes 0: must be at least 1"),
            # The last run of the sweep is impossible, so the first is not begun.
            ({"data": "/d", "number": [1, 2, 10]}, [], "--number 10: must be at most 9"),
        ],
    )
    def test_bad_settings_run_nothing_and_exit_with_2(
        self,
        monkeypatch: pytest.MonkeyPatch,
        commands: Commands,
        capsys: pytest.CaptureFixture[str],
        page: Mapping[str, Any],
        arguments: list[str],
        words: str,
    ) -> None:
        assert launched(monkeypatch, page, *arguments) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ")
        assert words in printed.err
        assert "Traceback" not in printed.err
        assert commands == []

    def test_a_busy_port(self, tmp_path: Path) -> None:
        with socket.socket() as busy:
            busy.bind(("", 0))
            busy.listen()
            port = busy.getsockname()[1]
            ended = run_tiny_launcher(tmp_path, {"processes": 2, "port": port})
        assert ended.returncode == 2
        assert f"error: rendezvous failed at --master_address 127.0.0.1 --port {port}: " in ended.stderr
        assert "address already in use" in ended.stderr
        assert "Traceback" not in ended.stderr


class TestExitCodes:
    @pytest.mark.parametrize(
        ("codes", "expected"), [([0, 0, 0], 0), ([0, 5, 3], 5), ([-9, 0, 0], 137), ([-2, 1, 0], 130)]
    )
    def test_of_a_sweep_the_first_that_is_not_zero_and_all_are_run(
        self, monkeypatch: pytest.MonkeyPatch, codes: list[int], expected: int
    ) -> None:
        commands = Commands(*codes)
        monkeypatch.setattr(subprocess, "Popen", commands)
        assert launched(monkeypatch, {"data": "/d", "number": [1, 2, 3]}) == expected
        assert [one["number"] for one in commands.settings] == ["1", "2", "3"]

    def test_of_a_sweep_with_a_run_that_was_killed_or_whose_input_is_missing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The others are run, and those that finished are in the table."""
        record = {"validation": {"HR@10": 5.0}, "test": {"HR@10": 4.0, "NDCG@10": 2.0}, "settings": {}}

        def key(settings: Example) -> str:
            if settings.number == 2:
                raise UserError("/d: no such file")
            return "a key"

        monkeypatch.setattr("adapter4rec.runs.ledger.run_key", key)
        monkeypatch.setattr("adapter4rec.runs.ledger.finished_runs", lambda _: {"a key": record})
        ends = iter([UserError("process 1 was killed"), 0, 0])

        def torchrun(*_: object) -> int:
            end = next(ends)
            if isinstance(end, UserError):
                raise end
            return end

        monkeypatch.setattr("adapter4rec.launching._torchrun", torchrun)
        assert launched(monkeypatch, {"data": "/d", "number": [1, 2, 3], "processes": 2}) == EXIT_USER_ERROR
        said = capsys.readouterr()
        assert said.err == "error: process 1 was killed\n"
        rows = [line for line in said.out.splitlines() if line.startswith("| ")][-3:]
        assert [row.split()[1] for row in rows] == ["1", "2", "3"]
        assert ["no result" in row for row in rows] == [False, True, False]

    def test_commands_of_a_sweep_are_for_the_folder_of_the_launcher(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Torchrun runs in this process, in the folder of the repository."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path))  # the programs of another environment, or none
        monkeypatch.setattr("adapter4rec.launching._torchrun", lambda *_: os.chdir(REPOSITORY) or 1)
        assert launched(monkeypatch, {"data": "/d", "number": [1, 2], "processes": 2}) == 1
        commands = [line for line in capsys.readouterr().out.splitlines() if "-m some.train" in line]
        start = f"(cd {REPOSITORY} && {sys.executable} -m torch.distributed.run --nnodes=1 "
        assert [line.startswith(start) for line in commands] == [True, True]

    @pytest.mark.parametrize("code", [0, 7])
    def test_of_a_real_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        (tmp_path / "tiny_run.py").write_text(
            f"import pathlib, sys\npathlib.Path(sys.argv[2]).write_text('was here')\nsys.exit({code})\n",
            encoding="utf-8",
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        assert launched(monkeypatch, {"data": str(tmp_path / "mark")}, module="tiny_run") == code
        assert (tmp_path / "mark").read_text(encoding="utf-8") == "was here"

    def test_of_several_processes(self, tmp_path: Path) -> None:
        """The second of two fails."""
        ended = run_tiny_launcher(tmp_path, {"processes": 2})
        assert ended.returncode == 7, ended.stderr
        assert ended.stdout.startswith("torchrun --nnodes=1 --nproc-per-node=2 --standalone -m tiny_run")


class TestProcesses:
    @pytest.mark.parametrize(
        ("device", "program"), [("cuda:1", "python"), ("cpu", "python"), ("cuda", "torchrun")]
    )
    def test_a_device_with_a_number_and_a_cpu_have_one_process(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str, program: str
    ) -> None:
        monkeypatch.setattr("adapter4rec.launching.gpu_count", lambda: 4)
        page = {"users": "/u", "items": "/i", "device": device, "processes": None}
        assert launched(monkeypatch, page, "--dry-run", settings=TextTargetSettings) == 0
        assert capsys.readouterr().out.startswith(program)


class TestSweepsAndMistakes:
    """What is swept, what is not, and what a mistyped page or command line is told."""

    def test_methods_are_swept(self, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> None:
        page = {"users": "/u", "items": "/i", "method": ["head", "frozen"]}
        assert launched(monkeypatch, page, settings=TextTargetSettings) == 0
        assert [one["method"] for one in commands.settings] == ["head", "frozen"]

    def test_a_mistyped_method(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = {"users": "/u", "items": "/i", "method": "houlsby", "item_bottleneck": 8}
        assert launched(monkeypatch, page, "--method", "houlsbi", settings=TextTargetSettings) == 2
        assert "did you mean 'houlsby'?" in capsys.readouterr().err
        assert commands == []

    def test_launch_settings_are_not_swept(self, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> None:
        assert launched(monkeypatch, {"data": "/d"}, "--processes", "1", "2") == 2
        assert commands == []

    def test_an_empty_list(self, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> None:
        assert launched(monkeypatch, {"data": "/d", "number": []}) == 2
        assert commands == []

    def test_help_of_a_required_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            settings_from_command_line(Example, ["--help"])
        assert "MISSING" not in capsys.readouterr().out

    def test_another_method_leaves_out_what_the_page_says_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = {"users": "/u", "items": "/i", "method": "houlsby", "item_bottleneck": [8, 16]}
        assert (
            launched(monkeypatch, page, "--method", "finetune", "houlsby", settings=TextTargetSettings) == 0
        )
        found = [(one["method"], one.get("item_bottleneck")) for one in commands.settings]
        assert found == [("finetune", None), ("houlsby", "8"), ("houlsby", "16")]
        words = ("--method", "finetune", "--item_bottleneck", "8")
        assert launched(monkeypatch, page, *words, settings=TextTargetSettings) == 2
        assert "unknown option --item_bottleneck" in capsys.readouterr().err

    def test_runs_of_a_sweep_do_not_write_to_one_place(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = {"users": "/u", "items": "/i", "method": "finetune", "run_folder": "/r"}
        assert launched(monkeypatch, page, "--seed", "1", "2", settings=TextTargetSettings) == 2
        assert "2 runs would write to the same path" in capsys.readouterr().err
        words = ("--seed", "1", "2", "--run_folder", "none")
        assert launched(monkeypatch, page, *words, settings=TextTargetSettings) == 0
        assert len(commands.settings) == 2

    def test_equal_values_are_run_once_and_lengths_of_one_run_are_no_sweep(
        self, monkeypatch: pytest.MonkeyPatch, commands: Commands, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page = {"users": "/u", "items": "/i", "method": "finetune"}
        words = ("--lr_backbone", "0.01", "0.010")
        assert launched(monkeypatch, page, *words, settings=TextTargetSettings) == 0
        assert len(commands.settings) == 1
        schedule = ("--epochs", "2", "3", "--schedule", "linear")  # each decays at its own pace
        assert launched(monkeypatch, page, *schedule, settings=TextTargetSettings) == 0
        assert [one["epochs"] for one in commands.settings[1:]] == ["2", "3"]
        for name in ("--epochs", "--patience"):
            assert launched(monkeypatch, page, name, "2", "3", settings=TextTargetSettings) == 2
            assert f"{name} 2 3: runs that differ in it alone are one run" in capsys.readouterr().err

    def test_a_machine_beyond_the_last(self, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> None:
        assert launched(monkeypatch, {"data": "/d"}, "--nodes", "2", "--node_rank", "2") == 2
        assert commands == []
