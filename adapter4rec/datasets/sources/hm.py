"""H&M Personalized Fashion Recommendations, the image source domain of the paper.

Format: https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations/data
``transactions_train.csv`` (t_dat, customer_id, article_id, price, sales_channel_id), ``articles.csv`` (25
columns, of which prod_name and detail_desc are text) and ``images/0NN/0NNNNNNNNN.jpg``, where 0NN are the
first three digits of the article. An article has ten digits and begins with 0, which spreadsheets drop.
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
    lazy,
    names_of,
    one_file,
    repeats,
    with_images,
)
from adapter4rec.utils.errors import UserError

_TRANSACTIONS = ["t_dat", "customer_id", "article_id", "price", "sales_channel_id"]
_DIGITS = 10


def read(folder: Path) -> RawData:
    """Read the folder of the Kaggle download.

    Raises:
        UserError: a file is missing, cut off, swapped or damaged.
    """
    files = files_below(folder)
    notes: list[str] = []
    clicks = _clicks(_named(files, folder, "transactions_train.csv"), notes)
    articles = _articles(_named(files, folder, "articles.csv"), notes)
    unknown = names_of(clicks, "item").to_frame().join(articles.select("item"), on="item", how="anti")
    if len(unknown) == clicks["item"].n_unique():
        raise UserError(
            f"{folder}: no article of transactions_train.csv is in articles.csv; expected one download"
        )
    if len(unknown):
        notes.append(
            f"{len(unknown):,} articles of the purchases are not in articles.csv: items without text"
        )
        articles = pl.concat([articles, unknown], how="diagonal")
    return RawData(lazy(clicks), with_images(articles, folder, notes).lazy(), notes)


def _named(files: list[Path], folder: Path, name: str) -> Path:
    return one_file([path for path in files if path.name in (name, f"{name}.gz")], folder, name)


def _whole_id(column: str) -> pl.Expr:
    return pl.col(column).str.zfill(_DIGITS)


def _clicks(path: Path, notes: list[str]) -> pl.DataFrame:
    expected = f"the header {','.join(_TRANSACTIONS)} and one purchase a line"
    header = first_line(path, expected).replace('"', "").split(",")
    if header != _TRANSACTIONS:
        raise UserError(f"{path}: its first line is {','.join(header)[:80]!r}; expected {expected}")
    clicks, shortened = ClickBlocks(path, expected), 0
    for line, block in csv_blocks(path, _TRANSACTIONS, expected, header=True):
        shortened += int((block["article_id"].str.len_bytes() < _DIGITS).sum())
        day = pl.col("t_dat").str.to_date("%Y-%m-%d", strict=False)
        whole = pl.col("price", "sales_channel_id").is_not_null()
        columns = {
            "user": pl.when(pl.all_horizontal(whole)).then(pl.col("customer_id")),
            "item": _whole_id("article_id"),
            "time": day.dt.epoch("s"),
        }
        clicks.add(block.select(**columns), line)
    frame = clicks.frame()
    if shortened:
        notes.append(f"{shortened:,} purchases had lost the leading zero of article_id: restored")
    if again := repeats(frame):
        notes.append(f"{again:,} purchases repeat one of the same customer, article and day: kept")
    notes.append("purchases have a day, not a time: those of a day keep the order of the file")
    return frame


def _articles(path: Path, notes: list[str]) -> pl.DataFrame:
    expected = "a header with article_id, prod_name and detail_desc, and one article a line"
    first_line(path, expected)  # names what is no text at all
    try:
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(
            f"{path}: cannot read ({str(error).splitlines()[0][:120]}); expected {expected}"
        ) from None
    missing = {"article_id", "prod_name", "detail_desc"} - set(table.columns)
    if missing:
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}; expected {expected}")
    last = "garment_group_name" if "garment_group_name" in table.columns else "prod_name"  # never empty
    if (cut := table["article_id"].is_null() | table[last].is_null()).any():
        raise UserError(f"{path}: article {int(cut.arg_max() or 0) + 1} is cut off; expected {expected}")
    shortened = int((table["article_id"].str.len_bytes() < _DIGITS).sum())
    if shortened:
        notes.append(f"{shortened:,} articles had lost the leading zero of article_id: restored")
    items = table.select(
        item=_whole_id("article_id"),
        title=pl.col("prod_name").str.strip_chars().replace("", None),
        abstract=pl.col("detail_desc").str.strip_chars().replace("", None),
    )
    if lacking := items["abstract"].null_count():
        notes.append(f"{lacking:,} of {len(items):,} articles have no description: their abstract is empty")
    once = items.unique("item", keep="first", maintain_order=True)
    if len(once) < len(items):
        notes.append(
            f"{len(items) - len(once):,} lines of articles.csv repeat an article: the first one is kept"
        )
    return once


SOURCE = Source(
    about="H&M: fashion purchases with names, descriptions and images of the articles",
    published="https://www.kaggle.com/competitions/h-and-m-personalized-fashion-recommendations",
    licence="rules of the Kaggle competition: non-commercial use, no redistribution",
    files="transactions_train.csv, articles.csv, images/0NN/0NNNNNNNNN.jpg",
    read=read,
)
