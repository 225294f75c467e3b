"""Data settings: files of a domain, texts, images, data loading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapter4rec.utils.settings import Settings, option

if TYPE_CHECKING:
    import torch

ATTRIBUTES = ("title", "abstract", "body")
"""Text columns of ``items.tsv`` after the name, in order."""
FITS = ("stretch", "crop", "pad")
INTERPOLATIONS = ("bilinear", "bicubic")
"""How images are resized (see :func:`adapter4rec.data.images.decoding.resized`)."""
DECODINGS = ("full", "reduced", "fast")
"""How large JPEGs are decoded (see :class:`adapter4rec.data.images.decoding.Resizing`)."""


@dataclass(frozen=True, kw_only=True)
class DomainSettings(Settings):
    """Data."""

    users: Path = option(
        help="users.tsv: user name, tab, names of the clicked items separated by spaces, oldest "
        "first; optionally a tab and their timestamps, integers separated by spaces",
        runtime=True,
    )
    items: Path = option(help="items.tsv: item name and, for text items, tab-separated texts", runtime=True)
    encoding: str = option(
        "utf-8", "encoding of users.tsv and items.tsv, such as latin-1, cp1252, gb18030, utf-16", runtime=True
    )
    min_seq_len: int = option(5, "minimum clicks of a user; users with fewer are dropped", least=4)
    max_seq_len: int = option(20, "L, maximum length of a user's input sequence", least=1, most=1 << 20)
    split: str = option(
        "leave_one_out",
        "targets of validation and test: the last two clicks of each user, or the first clicks after two "
        "points in time, with timestamps in users.tsv",
        choices=("leave_one_out", "time"),
    )
    validation_from: float = option(
        0.8, "with --split time: start of validation; below 1, the fraction of clicks before it", above=0
    )
    test_from: float = option(
        0.9, "with --split time: start of the test; below 1, the fraction of clicks before it", above=0
    )
    cache_folder: Path = option(Path("cache"), "folder of cached tokens and hidden states", runtime=True)


@dataclass(frozen=True, kw_only=True)
class TextSettings(Settings):
    """Text items."""

    attributes: tuple[str, ...] = option(("title",), "texts that are encoded", choices=ATTRIBUTES)
    title_tokens: int = option(30, "maximum tokens of a title, with special tokens", least=3, most=100_000)
    abstract_tokens: int = option(50, "maximum tokens of an abstract", least=3, most=100_000)
    body_tokens: int = option(50, "maximum tokens of a body", least=3, most=100_000)
    allow_empty_titles: bool = option(False, "accept items without a title")
    tokens_at_once: int | None = option(
        None,
        "maximum tokens in one call of the backbone; default: 4096 on a CPU, 16384 on a GPU",
        least=1,
        runtime=True,
    )

    def max_tokens(self, attribute: str) -> int:
        """Maximum tokens of an attribute."""
        return int(getattr(self, f"{attribute}_tokens"))

    def tokens_on(self, device: torch.device | None) -> int:
        """Maximum tokens in one call of the backbone on a device; by default on the CPU."""
        on_gpu = device is not None and device.type == "cuda"
        return self.tokens_at_once or (16_384 if on_gpu else 4096)


@dataclass(frozen=True, kw_only=True)
class ImageFolderSettings(Settings):
    """Folder of images."""

    numbered_files: bool = option(
        False,
        "match item v123 with 123.jpg or v123.jpg, ignoring leading zeros (H&M's file names)",
        runtime=True,
    )
    image_column: int | None = option(
        None,
        "column of items.tsv with the paths of the images in --images; default: files named after the items",
        least=2,
        most=1 + len(ATTRIBUTES),
        runtime=True,
    )
    missing: str = option(
        "error",
        "items without a usable image: stop with an error that lists them, or skip them",
        choices=("error", "skip"),
        runtime=True,
    )


@dataclass(frozen=True, kw_only=True)
class ImageSettings(ImageFolderSettings):
    """Image items."""

    # Histories are half as long as with text, as in the paper.
    max_seq_len: int = option(10, "L, maximum length of a user's input sequence", least=1, most=1 << 20)
    images: Path | None = option(
        None,
        "folder of images, or an LMDB of them built by build_lmdb_hm.py; not needed by the id tower",
        runtime=True,
    )
    fit: str | None = option(
        None, "how images become square; default: that of the LMDB, else stretch", choices=FITS, runtime=True
    )
    interpolation: str | None = option(
        None,
        "filter of the resizing; default: that of the LMDB, else bilinear",
        choices=INTERPOLATIONS,
        runtime=True,
    )
    decoding: str | None = option(
        None,
        "how large JPEGs are decoded; default: that of the LMDB, else reduced",
        choices=DECODINGS,
        runtime=True,
    )
    image_size: int | None = option(
        None, "image height and width; default: the backbone's. Position embeddings are interpolated", least=1
    )
    images_at_once: int | None = option(
        None,
        "maximum images in one call of the backbone; default: 8 of 224 x 224 on a CPU, 64 on a GPU",
        least=1,
        runtime=True,
    )


class ImageDomainSettings(ImageSettings, DomainSettings):
    """Data settings of a domain with image items."""


@dataclass(frozen=True, kw_only=True)
class LoaderSettings(Settings):
    """Data loading."""

    workers: int | None = option(None, "loader processes; default: 2 on a GPU, else 0", least=0, runtime=True)
    prefetch: int = option(4, "batches prefetched by each data loader process", least=1, runtime=True)
    pin_memory: bool | None = option(None, "use pinned memory; default: true with a GPU", runtime=True)

    def workers_on(self, device: torch.device) -> int:
        """Number of data loader processes on a device."""
        return (2 if device.type == "cuda" else 0) if self.workers is None else self.workers

    def pins_memory_on(self, device: torch.device) -> bool:
        """Whether batches are loaded into pinned memory."""
        return device.type == "cuda" if self.pin_memory is None else self.pin_memory
