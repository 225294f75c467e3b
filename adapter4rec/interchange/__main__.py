"""``python -m adapter4rec.interchange``: convert adapter files to and from the formats of other libraries.

``export LIBRARY SOURCE ADAPTER FOLDER`` writes the item encoder's adapters in an adapter file to a folder in
the format of the library. ``import LIBRARY SOURCE FOLDER ADAPTER`` converts such a folder to an adapter file.
LIBRARY is peft or adapterhub; SOURCE is the source model that the adapters belong to.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from adapter4rec.utils.errors import run_main


def main() -> None:
    """Entry point of the command."""
    options = _options()
    from adapter4rec.adapters.files import load_adapter, save_adapter
    from adapter4rec.checkpoints.loading import load_source
    from adapter4rec.checkpoints.source_models import require_new

    library = import_module(f"adapter4rec.interchange.{options.library}")
    if options.direction == "import":
        require_new(options.adapter, overwrite=options.overwrite)
    model = load_source(options.source, backbone=options.backbone)
    if options.direction == "export":
        load_adapter(model, options.adapter, force=options.force)
        for omission in getattr(library, f"export_{options.library}")(model, options.folder):
            print(f"not exported: {omission}")
        print(f"{options.folder}: item encoder adapters in the format of {options.library}")
    else:
        getattr(library, f"import_{options.library}")(model, options.folder)
        save_adapter(model, options.adapter, {"imported_from": options.library})
        print(f"{options.adapter}: item encoder adapters imported from {options.library}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m adapter4rec.interchange", description=__doc__.split("\n\n", 1)[1], allow_abbrev=False
    )
    directions = parser.add_subparsers(dest="direction", required=True)
    export, back = (directions.add_parser(name, allow_abbrev=False) for name in ("export", "import"))
    for command, files in ((export, ("adapter", "folder")), (back, ("folder", "adapter"))):
        command.add_argument("library", choices=("peft", "adapterhub"))
        for name in ("source", *files):
            command.add_argument(name, type=Path)
        command.add_argument(
            "--backbone", metavar="NAME", help="backbone, if it has moved since the source run"
        )
    export.add_argument(
        "--force", action="store_true", help="load an adapter that was trained on another source model"
    )
    back.add_argument("--overwrite", action="store_true", help="replace the adapter file if it exists")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
