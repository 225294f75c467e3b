"""Options of ``python -m Dataset.prepare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import CHECKOUT
from adapter4rec.utils.settings import Settings, option

PREPARE, CHECK = (
    f"python -m Dataset.{name}" if CHECKOUT else f"adapter4rec {name}" for name in ("prepare", "check")
)
"""Commands, as help and messages show them."""
CONTENT = ("auto", "title", "image", "none")
"""What ``--require`` may name."""


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(Settings):
    """Filtering, in this order."""

    min_rating: float | None = option(None, "keep clicks with a rating of at least X; others are no clicks")
    since: str | None = option(
        None, "keep clicks from this time on: a date such as 2020-01-31, or Unix seconds; UTC"
    )
    until: str | None = option(None, "keep clicks before this time")
    require: tuple[str, ...] = option(
        ("auto",),
        "what an item must have; items without it are dropped with their clicks. auto: a title if the "
        "data have titles, otherwise an image if they have images",
        choices=CONTENT,
    )
    repeats: str = option(
        "keep", "a user's repeated clicks on an item: keep all, or the first", choices=("keep", "merge")
    )
    k_core: int | None = option(
        None, "drop users and items with fewer than N clicks until none is left", least=1
    )
    min_item_clicks: int = option(1, "drop items with fewer clicks, in one pass", least=1)
    min_user_clicks: int = option(1, "drop users with fewer clicks, in one pass, after the items", least=1)
    last: int | None = option(None, "keep the last N clicks of each user", least=1)
    users: int | None = option(None, "draw N users, by a hash of --seed and the user's name", least=1)
    seed: int = option(0, "seed of --users", least=0, most=2**63 - 1)
    unclicked: str = option("drop", "items without clicks: drop or keep", choices=("drop", "keep"))
    html: str = option(
        "strip",
        "texts: strip HTML tags, entities and superfluous white space, or keep them as they are",
        choices=("strip", "keep"),
    )
    images: Path | None = option(
        None,
        "download the images of the items from their addresses into this folder; those that are there are "
        "kept. Without it, nothing is downloaded",
    )
    timestamps: bool = option(False, "write the times of the clicks as the third column of users.tsv")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k_core and (self.min_item_clicks > 1 or self.min_user_clicks > 1):
            raise UserError("--k_core: not together with --min_user_clicks or --min_item_clicks")
        if len(self.require) > 1 and {"auto", "none"} & set(self.require):
            raise UserError(f"--require {','.join(self.require)}: auto and none exclude others")


@dataclass(frozen=True, kw_only=True)
class ColumnSettings(Settings):
    """Columns of a table."""

    user: str = option("user", "column of the user in --interactions")
    item: str = option("item", "column of the item in --interactions, and in --items unless --item_id is set")
    item_id: str | None = option(None, "column of the item in --items, if it has another name there")
    time: str | None = option(None, "column of the time; without it, the order of the rows counts")
    time_format: str | None = option(
        None, "format of times that are texts, such as %d.%m.%Y %H:%M; recognised if unambiguous"
    )
    rating: str | None = option(None, "column of the rating, for --min_rating")
    where: tuple[str, ...] | None = option(
        None,
        "keep the rows of --interactions with these values, COLUMN=VALUE: state=paid, or state=paid,sent for "
        "either of two",
    )
    title: str | None = option(None, "column of the title in --items")
    abstract: str | None = option(None, "column of the abstract")
    body: str | None = option(None, "column of the body")
    image: str | None = option(
        None, "column of the path of the image file, or of its address (https://…), which --images downloads"
    )
    image_folder: Path | None = option(
        None, "folder of relative image paths; default: the folder of the first file of --items"
    )


@dataclass(frozen=True, kw_only=True)
class FileSettings(Settings):
    """Files of a table: CSV, Parquet or JSON lines, gzip or not."""

    interactions: tuple[Path, ...] = option(help="files with one click per row")
    items: tuple[Path, ...] | None = option(None, "files with one item per row")
    separator: str | None = option(None, "separator of CSV columns, one character or tab; default: detected")
    quoting: bool = option(True, 'whether CSV fields may be in quotation marks ("a; b")')
    encoding: str = option("utf-8", "encoding of CSV and JSON files, such as latin-1 or cp1252")


@dataclass(frozen=True, kw_only=True)
class TableSettings(ColumnSettings, FileSettings):
    """A table."""


@dataclass(frozen=True, kw_only=True)
class RawFolderSettings(Settings):
    """A public data set."""

    raw: Path = option(help="folder of the raw download")


@dataclass(frozen=True, kw_only=True)
class OutputSettings(Settings):
    """Output."""

    into: Path = option(help="folder to write; it must not exist, or be empty")
