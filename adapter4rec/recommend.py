"""``python -m adapter4rec.recommend RUN_FOLDER``: recommendations of a trained model.

Takes a run folder, or a source model and an adapter file (--source, --adapter). Recommends items to users by
name (--users), for a click history (--history), or to all users (--csv). Text runs print titles; image runs
can draw a contact sheet (--sheet). The clicks that a run keeps of each user (the last L + 3) are not
recommended again. New items can be ranked along with the catalogue (--items). All embeddings can be exported
(--export).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from adapter4rec.data.images.store import ImageStore
from adapter4rec.serving.candidates import Candidates
from adapter4rec.serving.contact_sheet import SheetRow, draw_contact_sheet
from adapter4rec.serving.new_items import read_new_items
from adapter4rec.serving.recommendations import Recommendation
from adapter4rec.serving.recommender import HELD_OUT, Recommender
from adapter4rec.serving.trained_runs import TrainedRun, load_adapted, load_run
from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import atomic_file
from adapter4rec.utils.process_group import Process, single_process
from adapter4rec.utils.settings import PRECISIONS

_SHOWN_USERS = 5


def write_csv(recommender: Recommender, top_k: int, path: Path, *, only_new: bool = False) -> int:
    """Write recommendations for all users as CSV: ``user,rank,item[,title],score[,new]``.

    Args:
        recommender: the model and its candidates.
        top_k: number of items per user.
        path: the CSV file.
        only_new: rank only the new items.

    Returns:
        The number of recommendations written.
    """
    candidates, lines = recommender.candidates, 0
    with_new = len(candidates.names) > candidates.n_known
    title, new = ["title"] if candidates.has_titles else [], ["new"] if with_new else []
    with atomic_file(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "rank", "item", *title, "score", *new])
        for found in recommender.for_all(top_k, only_new=only_new):
            for rank, (item, score) in enumerate(zip(found.items.tolist(), found.scores, strict=True), 1):
                mark = [int(candidates.is_new(item))] if with_new else []
                writer.writerow([found.user, rank, *candidates.columns(item), f"{score:.6g}", *mark])
                lines += 1
    return lines


def describe(found: Recommendation, candidates: Candidates) -> str:
    """Format a user's history and recommendations for the terminal."""
    lines = [f"{found.user}: clicked, oldest first"]
    lines += [f"       {candidates.shown(item)}" for item in found.history.tolist()]
    lines.append(f"{found.user}: recommended, best first, with scores")
    lines += [
        f"  {rank:>2}. {score:8.3f}  {candidates.shown(item)}"
        for rank, (item, score) in enumerate(zip(found.items.tolist(), found.scores, strict=True), 1)
    ]
    return "\n".join(lines)


def draw_sheet(recommender: Recommender, recommendations: list[Recommendation], path: Path) -> None:
    """Draw a contact sheet of an image run."""
    candidates = recommender.candidates

    def pictures(items: np.ndarray) -> np.ndarray:
        size = recommender.run.domain.store.size
        found = [candidates.content_of(item).pixels.numpy() for item in items.tolist()]
        return np.concatenate([np.zeros((0, size, size, 3), np.uint8), *found])

    rows = [
        SheetRow(
            found.user,
            pictures(found.history),
            pictures(found.items),
            np.array([candidates.is_new(item) for item in found.items.tolist()], bool),
        )
        for found in recommendations
    ]
    draw_contact_sheet(rows, path)


def main() -> None:
    """Entry point of the command."""
    options = _options()
    process = single_process(options.device)
    run = _loaded(options, process)
    if options.sheet and not isinstance(run.domain.store, ImageStore):
        raise UserError(f"--sheet: {run.folder} is not an image run")
    recommender = _with_new_items(Recommender(run, process, options.precision), options)
    recommender.require(options.top_k, only_new=options.only_new)
    users = _selected_users(options, recommender)
    if options.export:
        exported = recommender.export(options.export, split=options.split, only_new=options.only_new)
        print(exported.describe())
    if options.csv:
        lines = write_csv(recommender, options.top_k, options.csv, only_new=options.only_new)
        n_users = run.domain.interactions.n_users
        print(f"{options.csv}: {lines:,} recommendations for {n_users:,} users")
    written = options.csv or options.export
    if written and not (options.users or options.history or options.sheet):
        return
    found = recommender.best_for(users, options.top_k, only_new=options.only_new)
    print("\n\n".join(describe(one, recommender.candidates) for one in found))
    if options.sheet:
        draw_sheet(recommender, found, options.sheet)
        print(f"\ncontact sheet: {options.sheet}")


def _with_new_items(recommender: Recommender, options: argparse.Namespace) -> Recommender:
    """Add the items of ``--items`` to the candidates."""
    if options.items is None:
        if options.item_images is not None:
            raise UserError("--item-images: requires --items")
        return recommender
    known = recommender.candidates
    items, listed = read_new_items(recommender.run, options.items, options.item_images, known.number_of)
    extended = recommender.with_items(items)
    new = len(extended.candidates.names) - known.n_known
    print(f"{options.items}: {listed:,} items, {new:,} of them new to the catalogue")
    return extended


def _loaded(options: argparse.Namespace, process: Process) -> TrainedRun:
    moved = {
        "users": options.users_file,
        "items": options.items_file,
        "images": options.images,
        "backbone": options.backbone,
    }
    if options.run_folder is not None and options.adapter is None:
        if options.force:
            raise UserError("--force applies to --source and --adapter, not to a run folder")
        return load_run(options.run_folder, process, moved | {"source_checkpoint": options.source})
    if options.run_folder is not None or None in (options.source, options.adapter):
        raise UserError("pass a run folder, or both --source and --adapter")
    return load_adapted(options.source, options.adapter, process, moved, force=options.force)


def _selected_users(options: argparse.Namespace, recommender: Recommender) -> list[tuple[str, np.ndarray]]:
    users = [(name, recommender.history_of(name)) for name in options.users or ()]
    if options.history:
        users.append(("--history", recommender.item_numbers_of(options.history)))
    if users:
        return users
    return [
        (name, recommender.history_of(name)) for name in recommender.interactions.user_names[:_SHOWN_USERS]
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m adapter4rec.recommend", description=__doc__.split("\n\n", 1)[1], allow_abbrev=False
    )
    parser.add_argument("run_folder", type=Path, nargs="?", help="folder of a finished run")
    files = parser.add_argument_group("source model and adapter, instead of a run folder")
    files.add_argument("--source", type=Path, metavar="FILE", help="source model")
    files.add_argument("--adapter", type=Path, metavar="FILE", help="adapter file of a run")
    files.add_argument(
        "--force", action="store_true", help="load an adapter that was trained on another source model"
    )
    moved = parser.add_argument_group(
        "new paths of files that have moved since the run",
        "With a run folder, --source is the new path of the model that the run started from.",
    )
    for name, what in (
        ("users_file", "users.tsv of the run"),
        ("items_file", "items.tsv of the run (for new items, see --items)"),
        ("images", "LMDB of the run"),
    ):
        flags = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
        moved.add_argument(*flags, type=Path, metavar="FILE", help=what)
    moved.add_argument("--backbone", metavar="NAME", help="backbone of the run")
    parser.add_argument(
        "--users", nargs="+", metavar="USER", help=f"user names (default: the first {_SHOWN_USERS})"
    )
    parser.add_argument("--history", nargs="+", metavar="ITEM", help="clicked items, oldest first")
    parser.add_argument("--top-k", "--top_k", type=int, default=10, help="items per user (%(default)s)")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write recommendations for all users to FILE"
    )
    new = parser.add_argument_group("new items, which the model was not trained on")
    new.add_argument(
        "--items",
        type=Path,
        metavar="FILE",
        help="new items in the format of items.tsv (image runs: one name per line), ranked along with the "
        "catalogue",
    )
    flags = ["--item-images", "--item_images"]
    new.add_argument(*flags, type=Path, metavar="PATH", help="images of the new items: a folder or an LMDB")
    new.add_argument("--only-new", "--only_new", action="store_true", help="rank only the new items")
    parser.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write embeddings of all items and users to FILE (.safetensors), and their names next to it",
    )
    parser.add_argument(
        "--split",
        choices=tuple(HELD_OUT),
        default="test",
        help="with --export: clicks that user vectors are computed from; test: those before the test target, "
        "as in the reported metrics; validation: those before the validation target; all (%(default)s)",
    )
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw a contact sheet to FILE (.png)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, or cuda:N")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="number format in which items are encoded; bf16 is faster if supported (%(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
