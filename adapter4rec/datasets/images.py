"""Images of the items of a data set, downloaded from their addresses (``--images``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from adapter4rec.datasets.catalogue import Catalogue
from adapter4rec.datasets.fetching import Failure, fetch_images
from adapter4rec.utils.plain_text import shows_progress


def download_images(
    catalogue: Catalogue, wanted: np.ndarray, folder: Path, failed: list[Failure]
) -> list[Failure]:
    """Download the images of some items that have an address and no file.

    The catalogue is changed in place: an item has a path then, or no address any more.

    Args:
        catalogue: the items.
        wanted: bool ``[rows]``, the items whose images are needed.
        folder: where the images are, and will be.
        failed: failures of earlier calls, which are not tried again.

    Returns:
        All failures, those of earlier calls first. They are listed in ``failed_images.csv``, too.

    Raises:
        UserError: ``folder`` is a file.
    """
    frame = catalogue.frame
    needed = frame.filter(pl.Series(wanted) & pl.col("image").is_null() & pl.col("image_url").is_not_null())
    urls = dict(needed.select("item", "image_url").iter_rows())
    found = fetch_images(urls, folder, failed=failed, progress=shows_progress())
    names = frame["item"]
    paths = pl.Series(
        [str(path) if (path := found.paths.get(name)) else None for name in names], dtype=pl.String
    )
    tried = names.is_in(list(urls))
    catalogue.frame = frame.with_columns(
        image=pl.coalesce("image", paths), image_url=pl.when(~tried).then("image_url")
    )
    return found.failures
