"""Command line of the sample generator: ``python -m Dataset.generate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from adapter4rec.datasets.sample.behaviour import SampleSettings
from adapter4rec.datasets.sample.folder import keep_or_make
from adapter4rec.datasets.sample.images import IMAGE_SAMPLE
from adapter4rec.datasets.sample.text import TEXT_SAMPLE
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import options_of


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate the sample described by command-line arguments.

    Raises:
        UserError: setting out of range, or the output folder cannot be written or has other content.
    """
    parser = argparse.ArgumentParser(
        prog="python -m Dataset.generate",
        description="Synthetic sample data: a source and a target domain without shared items.",
    )
    parser.add_argument("--images", action="store_true", help="items with images instead of titles")
    for name, option in options_of(SampleSettings).items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="N", help=option.help)
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="output folder (default Dataset/sample, with --images Dataset/sample_images)",
    )
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    recipe = IMAGE_SAMPLE if given.pop("images") else TEXT_SAMPLE
    folder = given.pop("into", recipe.folder)
    given.setdefault("items", recipe.items)
    if "users" in given:
        given.setdefault("target_users", given["users"])
    settings = SampleSettings.from_values(given)
    try:
        made = keep_or_make(folder, recipe, settings)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the sample ({error})") from None
    print(f"{folder}: {'sample generated' if made else 'up to date, nothing to do'}")
    print(
        f"  source {settings.users} users, target {settings.target_users}, {settings.items} items each, "
        f"seed {settings.seed}; synthetic data"
    )
