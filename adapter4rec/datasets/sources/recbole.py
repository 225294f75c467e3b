"""RecBole's atomic files: data sets that RecBole publishes, or that somebody has converted for it.

Format: https://recbole.io/docs/user_guide/data/atomic_files.html. ``NAME.inter``, ``NAME.item`` and
``NAME.user`` are separated by tabs, without quoting, and begin with a header of typed names such as
``user_id:token``, ``timestamp:float`` or ``title:token_seq``. Data split beforehand are ``NAME.train.inter``,
``NAME.valid.inter`` and ``NAME.test.inter``. Names of columns differ between data sets.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.base import Source
from adapter4rec.datasets.sources.blocks import (
    ClickBlocks,
    csv_blocks,
    files_below,
    first_line,
    in_seconds,
    lazy,
    names_of,
    note_repeats,
    one_file,
)
from adapter4rec.utils.errors import UserError

_HEADER = "a header of typed names separated by tabs, such as user_id:token"
_TYPES = ("token", "token_seq", "float", "float_seq")
_SPLIT = (".train.inter", ".valid.inter", ".test.inter")


def read(folder: Path) -> RawData:
    """Read a folder with the atomic files of one data set. Their ``.user`` file is not needed.

    Raises:
        UserError: a file is missing, cut off, swapped or damaged.
    """
    files = files_below(folder)
    notes: list[str] = []
    item_files = [path for path in files if path.name.endswith(".item")]
    item_file = one_file(item_files, folder, "NAME.item of one data set") if item_files else None
    item_header = _header(item_file) if item_file else {}
    frame, clicked = _clicks(_interaction_files(files, folder, notes), item_header, notes)
    note_repeats(frame, notes)
    frame = in_seconds(frame, notes)
    items = names_of(frame, "item").to_frame()
    if item_file is None:
        notes.append("no NAME.item file: items without text")
        return RawData(lazy(frame), items.lazy(), notes)
    table = _items(item_file, item_header, clicked, notes)
    merged = items.join(table, on="item", how="left", maintain_order="left")
    known = len(items.join(table, on="item", how="semi"))
    if not known:
        raise UserError(f"{item_file}: holds no item of the clicks; expected files of one data set")
    notes.append(f"{len(items) - known:,} of {len(items):,} clicked items are not in {item_file.name}")
    return RawData(lazy(frame), merged.lazy(), notes)


def _interaction_files(files: list[Path], folder: Path, notes: list[str]) -> list[Path]:
    split = [path for path in files if path.name.endswith(_SPLIT)]
    whole = [path for path in files if path.name.endswith(".inter") and path not in split]
    if whole or not split:
        return [one_file(whole, folder, "NAME.inter of one data set")]
    lacking = [ending for ending in _SPLIT if not any(path.name.endswith(ending) for path in split)]
    if lacking or len(split) != len(_SPLIT):
        raise UserError(
            f"{folder}: expected one file each of NAME{', NAME'.join(_SPLIT)}; missing: {', '.join(lacking)}"
        )
    notes.append("NAME.train.inter, NAME.valid.inter and NAME.test.inter are put together")
    return [path for ending in _SPLIT for path in split if path.name.endswith(ending)]


def _header(path: Path) -> dict[str, str]:
    """The types of the columns by name, in their order."""
    columns = {}
    for field in first_line(path, _HEADER).split("\t"):
        name, _, kind = field.rpartition(":")
        if not name or kind not in _TYPES:
            raise UserError(f"{path}: {field[:40]!r} in its first line is no typed name; expected {_HEADER}")
        columns[name] = kind
    return columns


def _roles(path: Path, header: dict[str, str], item_header: dict[str, str]) -> dict[str, str]:
    """Which column of an ``.inter`` file is the user, the item, the time and the rating."""
    if lists := [name for name in header if name.endswith("_list")]:
        raise UserError(
            f"{path}: a file of augmented sequences ({lists[0]}); expected one click a line, as in NAME.inter"
        )
    tokens = [name for name, kind in header.items() if kind == "token"]
    users = [name for name in tokens if "user" in name.lower() or name.lower() == "uid"] or tokens[:1]
    others = [name for name in tokens if name not in users]
    described = [name for name in others if name in item_header]
    item = _first(others, ("item_id", "product_id", "item", "product"))
    item = item or next(iter(described or others), None)
    if not users or item is None:
        raise UserError(
            f"{path}: no token columns of users and items in {', '.join(header)}; expected {_HEADER}"
        )
    roles = {"user": users[0], "item": item}
    numbers = [name for name, kind in header.items() if kind == "float"]
    moments = [name for name in numbers if "offset" not in name.lower() and "zone" not in name.lower()]
    time = _first(moments, ("timestamp", "time", "date"))
    ratings = [name for name in numbers if name.lower() in ("rating", "ratings", "stars", "score", "label")]
    rating = next(iter(ratings), None)
    return roles | {role: name for role, name in (("time", time), ("rating", rating)) if name}


def _clicks(paths: list[Path], item_header: dict[str, str], notes: list[str]) -> tuple[pl.DataFrame, str]:
    """The clicks, and the name of the column of items."""
    frames = []
    for path in paths:
        header = _header(path)
        roles = _roles(path, header, item_header)
        expected = f"{len(header)} fields a line, separated by tabs"
        clicks = ClickBlocks(path, expected)
        chosen = [pl.col(column).alias(role) for role, column in roles.items()]
        for line, block in csv_blocks(
            path, list(header), expected, separator="\t", header=True, quoted=False
        ):
            clicks.add(block.with_columns(pl.all().str.strip_chars_end("\r")).select(chosen), line)
        frames.append(clicks.frame())
    used = ", ".join(f"{column} as {role}" for role, column in roles.items())
    notes.append(f"columns of {paths[0].name}: {used}")
    if "time" not in roles:
        notes.append("no timestamps: clicks keep the order of the file")
    return pl.concat(frames), roles["item"]


def _items(path: Path, header: dict[str, str], clicked: str, notes: list[str]) -> pl.DataFrame:
    """Items with the columns that look like a title and a description.

    Args:
        path: the ``.item`` file.
        header: its columns.
        clicked: name of the column of items in the ``.inter`` file.
        notes: gets the columns that are read.
    """
    names = list(header)
    tokens = [name for name in names if header[name] == "token"]
    key = clicked if clicked in names else _first(tokens, ("item_id", "item", "id")) or names[0]
    texts = [name for name in names if name != key and header[name] in ("token", "token_seq")]
    title = _first(texts, ("title", "name", "headline"))
    abstract = _first([name for name in texts if name != title], ("abstract", "description", "summary"))
    expected = f"{len(header)} fields a line, separated by tabs"
    blocks = csv_blocks(path, names, expected, separator="\t", header=True, quoted=False)
    parts = []
    for line, block in blocks:
        if (lacking := block[key].is_null()).any():
            raise UserError(
                f"{path}, line {line + int(lacking.arg_max() or 0)}: {key} is missing; expected {expected}"
            )
        wanted = (
            {"item": key} | ({"title": title} if title else {}) | ({"abstract": abstract} if abstract else {})
        )
        clean = [_unquoted(pl.col(column).str.strip_chars()).alias(role) for role, column in wanted.items()]
        parts.append(block.select(clean))
    if not parts:
        raise UserError(f"{path}: no items; expected {expected}")
    notes.append(f"columns of {path.name}: {title or 'none'} as title, {abstract or 'none'} as abstract")
    return pl.concat(parts).unique("item", keep="first", maintain_order=True)


def _unquoted(text: pl.Expr) -> pl.Expr:
    """A field without the quotation marks of CSV, which some files have; null if it is empty, or ``nan``."""
    inner = text.str.extract(r'^"((?:[^"]|"")*)"$').str.replace_all('""', '"', literal=True)
    whole = pl.coalesce(inner, text)
    return pl.when(~whole.is_in(["", "nan"])).then(whole)


def _first(names: list[str], words: tuple[str, ...]) -> str | None:
    """The first name that equals one of the words, else ends with one, else contains one."""
    for test in (str.__eq__, str.endswith, str.__contains__):
        for word in words:
            for name in names:
                if test(name.lower(), word):
                    return name
    return None


SOURCE = Source(
    about="RecBole atomic files: any data set converted for RecBole",
    published="https://recbole.io/dataset_list.html",
    licence="that of the data set itself; RecBole gives none",
    files="NAME.inter (or NAME.train.inter, NAME.valid.inter, NAME.test.inter), NAME.item",
    read=read,
)
