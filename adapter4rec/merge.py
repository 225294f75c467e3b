"""``python -m adapter4rec.merge SOURCE ADAPTER FOLDER``: merge an adapter into its source model.

FOLDER becomes a Hugging Face folder with the item encoder, which ``AutoModel`` loads without this project,
and the item head. ``--export`` writes the whole merged model as a source model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.adapters.files import load_adapter, read_adapter
from adapter4rec.checkpoints.loading import load_source
from adapter4rec.checkpoints.merging import merge_adapters, save_encoder
from adapter4rec.checkpoints.source_models import export_source_model, read_source_model, require_export_path
from adapter4rec.utils.errors import run_main


def main() -> None:
    """Parse the command line and merge."""
    parser = argparse.ArgumentParser(prog="adapter4rec merge", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="source model")
    parser.add_argument("adapter", type=Path, help="adapter file of lora, bitfit, layernorm or peft")
    parser.add_argument("folder", type=Path, help="Hugging Face folder to write")
    parser.add_argument("--export", type=Path, metavar="FILE", help="also write the merged source model")
    parser.add_argument("--backbone", metavar="NAME", help="backbone, if its folder was moved")
    parser.add_argument("--force", action="store_true", help="merge an adapter of another source model")
    parser.add_argument("--overwrite", action="store_true", help="overwrite the file of --export")
    options = parser.parse_args()
    if options.export:
        require_export_path(options.export, overwrite=options.overwrite)
    trained = read_adapter(options.adapter).description.get("settings") or {}
    computed = {name: trained[name] for name in ("normalisation", "release_masking") if name in trained}
    model = load_source(options.source, backbone=options.backbone, **computed)
    load_adapter(model, options.adapter, force=options.force)
    merge_adapters(model)
    save_encoder(model, options.folder)
    print(f"{options.folder}: merged item encoder")
    if options.export:
        # The recorded settings of the source model are also valid for the merged model.
        description = {**read_source_model(options.source).description}
        if computed:  # the target may have had another normalisation of pixels
            description["settings"] = {**(description.get("settings") or {}), **computed}
        description["merged_from"] = [options.source.name, options.adapter.name]
        export_source_model(model.state_dict(), options.export, model.objective, description)
        print(f"{options.export}: merged source model")


if __name__ == "__main__":
    run_main(main)
