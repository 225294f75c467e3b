"""``adapter4rec export RUN --bundle FOLDER``: a trained model for others.

``--bundle`` writes one self-contained folder: model, tokenizer, items with their vectors, and a model card.
It loads anywhere with ``adapter4rec.from_pretrained``. ``--push`` uploads it to the Hugging Face hub.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.serving.bundles import write_bundle
from adapter4rec.serving.command_line import add_model_options, loaded_model
from adapter4rec.serving.hub import push_to_hub
from adapter4rec.utils.errors import UserError, run_main


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        prog="adapter4rec export", description=__doc__.split("\n\n", 1)[1], allow_abbrev=False
    )
    add_model_options(parser)
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", required=True, help="folder to write")
    parser.add_argument(
        "--without-base",
        "--without_base",
        action="store_true",
        help="leave out the base model, which another bundle with the same source model has",
    )
    parser.add_argument("--push", metavar="USER/NAME", help="upload the bundle to the Hugging Face hub")
    parser.add_argument("--public", action="store_true", help="with --push: make a new repository public")
    options = parser.parse_args()
    if options.public and not options.push:
        raise UserError("--public: requires --push")
    manifest = write_bundle(loaded_model(options), options.bundle, with_base=not options.without_base)
    size = sum(path.stat().st_size for path in options.bundle.rglob("*") if path.is_file())
    print(f"{options.bundle}: bundle of {manifest.items:,} items, {size / 1e6:,.1f} MB")
    if options.push:
        print(push_to_hub(options.bundle, options.push, private=not options.public))


if __name__ == "__main__":
    run_main(main)
