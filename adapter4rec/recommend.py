"""``python -m adapter4rec.recommend RUN_FOLDER``: what a trained model recommends, and to whom.

Instead of a run, a source model and an adapter file can be named (``--source``, ``--adapter``). Users are
named (``--users``), described by what they clicked (``--history``), or all are written to a file (``--csv``).
Text runs show titles; image runs draw a contact sheet (``--sheet``). What a user has clicked among the clicks
that a run keeps (the last L + 3) is not recommended again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from adapter4rec.catalogue import Embeddings, Encoding, evaluating
from adapter4rec.contact_sheet import SheetRow, draw_contact_sheet
from adapter4rec.data.images.store import ImageStore
from adapter4rec.data.interactions import read_items
from adapter4rec.distributed import Process, joined_process
from adapter4rec.errors import UserError, run_main
from adapter4rec.evaluation import embedded_catalogue, next_item_vectors
from adapter4rec.files import whole_file
from adapter4rec.ranking import best_items
from adapter4rec.trained_runs import TrainedRun, load_adapted, load_run
from adapter4rec.training.precision import PRECISIONS

_USERS_AT_ONCE = 256
_SHOWN_USERS = 5


@dataclass(frozen=True)
class Recommendation:
    """The best items for a user.

    Attributes:
        user: whose; a name, or what stands for it.
        history: item numbers, oldest first.
        items: item numbers, best first.
        scores: of these.
    """

    user: str
    history: np.ndarray
    items: np.ndarray
    scores: np.ndarray


class Recommender:
    """A trained model, which encodes its catalogue when it is first asked.

    Args:
        run: a finished run.
        process: where it is computed.
        precision: the number format in which the catalogue is encoded.
    """

    def __init__(self, run: TrainedRun, process: Process, precision: str = "fp32") -> None:
        self.run = run
        self.process = process
        self.precision = precision
        self.interactions = run.domain.interactions

    @cached_property
    def items(self) -> Embeddings:
        """Embeddings of the catalogue."""
        run = self.run
        how = replace(Encoding.of(run.settings, self.process), precision=self.precision)
        with evaluating(run.model):
            return embedded_catalogue(
                run.model, run.domain.store, self.interactions.n_items, self.process, how
            )

    def history_of(self, user: str) -> np.ndarray:
        """The kept clicks of a user by name, item numbers.

        Raises:
            UserError: there is no such user, or none with enough clicks.
        """
        names = self.interactions.user_names
        if user not in names:
            raise UserError(
                f"user {user!r} is not in {self.run.settings.users}, or has fewer than "
                f"{self.run.settings.min_seq_len} clicks; users are called {names[0]!r}, {names[-1]!r} …"
            )
        return self._history(names.index(user))

    def _history(self, number: int) -> np.ndarray:
        offsets = self.interactions.offsets
        return self.interactions.clicks[offsets[number] : offsets[number + 1]]

    def numbers_of(self, names: list[str]) -> np.ndarray:
        """Item numbers of a list of item names.

        Raises:
            UserError: an item is not in the run's catalogue.
        """
        catalogue = {name: number for number, name in enumerate(self.interactions.item_names, 1)}
        for name in names:
            if name not in catalogue:
                known = self.interactions.item_names
                raise UserError(
                    f"item {name!r} is not in the catalogue of {self.run.folder} (items that no user clicked "
                    f"are left out of it); items are called {known[0]!r}, {known[-1]!r} …"
                )
        return np.array([catalogue[name] for name in names], np.int64)

    def recommend(self, users: list[tuple[str, np.ndarray]], top_k: int) -> list[Recommendation]:
        """The ``top_k`` items that these users, given as (name, history), are most likely to click next."""
        length = self.interactions.max_seq_len
        inputs = np.zeros((len(users), length), np.int64)
        for row, (_, history) in enumerate(users):
            recent = history[-length:]
            inputs[row, length - len(recent) :] = recent
        with evaluating(self.run.model):
            vectors = next_item_vectors(self.run.model, self.items, inputs)
            numbers, scores = best_items(vectors, self.items, [history for _, history in users], top_k)
        return [
            Recommendation(name, history, items[kept := np.isfinite(values)], values[kept])
            for (name, history), items, values in zip(users, numbers, scores, strict=True)
        ]

    def for_all(self, top_k: int) -> Iterator[Recommendation]:
        """Recommendations for every user, in the order of the file."""
        names = self.interactions.user_names
        with tqdm(total=len(names), unit="user", leave=False, mininterval=2) as bar:
            for first in range(0, len(names), _USERS_AT_ONCE):
                some = range(first, min(first + _USERS_AT_ONCE, len(names)))
                yield from self.recommend([(names[user], self._history(user)) for user in some], top_k)
                bar.update(len(some))


class Names:
    """What people call a run's items: their names, with titles where the file has them."""

    def __init__(self, run: TrainedRun) -> None:
        self.items = run.domain.interactions.item_names
        self.titles: list[str] | None = None
        with suppress(UserError):  # a list of bare names
            texts = read_items(Path(run.settings.items), ("title",), allow_empty_titles=True).texts["title"]
            self.titles = [texts[row].strip() for row in run.domain.interactions.item_rows]

    def columns(self, item: int) -> list[str]:
        """The item's name, and its title where there are titles."""
        return [self.items[item - 1], *([self.titles[item - 1]] if self.titles else [])]

    def shown(self, item: int) -> str:
        """The same as a line for a person."""
        return "  ".join(self.columns(item))


def write_csv(recommender: Recommender, names: Names, top_k: int, path: Path) -> int:
    """Write ``user,rank,item[,title],score`` for all users; the number of lines."""
    lines = 0
    with whole_file(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "rank", "item", *(["title"] if names.titles else []), "score"])
        for found in recommender.for_all(top_k):
            for rank, (item, score) in enumerate(zip(found.items, found.scores, strict=True), 1):
                writer.writerow([found.user, rank, *names.columns(item), f"{score:.6g}"])
                lines += 1
    return lines


def describe(found: Recommendation, names: Names) -> str:
    """A user's history and recommendations, for the terminal."""
    lines = [f"{found.user}: clicked, oldest first"]
    lines += [f"       {names.shown(item)}" for item in found.history]
    lines.append(f"{found.user}: recommended, best first, with scores")
    lines += [
        f"  {rank:>2}. {score:8.3f}  {names.shown(item)}"
        for rank, (item, score) in enumerate(zip(found.items, found.scores, strict=True), 1)
    ]
    return "\n".join(lines)


def draw_sheet(recommender: Recommender, recommendations: list[Recommendation], path: Path) -> None:
    """Draw histories beside recommendations; the run must have images."""
    store = recommender.run.domain.store
    assert isinstance(store, ImageStore)

    def pictures(items: np.ndarray) -> np.ndarray:
        return store.fetch(items.astype(np.int64)).pixels.numpy()

    rows = [SheetRow(found.user, pictures(found.history), pictures(found.items)) for found in recommendations]
    draw_contact_sheet(rows, path)


def main() -> None:
    """Recommend as the command line says."""
    options = _options()
    if options.top_k < 1:
        raise UserError(f"--top-k {options.top_k}: must be at least 1")
    with joined_process(options.device, threads=0) as process:
        run = _loaded(options, process)
        if options.sheet and not isinstance(run.domain.store, ImageStore):
            raise UserError(f"--sheet: {run.folder} is no run with images")
        recommender, names = Recommender(run, process, options.precision), Names(run)
        asked = _asked(options, recommender)
        if options.csv:
            lines = write_csv(recommender, names, options.top_k, options.csv)
            users = run.domain.interactions.n_users
            print(f"{options.csv}: {lines:,} recommendations for {users:,} users")
        if options.csv and not (options.users or options.history or options.sheet):
            return
        found = recommender.recommend(asked, options.top_k)
        print("\n\n".join(describe(one, names) for one in found))
        if options.sheet:
            draw_sheet(recommender, found, options.sheet)
            print(f"\ncontact sheet: {options.sheet}")


def _loaded(options: argparse.Namespace, process: Process) -> TrainedRun:
    files = (options.source, options.adapter)
    moved = {"users": options.users_file, "items": options.items_file, "images": options.images}
    changed = {name: value for name, value in moved.items() if value is not None}
    if options.run_folder is not None and files == (None, None):
        if options.force or options.backbone:
            raise UserError("--force and --backbone belong to --source and --adapter, not to a run folder")
        return load_run(options.run_folder, process, changed)
    if options.run_folder is not None or None in files:
        raise UserError("name a run folder, or --source and --adapter together")
    if options.backbone is not None:
        changed["backbone"] = options.backbone
    return load_adapted(options.source, options.adapter, process, changed, force=options.force)


def _asked(options: argparse.Namespace, recommender: Recommender) -> list[tuple[str, np.ndarray]]:
    users = [(name, recommender.history_of(name)) for name in options.users or ()]
    if options.history:
        users.append(("the given history", recommender.numbers_of(options.history)))
    if users:
        return users
    return [
        (name, recommender.history_of(name)) for name in recommender.interactions.user_names[:_SHOWN_USERS]
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m adapter4rec.recommend", description=__doc__.split("\n\n", 1)[1], allow_abbrev=False
    )
    parser.add_argument("run_folder", type=Path, nargs="?", help="the folder of a finished run")
    files = parser.add_argument_group("a source model and an adapter, instead of a run")
    files.add_argument("--source", type=Path, metavar="FILE", help="the source model")
    files.add_argument("--adapter", type=Path, metavar="FILE", help="the adapter file of a run")
    files.add_argument("--force", action="store_true", help="even if it belongs to another source model")
    for name, what in (("users_file", "users.tsv"), ("items_file", "items.tsv"), ("images", "the LMDB")):
        flags = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        files.add_argument(*flags, type=Path, metavar="FILE", help=f"{what}, if elsewhere than in the run")
    files.add_argument("--backbone", metavar="NAME", help="the backbone, if elsewhere than in the run")
    parser.add_argument(
        "--users", nargs="+", metavar="USER", help=f"user names; by default the first {_SHOWN_USERS}"
    )
    parser.add_argument(
        "--history", nargs="+", metavar="ITEM", help="items that somebody clicked, oldest first"
    )
    parser.add_argument("--top-k", "--top_k", type=int, default=10, help="items for each user (%(default)s)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write recommendations for all users there")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw a contact sheet there (.png)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, or cuda:N")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="number format in which items are encoded; bf16 is faster where the device has it (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
