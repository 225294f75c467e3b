"""Metadata of Amazon Reviews: titles, descriptions and image addresses of the items that have clicks.

Lines of 2014 are Python literals: they are parsed by ``ast.literal_eval``, which runs no code. Lines about
items without clicks are skipped before they are parsed, which is most of the work.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from adapter4rec.datasets.sources.blocks import byte_blocks
from adapter4rec.utils.errors import UserError

_CODE = re.compile(r"getTime\(|var aPageStart|function\s*\(|<script|<style|<!--", re.IGNORECASE)
"""Pages of 2018 whose title is code, not a name."""
_HTML = re.compile(r"&(?:[a-zA-Z]+|#\d+|#x[0-9a-fA-F]+);|</?[a-zA-Z][^>]*>")
_SCHEMA = {"item": pl.String, "title": pl.String, "abstract": pl.String, "image_url": pl.String}
_LONGEST = 2000
"""Characters kept of a description; later ones are never read by a model."""


def parsed_line(path: Path, number: int, line: bytes, *, literal: bool) -> dict[str, Any]:
    """One record, a JSON object or a Python literal.

    Raises:
        UserError: it is neither, with file and line.
    """
    try:
        text = line.decode("utf-8").strip()
        record = ast.literal_eval(text) if literal else json.loads(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        record = None
    if not isinstance(record, dict):
        form = "a Python literal" if literal else "a JSON object"
        raise UserError(f"{path}, line {number}: damaged or cut off; expected {form} a line")
    return record


@dataclass
class _Counts:
    lines: int = 0
    code: int = 0
    html: int = 0


def read_metadata(
    path: Path, year: str, literal: bool, items: pl.DataFrame, notes: list[str]
) -> pl.DataFrame:
    """The columns ``item``, ``title``, ``abstract`` and ``image_url`` for ``items``, in their order.

    Args:
        path: the metadata.
        year: "2014", "2018" or "2023".
        literal: its lines are Python literals.
        items: a column ``item``, the items that have clicks.
        notes: lines are added.

    Raises:
        UserError: damaged or cut off, or not about these items.
    """
    key = "parent_asin" if year == "2023" else "asin"
    wanted = frozenset(items["item"])
    counts = _Counts()
    parts = [pl.DataFrame(schema=_SCHEMA)]
    for records in _wanted_records(path, key, literal, wanted, counts):
        rows = [_row(record, key, counts) for record in records]
        parts.append(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))
    table = pl.concat(parts)
    once = table.sort(pl.col("title").is_null(), maintain_order=True).unique(
        "item", keep="first", maintain_order=True
    )
    merged = items.join(once, on="item", how="left", maintain_order="left")
    if not len(once):
        raise UserError(
            f"{path}: holds no item of the clicks; expected the metadata of the same category and year"
        )
    notes.append(
        f"{path.name}: metadata of {year}, {'Python literals' if literal else 'JSON'}; {counts.lines:,} lines"
    )
    notes.append(
        f"{len(items) - len(once):,} of {len(items):,} clicked items have no metadata: no text, no image"
    )
    if len(table) > len(once):
        notes.append(f"{len(table) - len(once):,} lines repeat an item: the first one with a title is kept")
    if counts.code:
        notes.append(f"{counts.code:,} titles are JavaScript or CSS of the page: taken as missing")
    if counts.html:
        notes.append(f"{counts.html:,} titles hold HTML entities or tags: left to the option --html")
    notes.append(
        f"{merged['title'].null_count():,} items have no title, {merged['image_url'].null_count():,} no image"
    )
    return merged


def _wanted_records(
    path: Path, key: str, literal: bool, wanted: frozenset[str], counts: _Counts
) -> Iterator[list[dict[str, Any]]]:
    """Records of the wanted items, in one list per block."""
    quoted = re.compile(rb"""["']%s["']\s*:\s*["']([^"']+)["']""" % key.encode())
    number = 0
    for block in byte_blocks(path, f"one item a line with {key}"):
        records = []
        for number, line in enumerate(block.split(b"\n"), number + 1):  # noqa: B020
            text = line.strip()
            if not text:
                continue
            counts.lines += 1
            names = quoted.findall(text)
            whole = text.startswith(b"{") and text.endswith(b"}")
            if whole and names and not any(name.decode("utf-8", "replace") in wanted for name in names):
                continue
            record = parsed_line(path, number, text, literal=literal)
            if record.get(key) in wanted:
                records.append(record)
        number -= 1 if block.endswith(b"\n") else 0
        yield records


def _row(record: dict[str, Any], key: str, counts: _Counts) -> tuple[str, str | None, str | None, str | None]:
    title = _text(record.get("title"))
    if title and _CODE.search(title):
        counts.code += 1
        title = None
    counts.html += bool(title and _HTML.search(title))
    return str(record[key]), title, _text(record.get("description")), _image(record)


def _text(value: object) -> str | None:
    """A string, or a list of strings, as one line; None if there is nothing in it."""
    parts = value if isinstance(value, list) else [value]
    words = " ".join(part for part in parts if isinstance(part, str)).split()
    whole = " ".join(words)[:_LONGEST]
    return whole.encode("utf-8", "replace").decode() or None  # an emoji may be cut in two


def _image(record: dict[str, Any]) -> str | None:
    """The address of the main image, not the smallest size.

    2014: ``imUrl``. 2018: ``imageURLHighRes``, else ``imageURL`` or ``image``. 2023: of ``images``, the one
    called MAIN, else the first; ``large`` is about 500 pixels, enough for a backbone.
    """
    for name in ("imUrl", "imageURLHighRes", "imageURL", "image"):
        for address in record[name] if isinstance(record.get(name), list) else [record.get(name)]:
            if isinstance(address, str) and address.startswith(("http://", "https://")):
                return address
    images = [image for image in record.get("images") or [] if isinstance(image, dict)]
    for image in sorted(images, key=lambda image: image.get("variant") != "MAIN"):
        for size in ("large", "hi_res", "thumb"):
            if isinstance(image.get(size), str) and image[size].startswith(("http://", "https://")):
                return str(image[size])
    return None
