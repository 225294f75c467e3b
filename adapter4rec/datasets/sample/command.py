"""Command line of the sample generator: ``python -m Dataset.generate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.datasets.sample.behaviour import SampleSettings
from adapter4rec.datasets.sample.folder import keep_or_make
from adapter4rec.datasets.sample.images import IMAGE_SAMPLE
from adapter4rec.datasets.sample.text import TEXT_SAMPLE
from adapter4rec.utils.command_line import parse_command_line, single_values
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import option, options_of


@dataclass(frozen=True)
class _Options(SampleSettings):
    """Output."""

    images: bool = option(False, "items with images instead of titles")
    into: Path | None = option(
        None, "output folder; default: Dataset/sample, with --images Dataset/sample_images"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate the sample described by command-line arguments.

    Raises:
        UserError: unknown option, setting out of range, or the output folder cannot be written or has other
            content.
    """
    known = options_of(_Options)
    about = "Synthetic sample data: a source and a target domain without shared items."
    words = parse_command_line(sys.argv[1:] if arguments is None else arguments, known, about)
    given = {name: known[name].value_of(value) for name, value in single_values(words).items()}
    recipe = IMAGE_SAMPLE if given.pop("images", False) else TEXT_SAMPLE
    folder = given.pop("into", None) or recipe.folder
    given.setdefault("items", recipe.items)
    if "users" in given:
        given.setdefault("target_users", given["users"])
    settings = SampleSettings(**given)
    try:
        made = keep_or_make(folder, recipe, settings)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the sample ({error})") from None
    print(f"{folder}: {'sample generated' if made else 'up to date, nothing to do'}")
    print(
        f"  source {settings.users} users, target {settings.target_users}, {settings.items} items each, "
        f"seed {settings.seed}; synthetic data"
    )
