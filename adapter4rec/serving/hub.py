"""Bundles on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from adapter4rec.serving.bundles import is_bundle, read_bundle, read_manifest
from adapter4rec.serving.recommender import Recommender
from adapter4rec.utils.errors import UserError, reason_of
from adapter4rec.utils.process_group import single_process


def from_pretrained(
    name: Path | str,
    *,
    revision: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    base: Path | str | None = None,
) -> Recommender:
    """Load a bundle from a folder, or from the Hugging Face hub (or ``HF_ENDPOINT``).

    Args:
        name: folder of a bundle, or ``user/name`` of a repository on the hub, which is downloaded into the
            cache of huggingface_hub.
        revision: branch, tag or commit of the repository.
        device: ``auto`` (a GPU if available), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: number format in which items are encoded: fp32, bf16, fp16 or auto.
        base: a bundle with the base model, in the same two forms, if this one was written without.

    Raises:
        UserError: no such bundle, the download failed, or a file is damaged.
    """
    of_base = None if base is None else bundle_folder(base)
    return read_bundle(bundle_folder(name, revision), single_process(device), precision, base=of_base)


def bundle_folder(name: Path | str, revision: str | None = None) -> Path:
    """The folder of a bundle, after a download if it is a name on the hub.

    Raises:
        UserError: neither a bundle nor such a name, or the download failed.
    """
    if is_bundle(Path(name)):
        return Path(name)
    if (Path(name) / "settings.json").is_file():
        raise UserError(
            f"{name}: a run, not a bundle; write one with: adapter4rec export {name} --bundle FOLDER"
        )
    local = Path(name).parent != Path() and Path(name).parent.is_dir()  # such as runs/NAME, mistyped
    if not isinstance(name, str) or name.count("/") != 1 or Path(name).exists() or local:
        raise UserError(
            f"{name}: not a bundle, nor a run; expected its folder, or user/name on the Hugging Face hub"
        )
    try:
        return Path(snapshot_download(name, revision=revision))
    except Exception as error:  # huggingface_hub does not wrap the exceptions of its HTTP library
        raise UserError(
            f"{name}: no such folder, and the download from the hub failed "
            f"({reason_of(error)}); check the name, `hf auth login` and HF_ENDPOINT"
        ) from error


def push_to_hub(folder: Path | str, name: str, *, private: bool = True, revision: str | None = None) -> str:
    """Upload a bundle to the Hugging Face hub (or ``HF_ENDPOINT``), in one commit.

    The model card shows the command of the run, with its paths, and the manifest names items and domain.

    Args:
        folder: the bundle.
        name: ``user/name``; the repository is created if it does not exist.
        private: whether a new repository is private.
        revision: branch; default: ``main``.

    Returns:
        Address of the commit.

    Raises:
        UserError: not a bundle, a damaged one, or the upload failed.
    """
    read_manifest(Path(folder))
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=name,
            revision=revision,
            commit_message=f"Upload {Path(folder).name}",
            delete_patterns="backbone/*",  # files of an earlier backbone would be read, too
        )
    except Exception as error:  # see above
        raise UserError(
            f"{name}: upload failed ({reason_of(error)}); check the name and `hf auth login`"
        ) from error
    return str(commit.commit_url)
