"""``adapter4rec recommend RUN``: recommendations of a trained model.

Takes a run folder, a bundle, or a source model and an adapter file (--source, --adapter). Recommends items
to users by name (--users), for a click history (--history), or to all users (--csv). Text runs print titles;
image runs can draw a contact sheet (--sheet). The clicks that a run keeps of each user (the last L + 3) are
not recommended again. New items can be ranked along with the catalogue (--items). All embeddings can be
exported (--export). A run that was split at points in time does not keep clicks after the test target.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from tqdm import tqdm

from adapter4rec.data.images.store import ImageStore
from adapter4rec.serving.command_line import FILE, add_model_options, loaded_model
from adapter4rec.serving.contact_sheet import draw_contact_sheet
from adapter4rec.serving.new_items import read_new_items
from adapter4rec.serving.recommender import HISTORIES, SHOWN_USERS, Recommender
from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import atomic_file

_USERS_AT_ONCE = 256


def write_csv(recommender: Recommender, top_k: int, path: Path, *, only_new: bool = False) -> None:
    """Write recommendations for all users as CSV: ``user,rank,item,title,score,new``.

    Args:
        recommender: the model and its candidates.
        top_k: number of items per user.
        path: the CSV file.
        only_new: rank only the new items.
    """
    names = recommender.interactions.user_names
    with (
        tqdm(desc="recommend", total=len(names), unit="user", disable=None, leave=False) as bar,
        atomic_file(path) as aside,
        aside.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["user", "rank", "item", "title", "score", "new"])
        for first in range(0, len(names), _USERS_AT_ONCE):
            users = range(first, min(first + _USERS_AT_ONCE, len(names)))
            histories = [recommender.history(user) for user in users]
            found = recommender.best_for(histories, top_k, only_new=only_new)
            for user, ranked in zip(users, found, strict=True):
                for rank, one in enumerate(ranked, 1):
                    score = f"{one.score:.6g}"
                    writer.writerow([names[user], rank, one.item, one.title, score, int(one.new)])
            bar.update(len(users))


def main() -> None:
    """Entry point of the command."""
    options = _options()
    _require_fitting(options)
    recommender = loaded_model(options)
    run = recommender.run
    if recommender.interactions.n_users and recommender.interactions.split.times is not None:
        print("note: this run was split at points in time; clicks after the test target are not known here")
    if options.sheet and not isinstance(run.domain.store, ImageStore):
        raise UserError(f"--sheet: {run.folder} is not an image run")
    if options.items:
        known = recommender.candidates.number_of
        items = read_new_items(run, options.items, options.item_images, known, options.encoding or "utf-8")
        recommender = recommender.with_items(items)
        print(f"{options.items}: {recommender.candidates.n_new:,} items that are new to the catalogue")
    recommender.require(options.top_k, only_new=options.only_new)
    if options.similar:
        for item in options.similar:
            nearest = recommender.similar(item, options.top_k)
            print(f"nearest to {item}, with cosine similarities\n{nearest!r}\n")
        return
    if options.export:
        recommender.export(options.export, split=options.split or "test", only_new=options.only_new)
        stem, parquet = options.export.stem, options.export.suffix == ".parquet"
        more = (
            f"those of users in {stem}.users.parquet"
            if parquet
            else f"names in {stem}.items.tsv and {stem}.users.tsv"
        )
        print(f"{options.export}: embeddings; {more}")
    if options.csv:
        _require_users(recommender)
        write_csv(recommender, options.top_k, options.csv, only_new=options.only_new)
        print(f"{options.csv}: recommendations for {run.domain.interactions.n_users:,} users")
    if (options.csv or options.export) and not (options.users or options.history or options.sheet):
        return
    users = _selected_users(options, recommender)
    found = recommender.best_for([history for _, history in users], options.top_k, only_new=options.only_new)
    if options.history:  # its images are candidates for it alone
        recommender, history = recommender.with_contents(options.history)
        users.append(("--history", history))
        found += recommender.best_for([history], options.top_k, only_new=options.only_new)
    blocks = []
    for (user, history), ranked in zip(users, found, strict=True):
        clicked = [f"      {recommender.candidates.shown(item)}" for item in history.tolist()]
        heads = f"{user}: clicked, oldest first", f"{user}: recommended, best first, with scores"
        blocks.append("\n".join([heads[0], *clicked, heads[1], repr(ranked)]))
    print("\n\n".join(blocks))
    if options.sheet:
        draw_contact_sheet(recommender.candidates, users, found, options.sheet)
        print(f"\ncontact sheet: {options.sheet}")


def _require_fitting(options: argparse.Namespace) -> None:
    """Refuse options that have no effect with each other."""
    for name in ("sheet", "csv", "export", "users", "history", "only_new"):
        if options.similar and getattr(options, name):
            option = name.replace("_", "-")
            raise UserError(f"--similar: lists the nearest of all items; leave out --{option}")
    for option, given, needed in (
        ("item-images", options.item_images, "items"),
        ("encoding", options.encoding, "items"),
        ("split", options.split, "export"),
    ):
        if given and not getattr(options, needed):
            raise UserError(f"--{option}: requires --{needed}")


def _require_users(recommender: Recommender) -> None:
    if not recommender.interactions.n_users:
        raise UserError("a bundle has no users; pass a history of items with --history")


def _selected_users(options: argparse.Namespace, recommender: Recommender) -> list[tuple[str, np.ndarray]]:
    """Name and history of ``--users``; without them and ``--history``, of the first users."""
    names = options.users or []
    if not names and not options.history:
        _require_users(recommender)
        names = recommender.interactions.user_names[:SHOWN_USERS]
    return [(name, recommender.history_of(name)) for name in names]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="adapter4rec recommend", description=__doc__.split("\n\n", 1)[1], allow_abbrev=False
    )
    add_model_options(parser)
    new = parser.add_argument_group("new items, which the model was not trained on")
    new.add_argument("--items", **FILE, help="items in the format of items.tsv, ranked with the catalogue")
    new.add_argument("--encoding", help="encoding of this file (utf-8)")
    new.add_argument("--item-images", "--item_images", **FILE, help="their images: a folder or an LMDB")
    new.add_argument("--only-new", "--only_new", action="store_true", help="rank only the new items")
    parser.add_argument("--users", nargs="+", metavar="USER", help=f"default: the first {SHOWN_USERS} users")
    parser.add_argument(
        "--history", nargs="+", metavar="ITEM", help="clicked items, or image files, oldest first"
    )
    parser.add_argument(
        "--similar", nargs="+", metavar="ITEM", help="items, or image files: list the nearest"
    )
    parser.add_argument("--top-k", "--top_k", type=int, default=10, help="items per user (%(default)s)")
    parser.add_argument("--csv", **FILE, help="write recommendations for all users to FILE")
    parser.add_argument("--sheet", **FILE, help="draw a contact sheet to FILE (.png)")
    parser.add_argument(
        "--export", **FILE, help="write embeddings of items and users to FILE (.safetensors, .parquet)"
    )
    parser.add_argument(
        "--split",
        choices=tuple(HISTORIES),
        help="with --export: clicks that user vectors are computed from; test (the default): those before "
        "the test target, as in the reported metrics; validation: those before the validation target; all",
    )
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
