"""``python -m adapter4rec.download NAME [--into FOLDER]``: download a pretrained backbone."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.models.pretrained import BACKBONES, PRETRAINED_MODELS, fetch
from adapter4rec.utils.errors import run_main


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line; download the named backbone, or list all."""
    parser = argparse.ArgumentParser(
        prog="adapter4rec download", description="Download a pretrained backbone."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the backbone; default: list all")
    parser.add_argument(
        "--into",
        type=Path,
        default=PRETRAINED_MODELS,
        metavar="FOLDER",
        help="parent folder; default: pretrained_models/ of a checkout, or of the user's cache",
    )
    parser.add_argument("--list", action="store_true", help="list the backbones and exit")
    options = parser.parse_args(arguments)
    if options.list or options.name is None:
        width = max(map(len, BACKBONES))
        for name, backbone in BACKBONES.items():
            print(f"{name:<{width}}  about {backbone.megabytes:>3} MB, from {backbone.origin}")
    else:
        fetch(options.name, options.into)


if __name__ == "__main__":
    run_main(main)
