"""``python -m adapter4rec.merge SOURCE ADAPTER FOLDER``: a source model and its LoRA become plain weights.

FOLDER is then an ordinary Hugging Face folder of the item encoder, which ``AutoModel`` loads without this
project, with the item head beside it; ``--export`` writes the whole merged model as a source model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.adapters.files import load_adapter
from adapter4rec.checkpoints.loading import load_source
from adapter4rec.checkpoints.merging import merge_adapters, save_encoder
from adapter4rec.checkpoints.source_models import (
    export_source_model,
    read_source_model,
    require_export_path,
    require_new,
)
from adapter4rec.utils.errors import UserError, run_main


def main() -> None:
    """Read the command line and merge."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, help="the source model")
    parser.add_argument("adapter", type=Path, help="an adapter file of lora, bitfit or layernorm")
    parser.add_argument("folder", type=Path, help="the Hugging Face folder to write")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the whole merged model there")
    parser.add_argument(
        "--backbone", metavar="NAME", help="the backbone, if elsewhere than in the source run"
    )
    parser.add_argument("--force", action="store_true", help="even if it belongs to another source model")
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --export if it exists")
    options = parser.parse_args()
    if options.export:
        require_export_path(options.export)
        require_new(options.export, overwrite=options.overwrite)
    if options.folder.exists():
        raise UserError(f"{options.folder}: is there already")
    model = load_source(options.source, backbone=options.backbone)
    load_adapter(model, options.adapter, force=options.force)
    merge_adapters(model)
    save_encoder(model, options.folder)
    print(f"{options.folder}: the item encoder, merged")
    if options.export:
        # What the source says of its sizes and settings stays true of the merged model.
        said = read_source_model(options.source).description
        said = {**said, "merged_from": [options.source.name, options.adapter.name]}
        export_source_model(model.state_dict(), options.export, model.objective, said)
        print(f"{options.export}: the whole model, merged")


if __name__ == "__main__":
    run_main(main)
