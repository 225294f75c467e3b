"""Item vectors from elsewhere: embeddings of a sentence transformer, an LLM, or another recommender.

Formats, by the ending of the file:

- ``.safetensors``: the tensor ``items``, or the only one, ``[N, h]``;
- ``.npy``: an array ``[N, h]``;
- ``.parquet``: a column ``item`` with the names, and one column with lists of h numbers.

For the first two, ``NAME.items.tsv`` next to ``NAME.npy`` or ``NAME.safetensors`` has the item name of each
row; further columns are ignored. ``adapter4rec.recommend --export`` writes these two files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from adapter4rec.data.states import StateStore
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import utf8_path

SUFFIXES = (".safetensors", ".npy", ".parquet")
_EXAMPLES = 3


@dataclass(frozen=True)
class ItemVectors:
    """Vectors by item name.

    Attributes:
        path: the file.
        names: name of each row.
        rows: float32 ``[n, h]``.
    """

    path: Path
    names: list[str]
    rows: np.ndarray

    @property
    def width(self) -> int:
        """h, the length of a vector."""
        return int(self.rows.shape[1])

    def store_of(self, items: Sequence[str]) -> VectorStore:
        """The vectors of some items, in this order.

        Raises:
            UserError: an item has no vector, or one that is not finite.
        """
        row_of = {name: row for row, name in enumerate(self.names)}
        if missing := [name for name in items if name not in row_of]:
            raise UserError(
                f"{self.path}: {len(missing):,} of {len(items):,} items have no vector: "
                f"{', '.join(missing[:_EXAMPLES])}; remove their clicks from users.tsv, or add the vectors"
            )
        rows = self.rows[[row_of[name] for name in items]]
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            examples = ", ".join(items[row] for row in bad[:_EXAMPLES])
            raise UserError(
                f"{self.path}: {len(bad):,} vectors hold NaN or infinity, or overflow float32: {examples}"
            )
        return VectorStore(rows)


class VectorStore(StateStore):
    """The vectors of all items, as the hidden states of a frozen backbone.

    Args:
        rows: float32 ``[N, h]``.
    """

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__(np.ascontiguousarray(rows)[:, None].view(np.int32), (), torch.float32)
        self.identity = hashlib.sha256(f"{rows.shape}".encode() + rows.tobytes()).hexdigest()[:32]


def read_item_vectors(path: Path) -> ItemVectors:
    """Read vectors with the names of their items.

    Raises:
        UserError: the file is missing or damaged, has no names or no matrix of floating-point numbers, or
            names an item twice.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"--item_vectors {path}: the file name must end in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"--item_vectors {path}: no such file")
    if path.suffix == ".parquet":
        names, rows = _read_parquet(path)
    else:
        rows = _read_npy(path) if path.suffix == ".npy" else _read_safetensors(path)
        names = _read_names(path)
    if rows.ndim != 2 or not rows.size or not np.issubdtype(rows.dtype, np.floating):
        raise UserError(
            f"{path}: expected floating-point numbers [items, h], found {rows.dtype} {rows.shape}"
        )
    if len(names) != len(rows):
        raise UserError(f"{path}: {len(rows):,} vectors, but {len(names):,} item names")
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: item {twice!r} has several vectors")
    with np.errstate(over="ignore"):  # becomes infinite, which is an error of its own
        return ItemVectors(path, names, rows.astype(np.float32, copy=False))


def _read_names(path: Path) -> list[str]:
    beside = path.with_suffix(".items.tsv")
    if not beside.is_file():
        raise UserError(f"{path}: item names are read from {beside}, which does not exist: one name per row")
    try:
        lines = beside.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{beside}: not UTF-8") from None
    return [line.rstrip("\r").split("\t")[0] for line in (lines[:-1] if lines[-1] == "" else lines)]


def _read_npy(path: Path) -> np.ndarray:
    try:
        rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a NumPy array ({error})") from None
    return rows


def _read_safetensors(path: Path) -> np.ndarray:
    try:
        with utf8_path(path) as readable, safe_open(readable, framework="pt") as file:
            names = list(file.keys())
            name = "items" if "items" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise UserError(
                    f"{path}: expected a tensor 'items', or a single one; found "
                    f"{', '.join(sorted(names)[:5])}"
                )
            tensor = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file ({error})") from None
    rows: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return rows


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray]:
    import polars as pl  # takes 100 MB, and most runs do without

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: not a Parquet file ({error})") from None
    columns = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List | pl.Array)]
    if "item" not in frame.columns or len(columns) != 1:
        raise UserError(
            f"{path}: expected a column 'item' with names and one column of lists of numbers; found "
            + ", ".join(f"{name} ({kind})" for name, kind in frame.schema.items())
        )
    vectors = frame[columns[0]]
    if isinstance(vectors.dtype, pl.Array):
        vectors = vectors.arr.to_list()
    lengths = vectors.list.len()
    if vectors.null_count() or lengths.n_unique() != 1:
        raise UserError(
            f"{path}: the vectors of the column {columns[0]!r} differ in length, or some are missing"
        )
    numbers = vectors.explode()
    if numbers.dtype.is_float():
        numbers = numbers.fill_null(float("nan"))
    rows: np.ndarray = numbers.to_numpy().reshape(len(frame), -1)
    return frame["item"].cast(pl.String).fill_null("").to_list(), rows
