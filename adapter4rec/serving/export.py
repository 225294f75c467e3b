"""Embeddings for use elsewhere: items and users as one safetensors file, with their names beside it.

::

    embeddings.safetensors    items [N, d] and users [U, d], float32; items @ users.T are the scores
    embeddings.items.tsv      name[<TAB>title] of each row of ``items``
    embeddings.users.tsv      name of each row of ``users``

The metadata of the safetensors file names the split: the clicks that the user vectors were computed from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from adapter4rec.utils.checkpoint_file import Rows, write_rows
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import whole_file

if TYPE_CHECKING:
    from adapter4rec.serving.recommender import Recommender

_ITEMS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the tensors ``items`` and ``users``.
        items: names of the items, and titles where there are any.
        users: names of the users.
        n_items: N.
        n_new: how many of these are not in the run's catalogue; they are the last ones.
        n_users: U.
        width: d.
        split: whose targets the user vectors hold out.
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
        """A line for the terminal."""
        new = f", the last {self.n_new:,} of them new" if self.n_new else ""
        items = f"items [{self.n_items:,}, {self.width}]"
        users = f"users [{self.n_users:,}, {self.width}] (split {self.split})"
        return f"{self.path}: {items}{new}, {users}; names in {self.items.name} and {self.users.name}"


def export_embeddings(
    recommender: Recommender, path: Path, *, split: str = "test", only_new: bool = False
) -> Exported:
    """Write the embeddings of all candidates, and the next-item vectors of all users, some rows at a time.

    ``items @ users.T`` are the scores that items are ranked by; clicked items are not masked in them.

    Args:
        recommender: the model, its items and users.
        path: a ``.safetensors`` file.
        split: ``test`` or ``validation`` holds that target and later clicks out of the user vectors, so that
            they give the metrics that a run reports; ``all`` uses every kept click.
        only_new: items are the new ones alone.

    Raises:
        UserError: the path has another ending, the split is unknown, there are no new items, or a user vector
            is not finite.
    """
    recommender.require(1, only_new=only_new)
    if path.suffix != ".safetensors":
        raise UserError(f"--export {path}: name a file that ends in .safetensors")
    candidates, names = recommender.candidates, recommender.interactions.user_names
    first = candidates.n_known if only_new else 0
    width = recommender.run.model.user_encoder.width
    exported = Exported(
        path,
        path.with_suffix(".items.tsv"),
        path.with_suffix(".users.tsv"),
        len(candidates.names) - first,
        len(candidates.names) - candidates.n_known,
        len(names),
        width,
        split,
    )
    numbers = range(first + 1, len(candidates.names) + 1)
    rows = {
        "items": Rows((exported.n_items, width), _items(recommender, only_new)),
        "users": Rows((exported.n_users, width), recommender.blocks_of_user_vectors(split)),
    }
    said = {
        "what": "embeddings of items and users",
        "scores": "items @ users.T",
        "run": recommender.run.folder.name,
        "new_items": exported.n_new,
        "precision": recommender.precision,
        "split": split,
    }
    with ExitStack() as files:
        tensors, items, users = (
            files.enter_context(whole_file(file)) for file in (path, exported.items, exported.users)
        )
        write_rows(tensors, rows, said)
        _write_lines(items, ("\t".join(_one_line(*candidates.columns(number))) for number in numbers))
        _write_lines(users, names)
    return exported


def _items(recommender: Recommender, only_new: bool) -> Iterator[Tensor]:
    embeddings = recommender.candidates.embeddings(only_new=only_new)
    for first in range(1, embeddings.n_items + 1, _ITEMS_AT_ONCE):
        yield embeddings.stretch(first, min(first + _ITEMS_AT_ONCE, embeddings.n_items + 1))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def _one_line(name: str, *titles: str) -> list[str]:
    """A name as it is, and titles without tabs and line ends, which those from a notebook may have."""
    return [name, *(" ".join(title.split()) for title in titles)]
