"""Loading the model of a finished run in Python."""

from __future__ import annotations

from pathlib import Path

from adapter4rec.serving.bundles import is_bundle, read_bundle
from adapter4rec.serving.recommender import Recommender
from adapter4rec.serving.trained_runs import load_run
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.process_group import single_process
from adapter4rec.utils.settings import PRECISIONS


def load(  # noqa: PLR0913 (one for each kind of file that may have moved)
    run_folder: Path | str,
    *,
    device: str = "auto",
    precision: str = "fp32",
    users: Path | str | None = None,
    items: Path | str | None = None,
    images: Path | str | None = None,
    backbone: str | None = None,
    item_vectors: Path | str | None = None,
    source_checkpoint: Path | str | None = None,
    cache_folder: Path | str | None = None,
) -> Recommender:
    """Load the model of a finished run, of either stage and any modality, or a bundle.

    Args:
        run_folder: folder of the run, or of a bundle, which has all its files.
        device: ``auto`` (a GPU if available), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: number format in which items are encoded: fp32, bf16, fp16 or auto.
        users: new path of the run's ``users.tsv``, if it has moved.
        items: new path of the run's ``items.tsv``, if it has moved.
        images: new path of the run's LMDB or folder of images, if it has moved.
        backbone: new path of the run's backbone, if it has moved.
        item_vectors: new path of the run's item vectors, if they have moved.
        source_checkpoint: new path of the model that the run started from, if it has moved.
        cache_folder: folder of cached tokens; default: ``cache/`` of a checkout, or the user's
            cache.

    Raises:
        UserError: not a run folder, a run without a model, or files that are missing or have changed.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r}: {nearest(precision, list(PRECISIONS))}")
    moved = {
        "users": users,
        "items": items,
        "images": images,
        "backbone": backbone,
        "item_vectors": item_vectors,
        "source_checkpoint": source_checkpoint,
        "cache_folder": cache_folder,
    }
    process = single_process(device)
    if is_bundle(Path(run_folder)):
        if given := [name for name, value in moved.items() if value is not None]:
            raise UserError(f"{run_folder}: a bundle has all its files; leave out {given[0]}")
        return read_bundle(Path(run_folder), process, precision)
    return Recommender(load_run(Path(run_folder), process, moved), process, precision)
