"""MovieLens, in each form that GroupLens has published.

Published at https://grouplens.org/datasets/movielens; each archive has a README with its format:

- 100K: ``u.data`` (user, item, rating, seconds; tabs) and ``u.item`` (24 columns, bars, Latin-1);
- 1M (Latin-1) and 10M (UTF-8): ``ratings.dat`` and ``movies.dat``, fields separated by ``::``;
- 20M, 25M, 32M, latest, latest-small: ``ratings.csv`` and ``movies.csv`` with headers; titles with commas are
  quoted.

Titles end with the year, and a leading article may follow a comma: ``Matrix, The (1999)``. They are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.base import Source
from adapter4rec.datasets.sources.lines import (
    check_rows,
    check_text,
    collect,
    count_note,
    only_one,
    scan_fields,
)
from adapter4rec.utils.errors import UserError

_RATINGS = ("user", "item", "rating", "time")
_MOVIES = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}
_FILES = ", or ".join(f"{ratings} and {movies}" for ratings, movies in _MOVIES.items())
_CSV_RATINGS = "userId,movieId,rating,timestamp"
_CSV_MOVIES = "movieId,title,genres"
_U_ITEM_COLUMNS = 24
_SAMPLE = 1_000_000


def read(folder: Path) -> RawData:
    """Read the one MovieLens archive that is unpacked below ``folder``."""
    ratings = only_one(folder, _FILES, *_MOVIES)
    movies = ratings.with_name(_MOVIES[ratings.name])
    readers: dict[str, tuple[Callable[[Path], pl.LazyFrame], Callable[[Path], pl.DataFrame]]] = {
        "u.data": (_ratings_by_tabs, _movies_by_bars),
        "ratings.dat": (_ratings_by_colons, _movies_by_colons),
        "ratings.csv": (_ratings_by_commas, _movies_by_commas),
    }
    read_ratings, read_movies = readers[ratings.name]
    check_text(movies, f"the movies of MovieLens, beside {ratings.name}")
    check_text(ratings, f"the ratings of MovieLens: {', '.join(_RATINGS)}")
    items = read_movies(movies)
    interactions = read_ratings(ratings)
    if len(items) != items["item"].n_unique():
        raise UserError(f"{movies}: {len(items) - items['item'].n_unique():,} numbers of movies occur twice")
    return RawData(interactions, items.lazy(), _notes(ratings, interactions, items))


def _ratings_by_tabs(path: Path) -> pl.LazyFrame:
    return _checked(path, scan_fields(path, _RATINGS))


def _ratings_by_colons(path: Path) -> pl.LazyFrame:
    return _checked(path, scan_fields(path, _RATINGS, "::"))


def _ratings_by_commas(path: Path) -> pl.LazyFrame:
    """Parsed as numbers, 32 million in one pass; the lines one by one only to find what is wrong."""
    _check_header(path, _CSV_RATINGS)
    schema = {"userId": pl.UInt32, "movieId": pl.UInt32, "rating": pl.Float64, "timestamp": pl.Int64}
    parsed = pl.scan_csv(path, schema=schema, glob=False)
    rated = pl.col("rating").is_between(0, 5).fill_null(False)
    right = pl.all_horizontal(rated, pl.col("userId", "movieId", "timestamp").is_not_null())
    try:
        whole = bool(parsed.select(right.all()).collect(engine="streaming").item())
    except pl.exceptions.ComputeError:
        whole = False
    if not whole:
        return _checked(path, scan_fields(path, _RATINGS, ",").filter(pl.col("row") > 0))
    return parsed.select(
        pl.col("userId").cast(pl.String).alias("user"),
        pl.col("movieId").cast(pl.String).alias("item"),
        time="timestamp",
        rating="rating",
    )


def _checked(path: Path, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Ratings and times as numbers."""
    typed = rows.with_columns(
        pl.col("rating").cast(pl.Float64, strict=False), pl.col("time").cast(pl.Int64, strict=False)
    )
    wrong = pl.col("rating").is_null() | pl.col("time").is_null() | ~pl.col("rating").is_between(0, 5)
    named = pl.all_horizontal(pl.col("user", "item").str.contains(r"^\d+$"))
    check_rows(
        path, typed, wrong | ~named, "expected a user, a movie, a rating of 0.5 to 5, a time in seconds"
    )
    return typed.select("user", "item", "time", "rating")


def _check_header(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        header = file.readline(200).removeprefix(b"\xef\xbb\xbf").strip()
    if header != expected.encode():
        shown = header.decode("utf-8", "replace")
        raise UserError(f"{path}:1: expected the header {expected}, found {shown[:60]!r}")


def _movies_by_bars(path: Path) -> pl.DataFrame:
    expected = f"expected {_U_ITEM_COLUMNS} fields separated by bars: number, title, …"
    rows = []
    for number, line in enumerate(_decoded(path, ("latin-1",)), 1):
        fields = line.split("|")
        if line and (len(fields) != _U_ITEM_COLUMNS or not fields[0].isdecimal()):
            raise UserError(f"{path}:{number}: {expected}")
        if line:
            rows.append((fields[0], fields[1]))
    return _movies(rows)


def _movies_by_colons(path: Path) -> pl.DataFrame:
    rows = []
    for number, line in enumerate(_decoded(path, ("utf-8", "latin-1")), 1):
        name, _, rest = line.partition("::")
        title, separator, _ = rest.rpartition("::")
        if line and (not separator or not name.isdecimal()):
            raise UserError(f"{path}:{number}: expected 3 fields separated by '::': number, title, genres")
        if line:
            rows.append((name, title))
    return _movies(rows)


def _movies_by_commas(path: Path) -> pl.DataFrame:
    _check_header(path, _CSV_MOVIES)
    schema = dict.fromkeys(_CSV_MOVIES.split(","), pl.String)
    rows = pl.scan_csv(path, schema=schema, row_index_name="row", glob=False).rename({"movieId": "item"})
    table = collect(path, rows, f"expected {_CSV_MOVIES}, titles with commas in quotes")
    wrong = table.filter(~pl.col("item").str.contains(r"^\d+$").fill_null(False) | pl.col("genres").is_null())
    if len(wrong):
        raise UserError(f"{path}:{wrong['row'][0] + 2}: expected {_CSV_MOVIES}, titles with commas in quotes")
    return table.select("item", "title")


def _decoded(path: Path, encodings: tuple[str, ...]) -> list[str]:
    """Lines in the first encoding that fits; 1M is in Latin-1, 10M in UTF-8."""
    content = path.read_bytes()
    for encoding in encodings:
        try:
            return content.decode(encoding).replace("\r\n", "\n").split("\n")
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: not in {' or '.join(encodings)}")


def _movies(rows: list[tuple[str, str]]) -> pl.DataFrame:
    table = pl.DataFrame(rows, schema={"item": pl.String, "title": pl.String}, orient="row")
    return table.with_columns(pl.col("title").replace("", None))


def _notes(path: Path, interactions: pl.LazyFrame, items: pl.DataFrame) -> list[str]:
    rated = collect(path, interactions.group_by("item").len())
    known = rated["item"].is_in(items["item"].implode())
    if not known.any():
        raise UserError(
            f"{path}: no rating is of a movie in {_MOVIES[path.name]}; the files do not belong together"
        )
    moments = interactions.head(_SAMPLE).group_by("user", "time").len()
    tied, size = collect(
        path, moments.select(tied=pl.col("len").filter(pl.col("len") > 1).sum(), size=pl.col("len").sum())
    ).row(0)
    titles = items["title"]
    without_year = (~titles.str.contains(r"\(\d{4}[^)]*\)\s*$")).sum()
    moved = titles.str.contains(r", (The|A|An|Le|La|Les|Il|El|Der|Die|Das) \(").sum()
    share = f"{100 * tied / size:.0f} %" + (" of the first million" if size == _SAMPLE else "")
    return [
        f"{rated['len'].sum():,} ratings of {len(rated):,} movies; each is a click with a rating",
        f"{share} of the ratings have the user and second of another one: these keep the order of the file",
        *count_note(
            rated.filter(~known)["len"].sum(), f"ratings of movies that {_MOVIES[path.name]} does not list"
        ),
        *count_note(len(items) - known.sum(), "movies without a rating"),
        *count_note(len(titles) - titles.n_unique(), "titles repeat that of another movie: kept apart"),
        *count_note(without_year, "titles do not end with a year: kept"),
        *count_note(moved, "titles have their article at the end (Matrix, The): kept"),
        *count_note(titles.null_count(), "movies without a title"),
    ]


SOURCE = Source(
    about="MovieLens 100K, 1M, 10M, 20M, 25M, 32M, latest: ratings of movies, with titles",
    published="https://grouplens.org/datasets/movielens",
    licence="GroupLens's terms: research, no commercial use without permission, named in publications",
    files=_FILES,
    read=read,
)
