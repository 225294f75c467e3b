"""The package's rooms: imports point down only, and no two modules import each other."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "adapter4rec"
ROOMS = ("utils", "data", "models", "adapters", "checkpoints", "evaluation", "runs", "training")
BESIDE = {
    "datasets": {"utils", "data"},
    "report": {"utils", "evaluation", "runs"},
    "serving": set(ROOMS),
    "interchange": {"utils", "data", "models", "adapters", "checkpoints"},
    "studies": {*ROOMS, "report", "datasets"},
}
ALLOWED = {room: set(ROOMS[:number]) for number, room in enumerate(ROOMS)} | BESIDE
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, but for type checkers alone."""
    found = set()
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_only:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in MODULES else node.module)
        elif isinstance(node, ast.Import) and id(node) not in typing_only:
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in MODULES}


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else ""


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_from_rooms_below(room):
    assert (PACKAGE / room).is_dir()
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        if room_of(name) == room
        for other in sorted(others)
        if room_of(other) not in {room} | ALLOWED[room] and other != "adapter4rec"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_its_place():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    assert rooms == set(ALLOWED)


def test_no_two_modules_import_each_other():
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError
