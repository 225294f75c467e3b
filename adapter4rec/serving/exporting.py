"""Writing the embeddings of items and users to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from adapter4rec.utils.checkpoint_file import save_tensors
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file

if TYPE_CHECKING:
    from adapter4rec.serving.recommender import Recommender


def write_embeddings(recommender: Recommender, path: Path, *, split: str, only_new: bool) -> None:
    """Write embeddings of the candidates and next-item vectors of the users of a recommender.

    See :meth:`Recommender.export`.
    """
    candidates = recommender.candidates
    if path.suffix not in (".safetensors", ".parquet"):
        raise UserError(f"--export {path}: expected a file name that ends in .safetensors or .parquet")
    recommender.require(1, only_new=only_new)
    first = candidates.n_known if only_new else 0
    vectors = {"items": recommender.items.rows[first + 1 :], "users": recommender.user_vectors(split)}
    if path.suffix == ".parquet":
        titles, known = candidates.titles[first:], candidates.names[first:]
        with atomic_file(path) as items, atomic_file(path.with_suffix(".users.parquet")) as users:
            _write_parquet(items, {"item": known, "title": titles}, vectors["items"])
            _write_parquet(users, {"user": recommender.interactions.user_names}, vectors["users"])
        return
    # Tabs and line breaks in titles become spaces.
    titles = [" ".join(title.split()) for title in candidates.titles[first:]]
    names = ["\t".join(line) for line in zip(candidates.names[first:], titles, strict=True)]
    about = {
        "what": "embeddings of items and users",
        "scores": "items @ users.T",
        "new_items": candidates.n_new,
        "split": split,
        "run": recommender.run.folder.name,
        "precision": recommender.precision,
    }
    with (
        atomic_file(path) as tensors,
        atomic_file(path.with_suffix(".items.tsv")) as items,
        atomic_file(path.with_suffix(".users.tsv")) as users,
    ):
        save_tensors(tensors, vectors, about)
        for file, lines in ((items, names), (users, recommender.interactions.user_names)):
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _write_parquet(path: Path, names: Mapping[str, Sequence[str]], vectors: Tensor) -> None:
    import polars as pl  # takes 100 MB, and most uses do without

    rows = pl.Series(vectors.cpu().numpy(), dtype=pl.Array(pl.Float32, vectors.shape[1]))
    columns = {name: pl.Series(column, dtype=pl.String) for name, column in names.items()}
    pl.DataFrame({**columns, "vector": rows}).write_parquet(path)
