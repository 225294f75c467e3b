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
    parser = argparse.ArgumentParser(
        prog="python -m adapter4rec.interchange", description=__doc__.split("\n\n", 1)[1], allow_abbrev=False
    )
    parser.add_argument("direction", choices=("export", "import"))
    parser.add_argument("library", choices=("peft", "adapterhub"))
    parser.add_argument("source", type=Path, help="source model")
    parser.add_argument("input", type=Path, help="adapter file to export, or folder to import")
    parser.add_argument("output", type=Path, help="folder to write by export, or adapter file by import")
    parser.add_argument("--backbone", metavar="NAME", help="backbone, if it has moved since the source run")
    parser.add_argument("--force", action="store_true", help="export an adapter of another source model")
    parser.add_argument("--overwrite", action="store_true", help="import to an adapter file that exists")
    options = parser.parse_args()
    if options.force if options.direction == "import" else options.overwrite:
        parser.error("--force belongs to export, --overwrite to import")
    from adapter4rec.adapters.files import load_adapter, save_adapter
    from adapter4rec.checkpoints.loading import load_source
    from adapter4rec.checkpoints.source_models import require_export_path

    library = import_module(f"adapter4rec.interchange.{options.library}")
    if options.direction == "import":
        require_export_path(options.output, overwrite=options.overwrite)
    model = load_source(options.source, backbone=options.backbone)
    if options.direction == "export":
        load_adapter(model, options.input, force=options.force)
        for omission in getattr(library, f"export_{options.library}")(model, options.output):
            print(f"not exported: {omission}")
        print(f"{options.output}: item encoder adapters in the format of {options.library}")
    else:
        getattr(library, f"import_{options.library}")(model, options.input)
        save_adapter(model, options.output, {"imported_from": options.library})
        print(f"{options.output}: item encoder adapters imported from {options.library}")


if __name__ == "__main__":
    run_main(main)
