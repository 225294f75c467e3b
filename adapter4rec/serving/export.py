"""Export of item and user embeddings to one safetensors file, with names in text files.

::

    embeddings.safetensors    items [N, d] and users [U, d], float32; items @ users.T are the scores
    embeddings.items.tsv      name[<TAB>title] of each row of ``items``
    embeddings.users.tsv      name of each row of ``users``

The metadata of the safetensors file records the split, that is, which clicks the user vectors are computed
from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
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
        items: text file with item names and, if available, titles.
        users: text file with user names.
        n_items: N.
        n_new: number of exported items that are not in the run's catalogue; they come last.
        n_users: U.
        width: d.
        split: split whose targets are held out of the user vectors.
    """

    path: Path
    items: Path
    users: Path
    n_items: int
    n_new: int
    n_users: int
    width: int
    split: str

    def describe(self) -> str:
        """One line for the terminal."""
        new = f", the last {self.n_new:,} of them new" if self.n_new else ""
        items = f"items [{self.n_items:,}, {self.width}]"
        users = f"users [{self.n_users:,}, {self.width}] (split {self.split})"
        return f"{self.path}: {items}{new}, {users}; names in {self.items.name} and {self.users.name}"


def export_embeddings(
    path: Path,
    candidates: Candidates,
    users: tuple[Sequence[str], Iterable[Tensor]],
    *,
    width: int,
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
        width: d.
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
    exported = Exported(
        path,
        path.with_suffix(".items.tsv"),
        path.with_suffix(".users.tsv"),
        len(candidates.names) - first,
        len(candidates.names) - candidates.n_known,
        len(user_names),
        width,
        split,
    )
    numbers = range(first + 1, len(candidates.names) + 1)
    vectors = {
        "items": candidates.embeddings(only_new=only_new).rows[1:],
        "users": torch.cat(list(user_vectors)),
    }
    about = {
        "what": "embeddings of items and users",
        "scores": "items @ users.T",
        "new_items": exported.n_new,
        "split": split,
        **metadata,
    }
    with ExitStack() as files:
        tensors, item_lines, user_lines = (
            files.enter_context(atomic_file(file)) for file in (path, exported.items, exported.users)
        )
        save_tensors(tensors, vectors, about)
        _write_lines(item_lines, ("\t".join(_one_line(*candidates.columns(number))) for number in numbers))
        _write_lines(user_lines, user_names)
    return exported


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def _one_line(name: str, *titles: str) -> list[str]:
    """Name and titles; tabs and line breaks in titles become spaces."""
    return [name, *(" ".join(title.split()) for title in titles)]
