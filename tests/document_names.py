"""Finds names in documents that the repository no longer has: files, modules, options, functions, anchors."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from functools import cache
from io import StringIO
from pathlib import Path

from trees import ImageSourceSettings, ImageTargetSettings, TextSourceSettings, TextTargetSettings

from adapter4rec import FAMILIES
from adapter4rec.data.images.building import ImageLmdbSettings
from adapter4rec.launching import LaunchSettings
from adapter4rec.studies.campaign import StudyOptions
from adapter4rec.utils.settings import options_of

REPOSITORY = Path(__file__).resolve().parent.parent
TREES = ("Downstream", "Pretraining")
ROOTS = ("adapter4rec", "benchmarks", "docs", "tests", "Dataset", "pretrained_models", *TREES)
"""Folders whose paths documents name."""
OWN_FILES = ("scaling.py", "scaling_layers.py", "bpr.py", "recency.py", "shop.py")
"""What the reader of a worked example writes."""
SUFFIXES = (
    *("csv", "gz", "html", "json", "jsonl", "npy", "parquet", "png", "pt", "safetensors"),
    *("tex", "tsv", "txt"),
)
COMMANDS = (
    "Dataset.check",
    "Dataset.generate",
    "Dataset.prepare",
    "adapter4rec.download",
    "adapter4rec.export",
    "adapter4rec.merge",
    "adapter4rec.recommend",
    "adapter4rec.report",
    "tests.faults.fuzzing",
)
"""Commands with options of their own."""
OF_OTHERS = ("reft",)
"""Names of other libraries."""
_SPAN = re.compile(r"(?<!`)(`{1,2})([^`\n]+)\1(?!`)")
_MADE = re.compile(r"^(pretrained_models|Dataset|Downstream/[^/]+/pretrained_models)/")
_FILE = re.compile(r"(?<![\w./-])[\w./*-]+\.(?:py|md)\b")
_NAME_IN_FILE = re.compile(r"((?:`[\w.]+`(?:, | and )?)+) in `([\w./]+\.py)`")
_TESTS = re.compile(r"(?:`(test_\w+\.py)`: )?((?:`test_\w+`(?:, )?)+)")


def documents() -> list[Path]:
    """The pages of the repository."""
    pages = [REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    pages += [REPOSITORY / "pretrained_models" / "README.md"]
    pages += sorted((REPOSITORY / "docs").glob("*.md")) + sorted((REPOSITORY / "Dataset").rglob("README.md"))
    return pages + sorted((REPOSITORY / "Downstream").rglob("README.md"))


def stale_names(text: str, page: Path) -> list[str]:
    """Names in a page's text that do not exist, in words."""
    text = _without_released_columns(text)
    code = _code_of(text)
    finders = (_links(text, page), _files(code), _modules(code), _options(code), _targets(code))
    return [
        one for found in (*finders, _named_in_files(text), _tests(text), _identifiers(text)) for one in found
    ]


def _without_released_columns(text: str) -> str:
    """The text without the columns of tables that tell what the released code names."""
    lines, drop = [], None
    for line in text.splitlines():
        cells = line.split("|") if line.startswith("|") else []
        if not cells:
            drop = None
        elif drop is None:
            drop = [
                n
                for n, cell in enumerate(cells)
                if cell.strip() in ("released", "in PEFT's `adapter_config.json`")
            ]
        lines.append("|".join(cell for n, cell in enumerate(cells) if n not in drop) if cells else line)
    return "\n".join([*lines, ""])


def _code_of(text: str) -> list[str]:
    """Code spans, and the lines of code blocks with continuation lines joined."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"(?:^(?: {4}.*|)\n)+", text, flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", "\n".join(blocks)).splitlines()
    return [line for line in lines if line.strip()] + [span for _, span in _SPAN.findall(_prose(text))]


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def _links(text: str, page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(text)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"link to {target}"
        elif anchor and anchor not in _anchors(file):
            yield f"anchor of {target}"


@cache
def _anchors(file: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    anchors: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.*)$", _prose(file.read_text(encoding="utf-8")), flags=re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        seen = anchors.get(anchor, -1) + 1
        anchors[anchor] = seen
        if seen:
            anchors[f"{anchor}-{seen}"] = 0
    return set(anchors)


@cache
def _sources() -> dict[Path, str]:
    """The Python files of the repository, except those that check the documents."""
    files = [REPOSITORY / "build_lmdb_hm.py"]
    for root in ("adapter4rec", "benchmarks", "tests", "Dataset", *TREES):
        files += (REPOSITORY / root).rglob("*.py")
    own = (Path(__file__).name, "test_documents.py")
    return {file: file.read_text(encoding="utf-8") for file in files if file.name not in own}


def _exists(path: str) -> bool:
    if "*" in path:
        return any(REPOSITORY.glob(path))
    if path.endswith(".py") and "/" not in path:
        return any(file.name == path for file in (*_sources(), Path(__file__), Path("test_documents.py")))
    if path.endswith(".md") and "/" not in path:  # a page beside this one, or a file that a command writes
        return bool(list(REPOSITORY.glob(f"docs/{path}"))) or path in "".join(_sources().values())
    return (REPOSITORY / path).exists() or (REPOSITORY / f"{path}.py").exists()


def _files(code: list[str]) -> Iterator[str]:
    for line in code:
        named = set(_FILE.findall(line))
        named |= {word for word in re.findall(r"[\w./*-]+", line) if re.match(rf"({'|'.join(ROOTS)})/", word)}
        for path in named:
            made = _MADE.match(path) and not path.endswith((".py", ".md"))
            if not (made or Path(path).name in OWN_FILES or path.startswith("/") or _exists(path)):
                yield f"file {path}"


def _modules(code: list[str]) -> Iterator[str]:
    for line in code:
        for name in re.findall(r"-m ([A-Za-z]\w*(?:\.\w+)*)", line):
            path = REPOSITORY / name.replace(".", "/")
            if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
                yield f"module {name}"


@cache
def _options_of_runs() -> set[str]:
    """Options of launchers, studies and the trees, for every method."""
    known = {*options_of(LaunchSettings), *options_of(StudyOptions), *options_of(ImageLmdbSettings)}
    for kind in (TextTargetSettings, ImageTargetSettings):
        for method in FAMILIES:
            known |= set(kind.options({"method": method}))
    for kind in (TextSourceSettings, ImageSourceSettings):
        known |= {prefix + name for name in kind.options({}) for prefix in ("", "source_")}
    return known


@cache
def _options_of_benchmarks() -> set[str]:
    """Options of the benchmarks, which they declare as keyword arguments of one call."""
    sources = "".join(source for file, source in _sources().items() if file.parent.name == "benchmarks")
    keywords = set(re.findall(r"(\w+)=", "".join(re.findall(r"options_of\(([^)]*)\)", sources))))
    return keywords | set(re.findall(r'"--(\w+)"', sources))


@cache
def _options_of_command(module: str) -> set[str]:
    """Options that ``python -m module --help`` lists."""
    words, output = sys.argv, StringIO()
    sys.argv = [module, "--help"]
    try:
        with redirect_stdout(output), suppress(SystemExit), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the module may be imported already
            runpy.run_module(module, run_name="__main__")
    finally:
        sys.argv = words
    return {name.replace("-", "_") for name in re.findall(r"--([a-z][\w-]*)", output.getvalue())}


def _options(code: list[str]) -> Iterator[str]:
    everywhere = _options_of_runs().union(_options_of_benchmarks(), *map(_options_of_command, COMMANDS))
    for line in code:
        command = re.search(r"-m ([\w.]+)", line)
        known = _options_of_command(command[1]) if command and command[1] in COMMANDS else everywhere
        for option in re.findall(r"(?<![\w-])(--[a-z][\w-]*)", line):
            if option.removeprefix("--").replace("-", "_") not in known | {"help"}:
                yield f"option {option}"


def _targets(code: list[str]) -> Iterator[str]:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for line in code:
        for target in re.findall(r"^\s*make ([a-z-]+)", line):
            if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE):
                yield f"make {target}"


@cache
def _defined_in(file: Path) -> set[str]:
    """Classes, functions, methods (``Class.method``), fields and constants of a file."""
    names: set[str] = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                names.add(prefix + child.name)
                if isinstance(child, ast.ClassDef):
                    visit(child, f"{child.name}.")
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    visit(ast.parse(file.read_text(encoding="utf-8")), "")
    return names


def _named_in_files(text: str) -> Iterator[str]:
    for spans, path in _NAME_IN_FILE.findall(_prose(text)):
        files = [file for file in _sources() if file.as_posix().endswith("/" + path)]
        for name in re.findall(r"`([\w.]+)`", spans):
            if not any(name in _defined_in(file) for file in files):
                yield f"{name} in {path}"


def _tests(text: str) -> Iterator[str]:
    for file, spans in _TESTS.findall(_prose(text)):
        for name in re.findall(r"`(test_\w+)`", spans):
            pattern = re.compile(rf"^ *def {name}\(", flags=re.MULTILINE)
            places = [source for path, source in _sources().items() if path.name == file or not file]
            if not any(pattern.search(source) for source in places):
                yield f"test {name} of {file or 'any file'}"


@cache
def _words() -> set[str]:
    """Every word of the sources."""
    return set(re.findall(r"\w+", "\n".join(_sources().values()))) | {path.stem for path in _sources()}


@cache
def _classes() -> dict[str, set[str]]:
    """Members by class, written ``Class.member``, and names of their own."""
    members: dict[str, set[str]] = {}
    for file in _sources():
        for name in _defined_in(file):
            owner, _, member = name.rpartition(".")
            members.setdefault(owner or name, set()).add(member)
    return members


def _identifiers(text: str) -> Iterator[str]:
    """Names in code spans that no source has: identifiers, dotted or called."""
    for _, span in _SPAN.findall(_prose(text)):
        if not (found := re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*)(\(.*\))?", span)):
            continue
        owner, _, name = found[1].rpartition(".")
        if name in SUFFIXES or name in OF_OTHERS:
            continue
        if owner[:1].isupper() and name not in _classes().get(owner, {name}):
            yield f"member {found[1]}"
        elif name not in _words():
            yield f"name {span}"
