"""``adapter4rec export RUN --bundle FOLDER``: a trained model for others.

``--bundle`` writes one self-contained folder: model, tokenizer, items with their vectors, and a model card.
It loads anywhere with ``adapter4rec.from_pretrained``. ``--push`` uploads it to the Hugging Face hub.
``--onnx`` writes a folder with the model as ONNX files, for use without PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from adapter4rec.serving.bundles import is_bundle, write_bundle
from adapter4rec.serving.command_line import add_model_options, loaded_model
from adapter4rec.serving.hub import push_to_hub
from adapter4rec.serving.onnx.writing import require_onnx, write_onnx
from adapter4rec.utils.errors import UserError, run_main


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(
        prog="adapter4rec export", description=__doc__.split("\n\n", 1)[1], allow_abbrev=False
    )
    add_model_options(parser)
    folder: dict[str, Any] = {"type": Path, "metavar": "FOLDER"}
    parser.add_argument("--bundle", **folder, help="bundle to write")
    parser.add_argument("--onnx", **folder, help="folder of ONNX files to write")
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
    if options.bundle is None:
        if options.without_base:
            raise UserError("--without-base: requires --bundle")
        given = options.run_folder is not None and is_bundle(Path(options.run_folder))
        if options.push and (options.onnx or not given):
            raise UserError("--push: requires --bundle; of a bundle, pass nothing but --push to upload it")
        if options.onnx is None and not options.push:
            raise UserError("nothing to write: pass --bundle or --onnx, with a folder")
    for path in (options.bundle, options.onnx):
        if path is not None and path.exists():
            raise UserError(f"{path}: already exists; choose another folder, or remove it")
    if options.onnx is not None:
        require_onnx()
    if options.bundle or options.onnx:
        _write(options)
    if options.push:
        print(push_to_hub(options.bundle or options.run_folder, options.push, private=not options.public))


def _write(options: argparse.Namespace) -> None:
    model = loaded_model(options)
    if options.bundle is not None:
        manifest = write_bundle(model, options.bundle, with_base=not options.without_base)
        print(f"{options.bundle}: bundle of {manifest.items:,} items, {_megabytes(options.bundle)}")
    if options.onnx is not None:
        exported = write_onnx(model, options.onnx)
        adapters = f", adapters {exported.adapters}" if exported.adapters else ""
        print(f"{options.onnx}: ONNX files{adapters}, {_megabytes(options.onnx)}")
        print("\n".join(f"  {file}" for file in exported.files))


def _megabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:,.1f} MB"


if __name__ == "__main__":
    run_main(main)
