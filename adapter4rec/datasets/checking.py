"""Checking a prepared domain: ``python -m Dataset.check FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from adapter4rec.data.interactions import read_interactions, read_items
from adapter4rec.data.lines import read_line_blocks
from adapter4rec.datasets.card import Card, described, figures
from adapter4rec.datasets.options import CHECK
from adapter4rec.datasets.texts import HTML_SIGN, cleaned_texts
from adapter4rec.utils.command_line import parse_command_line, single_values
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import composed
from adapter4rec.utils.settings import Settings, option, options_of

if TYPE_CHECKING:
    from adapter4rec.datasets.checking_images import ImageCheck

_UNKNOWN = -1
_MANY = 0.1
"""Share of items with an equal title, or without clicks, above which a warning is given."""
_NO_TITLES = ("null", "nan", "none", "n/a", "na", "nil", "undefined", "-")
_HEADERS = {
    "item",
    "items",
    "item_id",
    "itemid",
    "id",
    "sku",
    "asin",
    "name",
    "news_id",
    "product_id",
    "movieid",
}


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """What is checked."""

    users: Path | None = option(None, "users file; default: users.tsv in the folder")
    items: Path | None = option(None, "items file; default: items.tsv in the folder")
    images: Path | None = option(
        None, "folder of item images; default: images in the folder, if there is one"
    )
    sheet: Path | None = option(
        None, "contact sheet of the oddest images; default: images_check.png beside the items file"
    )
    min_seq_len: int = option(5, "minimum clicks of a user in the run", least=4)
    max_seq_len: int = option(20, "maximum length of a user's input sequence in the run", least=1)
    allow_empty_titles: bool = option(False, "whether the run accepts items without a title")
    encoding: str = option("utf-8", "encoding of the files")
    numbered_files: bool = option(False, "match item v123 with the image 123.jpg or v123.jpg")


@dataclass(frozen=True)
class _Contents:
    """The lines of a domain, read without requiring that a run accepts them."""

    names: list[bytes]
    titles: pl.Series | None
    users: list[bytes]
    user: np.ndarray
    item: np.ndarray
    times: np.ndarray | None
    odd_times: int


def check(arguments: Sequence[str] | None = None) -> None:
    """Print the card of a domain, warnings, and whether a run would accept it.

    Raises:
        UserError: a run would not accept it, or no folder is given.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    folder = Path(words.pop(0)) if words and not words[0].startswith("-") else None
    about = f"Check a prepared domain: {CHECK} FOLDER."
    settings = CheckSettings.from_values(
        single_values(parse_command_line(words, options_of(CheckSettings), about))
    )
    users, items = settings.users, settings.items
    if folder is None and (users is None or items is None):
        raise UserError(f"expected a folder with users.tsv and items.tsv: {CHECK} FOLDER")
    if folder is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    here = folder or Path()
    report(
        users or here / "users.tsv", items or here / "items.tsv", settings.images or here / "images", settings
    )


def report(users: Path, items: Path, images: Path, settings: CheckSettings) -> None:
    """Print the card, the warnings and the verdict.

    Raises:
        UserError: a run would not accept the files.
    """
    contents = _read(users, items, settings.encoding)
    pictures = _check_images(images, contents, settings)
    print(_card(contents, users, items, pictures).markdown())
    for warning in [*_warnings(contents, settings), *(pictures.warnings() if pictures else ())]:
        print(f"warning: {warning}")
    if pictures is not None:
        sheet = settings.sheet or items.with_name("images_check.png")
        from adapter4rec.datasets.checking_images import write_sheet, write_unusable

        if write_sheet(pictures, sheet):
            print(f"contact sheet of the oddest images: {sheet}")
        unusable = sheet.with_suffix(".csv")
        if count := write_unusable(pictures, unusable):
            print(f"{count:,} items have no usable image, listed with the reasons in {unusable}")
    try:
        print(f"accepted: {_verdict(users, items, contents.titles is not None, settings)}")
    except UserError as error:
        raise UserError(f"a run would not accept these files: {error}") from None


def _check_images(images: Path, contents: _Contents, settings: CheckSettings) -> ImageCheck | None:
    if settings.images is None and not images.is_dir():
        return None
    from adapter4rec.datasets.checking_images import check_images

    names = list(dict.fromkeys(filter(None, contents.names)))
    return check_images(images, names, numbered=settings.numbered_files)


def _verdict(users: Path, items: Path, titled: bool, settings: CheckSettings) -> str:
    attributes = ("title",) if titled else ()
    table = read_items(
        items, attributes, allow_empty_titles=settings.allow_empty_titles, encoding=settings.encoding
    )
    found = read_interactions(
        users,
        table,
        min_seq_len=settings.min_seq_len,
        max_seq_len=settings.max_seq_len,
        encoding=settings.encoding,
    )
    return found.describe()


def _read(users_path: Path, items_path: Path, encoding: str) -> _Contents:
    names: list[bytes] = []
    titles: list[str] = []
    titled = False
    for _, lines in read_line_blocks(items_path, encoding):
        for line in lines:
            name, *texts = line.split(b"\t")
            names.append(composed(name))
            titled |= bool(texts)
            titles.append(texts[0].decode("utf-8", "replace") if texts else "")
    row_of = {name: row for row, name in enumerate(names)}
    users: list[bytes] = []
    user, item, times = [], [], []
    odd = 0
    timed = False
    for first, words, numbers in _histories(users_path, users, encoding):
        rows = np.fromiter(map(row_of.get, words, repeat(_UNKNOWN)), np.int32, len(words))
        item.append(rows)
        user.append(np.full(len(words), first, np.int32))
        if numbers is not None:
            timed = True
            found = _integers(numbers)
            odd += found is None or len(found) != len(words) or bool((found[1:] < found[:-1]).any())
            if found is not None and len(found) == len(words):
                times.append(found)
    clicks = np.concatenate(item) if item else np.zeros(0, np.int32)
    together = np.concatenate(times) if timed and times else None
    return _Contents(
        names,
        pl.Series(titles, dtype=pl.String) if titled else None,
        users,
        np.concatenate(user) if user else clicks,
        clicks,
        together,
        odd,
    )


def _histories(
    path: Path, users: list[bytes], encoding: str
) -> Iterator[tuple[int, list[bytes], list[bytes] | None]]:
    """Number, items and times of each user; ``users`` receives the names."""
    for _, lines in read_line_blocks(path, encoding):
        for line in lines:
            name, *fields = composed(line).split(b"\t")
            users.append(name)
            words = fields[0].split() if fields else []
            yield len(users) - 1, words, fields[1].split() if len(fields) > 1 else None


def _integers(numbers: list[bytes]) -> np.ndarray | None:
    try:
        return np.array(list(map(int, numbers)), np.int64)
    except (ValueError, OverflowError):
        return None


def _card(contents: _Contents, users: Path, items: Path, pictures: ImageCheck | None) -> Card:
    known = contents.item != _UNKNOWN
    counts: dict[str, int] = {}
    if contents.titles is not None:
        whole = cleaned_texts(contents.titles, strip_html=False).drop_nulls()
        counts = {"items with a title": len(whole), "different titles": whole.n_unique()}
    if pictures is not None:
        counts["items with an image"] = len(pictures.good)
    item = contents.item[known]
    data = figures(contents.user[known], item, len(contents.names), contents.times, counts)
    if pictures is not None:
        data |= pictures.figures()
    return Card(users.absolute().parent.name, data, inputs=[described(users), described(items)])


def _warnings(contents: _Contents, settings: CheckSettings) -> Iterator[str]:
    """What is odd in the files, also where a run accepts it."""
    yield from _warnings_of_items(contents)
    if contents.titles is not None:
        yield from _warnings_of_titles(contents.titles)
    users = len(contents.users)
    lengths = np.bincount(contents.user, minlength=users)
    few = int((lengths < settings.min_seq_len).sum())
    if few > _MANY * users:
        yield f"{few:,} of {users:,} users have fewer than {settings.min_seq_len} clicks; runs drop them"
    if len(set(contents.users)) < users:
        yield f"{users - len(set(contents.users)):,} users have a name that another line has"
    if contents.odd_times:
        yield f"{contents.odd_times:,} users have times that are not one integer per click, in order"
    if len(contents.item) > users * len(contents.names):
        yield (
            f"{len(contents.item):,} clicks of {users:,} users on {len(contents.names):,} items: more "
            "clicks than pairs; are these the columns of user and item?"
        )
    yield from _warnings_of_targets(contents, lengths)


def _warnings_of_targets(contents: _Contents, lengths: np.ndarray) -> Iterator[str]:
    """Last clicks on an item that the user has clicked before."""
    starts = np.cumsum(lengths) - lengths
    last = np.repeat(contents.item[(starts + lengths - 1)[lengths > 0]], lengths[lengths > 0])
    equal = (contents.item == last).astype(np.int64)
    again = int((np.add.reduceat(equal, starts[lengths > 0]) > 1).sum()) if len(equal) else 0
    if again > _MANY * len(lengths):
        yield (
            f"the last click of {again:,} of {len(lengths):,} users is on an item of their history; as a "
            "test target it counts as missed, unless the run has --exclude_history false or the data were "
            "prepared with --repeats merge"
        )


def _warnings_of_items(contents: _Contents) -> Iterator[str]:
    names = contents.names
    distinct = set(names)
    if len(distinct) < len(names):
        yield f"{len(names) - len(distinct):,} items have a name that another line has"
    elif (folded := len({name.lower() for name in distinct})) < len(distinct):
        yield f"{len(distinct) - folded:,} item names differ from another in upper and lower case alone"
    unknown = int((contents.item == _UNKNOWN).sum())
    if unknown:
        yield f"{unknown:,} of {len(contents.item):,} clicks are on items that items.tsv does not have"
    clicked = np.zeros(len(names), bool)
    clicked[contents.item[contents.item != _UNKNOWN]] = True
    if not names:
        return
    if (~clicked).mean() > _MANY:
        yield f"{int((~clicked).sum()):,} of {len(names):,} items have no click; runs do not rank them"
    if not clicked[0] and names[0].decode("utf-8", "replace").lower() in _HEADERS:
        yield f"the first item, {names[0].decode()!r}, looks like a header; the files have none"


def _warnings_of_titles(titles: pl.Series) -> Iterator[str]:
    def shown(found: pl.Series) -> str:
        return repr(titles.filter(found)[0])

    whole = cleaned_texts(titles, strip_html=False)
    if missing := whole.null_count():
        yield f"{missing:,} items have no visible text in their title"
    quoted = titles.str.contains(r'^".*"$') | titles.str.contains('""', literal=True)
    if quoted.any():
        yield (
            f"{quoted.sum():,} titles are quoted, such as {shown(quoted)}; quotation marks are part of a "
            "title (pandas: to_csv(quoting=csv.QUOTE_NONE))"
        )
    marked = titles.str.contains(HTML_SIGN)
    if marked.any():
        yield f"{marked.sum():,} titles look like HTML, such as {shown(marked)}"
    words = titles.str.strip_chars().str.to_lowercase().is_in(_NO_TITLES)
    if words.any():
        yield f"{words.sum():,} titles are {shown(words)}, which may stand for a missing title"
    distinct = whole.drop_nulls()
    if len(distinct) and (same := len(distinct) - distinct.n_unique()) > _MANY * len(distinct):
        yield f"{same:,} of {len(distinct):,} titles are repeated; such items cannot be told apart"
