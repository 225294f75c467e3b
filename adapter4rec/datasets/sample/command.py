"""Command line of the sample generator: ``python -m Dataset.generate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.datasets import sample
from adapter4rec.datasets.sample import SampleSettings, images, text
from adapter4rec.utils.errors import UserError


def _options(arguments: list[str] | None) -> argparse.Namespace:
    default = SampleSettings()
    parser = argparse.ArgumentParser(
        prog="python -m Dataset.generate", description=sample.__doc__.splitlines()[0]
    )
    count = {"type": int, "metavar": "N"}
    parser.add_argument("--images", action="store_true", help="items with images instead of titles")
    parser.add_argument(
        "--users", **count, default=default.users, help="users in the source domain (default %(default)s)"
    )
    parser.add_argument("--target-users", **count, help="users in the target domain (default: --users)")
    parser.add_argument(
        "--items",
        **count,
        help=f"items in each domain (default {default.items}, with --images {images.DEFAULT_ITEMS})",
    )
    parser.add_argument(
        "--clicks", **count, default=default.clicks, help="mean clicks per user (default %(default)s)"
    )
    parser.add_argument("--seed", **count, default=default.seed, help="random seed (default %(default)s)")
    parser.add_argument(
        "--into",
        type=Path,
        help="output folder (default Dataset/sample, with --images Dataset/sample_images)",
    )
    options = parser.parse_args(arguments)
    if options.target_users is None:
        options.target_users = options.users
    if options.items is None:
        options.items = images.DEFAULT_ITEMS if options.images else default.items
    if options.into is None:
        options.into = images.DEFAULT_FOLDER if options.images else text.DEFAULT_FOLDER
    return options


def main(arguments: list[str] | None = None) -> None:
    """Generate the sample described by command-line arguments.

    Raises:
        UserError: setting out of range, or the output folder cannot be written or has other content.
    """
    options = _options(arguments)
    settings = SampleSettings(
        options.users, options.target_users, options.items, options.clicks, options.seed
    )
    make = sample.make_image_sample if options.images else sample.make_sample
    try:
        outcome = make(options.into, settings)
    except OSError as error:
        raise UserError(f"{options.into}: cannot write the sample ({error})") from None
    print(f"{options.into}: {outcome.value}")
    print(
        f"  source {settings.users} users, target {settings.target_users}, {settings.items} items each, "
        f"seed {settings.seed}; synthetic data"
    )
