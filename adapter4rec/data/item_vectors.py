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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np
import torch
from safetensors import safe_open

from adapter4rec.data.lines import read_line_blocks
from adapter4rec.data.states import StateStore
from adapter4rec.utils.errors import UserError, reason_of
from adapter4rec.utils.files import require_regular, utf8_path
from adapter4rec.utils.plain_text import utf8_fault

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
    if path.suffix not in _READERS:
        raise UserError(f"--item_vectors {path}: the file name must end in {', '.join(_READERS)}")
    if not path.exists():
        raise UserError(f"--item_vectors {path}: no such file")
    require_regular(path)
    what, read = _READERS[path.suffix]
    try:
        names, rows = read(path)
    except UserError:
        raise
    except Exception as error:  # damaged files raise exceptions of any type
        raise UserError(f"{path}: not {what}, or damaged ({reason_of(error)})") from None
    if rows.ndim != 2 or not rows.size or not np.issubdtype(rows.dtype, np.floating):
        raise UserError(
            f"{path}: expected floating-point numbers [items, h], found {rows.dtype} {rows.shape}"
        )
    names = [normalize("NFC", name) for name in (_read_names(path) if names is None else names)]
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
    if not beside.exists():
        raise UserError(f"{path}: item names are read from {beside}, which does not exist: one name per row")
    names = []
    for first_line, lines in read_line_blocks(beside):
        for number, line in enumerate(lines, first_line):
            name = line.split(b"\t")[0]
            if fault := utf8_fault(name):
                raise UserError(f"{beside}:{number}: {fault}")
            names.append(name.decode("utf-8"))
    return names


def _read_npy(path: Path) -> tuple[None, np.ndarray]:
    return None, np.lib.format.open_memmap(path, mode="r")


def _read_safetensors(path: Path) -> tuple[None, np.ndarray]:
    with utf8_path(path) as readable, safe_open(readable, framework="pt") as file:
        names = list(file.keys())
        name = "items" if "items" in names else names[0] if len(names) == 1 else None
        if name is None:
            raise UserError(
                f"{path}: expected a tensor 'items', or a single one; found {', '.join(sorted(names)[:5])}"
            )
        tensor = file.get_tensor(name)
    return None, (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray]:
    import polars as pl  # takes 100 MB, and most runs do without

    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PanicException as error:  # no Exception
        raise ValueError(error) from None
    columns = [
        name
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.List | pl.Array) and kind.inner.is_numeric()
    ]
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


_READERS: dict[str, tuple[str, Callable[[Path], tuple[list[str] | None, np.ndarray]]]] = {
    ".safetensors": ("a safetensors file", _read_safetensors),
    ".npy": ("a NumPy array", _read_npy),
    ".parquet": ("a Parquet file", _read_parquet),
}
"""What a file is, by its ending, and the function that reads names (None: of the other file) and vectors."""
