"""What the tests of the readers of public data sets share: writing raw files, collecting what was read."""

from __future__ import annotations

import gzip
from pathlib import Path

from adapter4rec.datasets.raw import RawData

HTML_PAGE = "<!DOCTYPE html>\n<html><body>Please log in</body></html>\n"


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    """Write lines; compressed if the name ends with .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def clicks_of(raw: RawData) -> list[tuple]:
    """All rows of the clicks, in their order."""
    return raw.interactions.collect().rows()


def items_of(raw: RawData) -> dict[str, dict]:
    """The items by name, without the column of names."""
    rows = raw.items.collect().to_dicts()
    assert len({row["item"] for row in rows}) == len(rows)
    return {row.pop("item"): row for row in rows}


def note(raw: RawData, words: str) -> str:
    """The one note that contains these words."""
    (found,) = [line for line in raw.notes if words in line]
    return found
