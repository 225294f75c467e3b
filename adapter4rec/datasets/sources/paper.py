"""The four data sets of the paper, as its repository publishes them.

Published at https://github.com/westlake-repl/Adapter4Rec: a list of users and a list of items for each of
MIND and Adressa (text), H&M and Amazon (images; names only, the images come from elsewhere). The form is that
of ``sequences.py``, without times. Folders in this project's format (``users.tsv``, ``items.tsv``) have it
too.
"""

from __future__ import annotations

from pathlib import Path

from adapter4rec.datasets.raw import RawData
from adapter4rec.datasets.sources.base import Source
from adapter4rec.datasets.sources.lines import only_one
from adapter4rec.datasets.sources.sequences import read_sequences

_PAIRS = {
    "mind_large_users_base.tsv": "mind_large_news_base.tsv",
    "Adressa_users_base.tsv": "Adressa_news_base.tsv",
    "hm_50w_users.tsv": "hm_50w_items.tsv",
    "amazon_2w_users.tsv": "amazon_2w_items.tsv",
    "users.tsv": "items.tsv",
}
_NUMBERED = "hm_50w_users.tsv"
"""H&M names its items v123 and its images 0000123.jpg."""
_FILES = "one pair of " + ", ".join(f"{users} and {items}" for users, items in _PAIRS.items())


def read(folder: Path) -> RawData:
    """Read the one pair of lists below ``folder``, with the images in ``images`` beside them, if any."""
    users = only_one(folder, _FILES, *_PAIRS)
    images = users.with_name("images")
    return read_sequences(
        users,
        users.with_name(_PAIRS[users.name]),
        images if images.is_dir() else None,
        numbered=users.name == _NUMBERED,
    )


SOURCE = Source(
    about="the paper's lists of MIND, Adressa, H&M or Amazon, or a folder in this project's format",
    published="https://github.com/westlake-repl/Adapter4Rec",
    licence="the terms of the data set that the lists were made from",
    files=_FILES,
    read=read,
)
