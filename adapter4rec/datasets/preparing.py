"""Preparing a domain: from :class:`RawData` to the folder that runs read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapter4rec.datasets.card import Card, described, figures
from adapter4rec.datasets.catalogue import TEXTS, Catalogue, read_catalogue
from adapter4rec.datasets.clicks import Clicks, filter_clicks, read_clicks
from adapter4rec.datasets.fetching import FAILURES, Failure
from adapter4rec.datasets.images import download_images
from adapter4rec.datasets.options import PrepareSettings
from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.writing import write_domain
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_folder


def require_free(into: Path) -> None:
    """Check that a folder can be written.

    Raises:
        UserError: it has content, or is a file.
    """
    if into.is_file():
        raise UserError(f"--into {into}: a file; expected a folder")
    if into.is_dir() and any(into.iterdir()):
        raise UserError(f"--into {into}: not empty; remove it, or choose another folder")


def prepare_domain(
    raw: RawData,
    settings: PrepareSettings,
    into: Path,
    *,
    name: str,
    inputs: Sequence[Mapping[str, Any]] = (),
    command: str = "",
    labels: tuple[str, str] = ("interactions", "items"),
    log: Callable[[str], None] = print,
) -> Card:
    """Filter a data set and write it as a domain with its card, atomically.

    Args:
        raw: the data.
        settings: the options.
        into: folder to write.
        name: name of the data set, for the card.
        inputs: the files that were read, for the card.
        command: the command, for the card.
        labels: what the clicks and the items are called in messages, such as their files.
        log: prints what is being done.

    Raises:
        UserError: the data cannot be read, an option does not fit them, nothing is left, or the folder has
            content.
    """
    require_free(into)
    notes = list(raw.notes)
    log("reading clicks …")
    clicks = read_clicks(raw.interactions, settings, labels[0])
    log(f"{len(clicks):,} clicks of {len(clicks.user_names):,} users; reading items …")
    catalogue = read_catalogue(raw.items, clicks, settings, notes, labels[1])
    log(f"{catalogue.frame.height:,} items; filtering and sorting …")
    content = " and ".join(f"a{'n' if one == 'image' else ''} {one}" for one in catalogue.require)
    content = content or "a row in the table of items"
    filter_clicks(clicks, settings, catalogue.complete(), content)
    if settings.images is not None:
        clicks, failed = _with_images(raw, settings, clicks, catalogue, content, labels[0])
        if failed:
            first = f"{failed[0].item}: {failed[0].reason}"
            notes.append(f"{len(failed):,} images could not be downloaded, such as {first}; see {FAILURES}")
    log(f"{len(clicks):,} clicks are left; writing {into} …")
    with atomic_folder(into) as folder:
        written = write_domain(
            folder,
            clicks,
            catalogue,
            unclicked=settings.unclicked == "keep",
            timestamps=settings.timestamps,
            notes=notes,
        )
        items = written.items
        counts = {
            f"items with {_article(column)}": items.height - items[column].null_count()
            for column in (*TEXTS, "image")
            if column in items.columns
        }
        if "title" in items.columns:
            counts["different titles"] = items["title"].drop_nulls().n_unique()
        data = figures(clicks.user, written.item, items.height, clicks.time, counts)
        files = [described(folder / file) for file in ("users.tsv", "items.tsv")]
        card = Card(name, data, clicks.steps, notes, inputs, command, files)
        card.write(folder)
        if into.is_dir():  # empty; another process may have filled it
            require_free(into)
    return card


def _with_images(
    raw: RawData, settings: PrepareSettings, clicks: Clicks, catalogue: Catalogue, content: str, label: str
) -> tuple[Clicks, list[Failure]]:
    """Download the images of the items that are left. What needs one and got none is filtered out anew."""
    assert settings.images is not None
    failed: list[Failure] = []
    while True:
        wanted = catalogue.rows_of(clicks, unclicked=settings.unclicked == "keep")
        failed = download_images(catalogue, wanted, settings.images, failed)
        if catalogue.complete()[clicks.item].all():
            return clicks, failed
        clicks = read_clicks(raw.interactions, settings, label)
        filter_clicks(clicks, settings, catalogue.complete(), content)


def _article(column: str) -> str:
    return f"{'an' if column[0] in 'ai' else 'a'} {column}"
