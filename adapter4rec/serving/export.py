"""Export of item and user embeddings to one safetensors file, with names in text files.

::

    embeddings.safetensors    items [N, d] and users [U, d], float32; items @ users.T are the scores
    embeddings.items.tsv      name<TAB>title of each row of ``items``
    embeddings.users.tsv      name of each row of ``users``

The metadata of the safetensors file records the split, that is, which clicks the user vectors are computed
from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapter4rec.serving.candidates import Candidates
from adapter4rec.utils.checkpoint_file import save_tensors
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file


@dataclass(frozen=True)
class Exported:
    """Files and sizes of an export.

    Attributes:
        path: safetensors file with the tensors ``items`` and ``users``.
        items: text file with item names and titles.
        users: text file with user names.
        n_items: N.
        n_new: number of exported items that are not in the run's catalogue; they come last.
        n_users: U.
    """

    path: Path
    items: Path
    users: Path
    n_items: int
    n_new: int
    n_users: int

    def describe(self) -> str:
        """One line for the terminal."""
        new = f", the last {self.n_new:,} of them new" if self.n_new else ""
        sizes = f"{self.n_items:,} items{new}, {self.n_users:,} users"
        return f"{self.path}: {sizes}; names in {self.items.name} and {self.users.name}"


def export_embeddings(
    path: Path,
    candidates: Candidates,
    users: tuple[Sequence[str], Iterable[Tensor]],
    *,
    split: str,
    only_new: bool = False,
    metadata: Mapping[str, Any],
) -> Exported:
    """Write item embeddings and next-item vectors of users.

    ``items @ users.T`` are the scores by which items are ranked; clicked items are not masked.

    Args:
        path: a ``.safetensors`` file.
        candidates: the items.
        users: names of the U users, and their next-item vectors in blocks of ``[users in block, d]``.
        split: split that the user vectors are computed for.
        only_new: export only the new items.
        metadata: further entries for the metadata of the file.

    Raises:
        UserError: the path does not end in ``.safetensors``.
    """
    if path.suffix != ".safetensors":
        raise UserError(f"--export {path}: expected a file name that ends in .safetensors")
    user_names, user_vectors = users
    first = candidates.n_known if only_new else 0
    names, titles = candidates.names[first:], candidates.titles[first:]
    items, users_file = path.with_suffix(".items.tsv"), path.with_suffix(".users.tsv")
    exported = Exported(path, items, users_file, len(names), candidates.n_new, len(user_names))
    vectors = {
        "items": candidates.embeddings(only_new=only_new).rows[1:],
        "users": torch.cat(list(user_vectors)),
    }
    about = {
        "what": "embeddings of items and users",
        "scores": "items @ users.T",
        "new_items": candidates.n_new,
        "split": split,
        **metadata,
    }
    with (
        atomic_file(path) as tensors,
        atomic_file(items) as item_lines,
        atomic_file(users_file) as user_lines,
    ):
        save_tensors(tensors, vectors, about)
        # Tabs and line breaks in titles become spaces.
        _write(item_lines, (f"{n}\t{' '.join(t.split())}" for n, t in zip(names, titles, strict=True)))
        _write(user_lines, user_names)
    return exported


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
