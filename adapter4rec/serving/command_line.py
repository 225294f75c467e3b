"""Options of commands that load a model: a run folder, a bundle, or a source model with adapters."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from adapter4rec.serving.bundles import is_bundle, read_bundle
from adapter4rec.serving.hub import bundle_folder
from adapter4rec.serving.recommender import Recommender
from adapter4rec.serving.trained_runs import load_adapted, load_run
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import single_process
from adapter4rec.utils.settings import PRECISIONS

_OPTIONS = {
    "users": "--users-file",
    "items": "--items-file",
    "source_checkpoint": "--source",
    "item_vectors": "--item-vectors",
    "cache_folder": "--cache-folder",
}
FILE: dict[str, Any] = {"type": Path, "metavar": "FILE"}


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`loaded_model` reads."""
    parser.add_argument(
        "run_folder",
        metavar="RUN",
        nargs="?",
        help="folder of a finished run, or a bundle (folder or user/name)",
    )
    files = parser.add_argument_group("source model and adapter, instead of a run folder")
    files.add_argument("--source", **FILE, help="source model")
    files.add_argument("--adapter", **FILE, help="adapter file of a run")
    files.add_argument("--force", action="store_true", help="load an adapter of another source model")
    files.add_argument("--base", metavar="BUNDLE", help="bundle with the base model of a bundle without one")
    moved = parser.add_argument_group(
        "new paths of files that have moved since the run",
        "With a run folder, --source is the new path of the model that the run started from.",
    )
    moved.add_argument("--users-file", "--users_file", **FILE, help="users.tsv of the run")
    moved.add_argument("--items-file", "--items_file", **FILE, help="items.tsv of the run")
    moved.add_argument("--images", **FILE, help="LMDB or folder of images of the run")
    moved.add_argument("--backbone", metavar="NAME", help="backbone of the run")
    moved.add_argument("--item-vectors", "--item_vectors", **FILE, help="item vectors of the run")
    cached = "folder of cached tokens (default: cache/ of a checkout, or the user's cache)"
    moved.add_argument("--cache-folder", "--cache_folder", **{**FILE, "metavar": "FOLDER", "help": cached})
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, or cuda:N")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="number format (%(default)s)")


def loaded_model(options: argparse.Namespace) -> Recommender:
    """The model that the options name.

    Raises:
        UserError: no model or several ones are named, or it cannot be loaded.
    """
    moved = {
        "users": options.users_file,
        "items": options.items_file,
        "images": options.images,
        "backbone": options.backbone,
        "item_vectors": options.item_vectors,
        "cache_folder": options.cache_folder,
    }
    name, process = options.run_folder, single_process(options.device)
    if name is not None and options.adapter is None:
        if options.force:
            raise UserError("--force applies to --source and --adapter, not to a run folder")
        folder, moved["source_checkpoint"] = Path(name), options.source
        if not is_bundle(folder) and (folder.exists() or name.count("/") != 1):
            _require_no_base(options)
            run = load_run(folder, process, moved)
            return Recommender(run, process, options.precision)
        folder = bundle_folder(name)
        if given := [option for option, value in moved.items() if value is not None]:
            option = _OPTIONS.get(given[0], f"--{given[0]}")
            raise UserError(f"{name}: a bundle has all its files; leave out {option}")
        base = None if options.base is None else bundle_folder(options.base)
        return read_bundle(folder, process, options.precision, base=base)
    if name is not None or None in (options.source, options.adapter):
        raise UserError("pass a run folder or a bundle, or both --source and --adapter")
    _require_no_base(options)
    run = load_adapted(options.source, options.adapter, process, moved, force=options.force)
    return Recommender(run, process, options.precision)


def _require_no_base(options: argparse.Namespace) -> None:
    if options.base is not None:
        raise UserError(f"--base {options.base}: is for a bundle that was written without its base model")
