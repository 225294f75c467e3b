"""``python -m adapter4rec.convert RELEASED.pt OUTPUT.safetensors``: convert a released checkpoint.

A source model is converted to one file. For a target model with adapters, ``--adapter FILE`` writes the
adapters to a separate file. It requires ``--backbone`` and ``--method``, and accepts the other options of the
target stage with which the checkpoint was trained, such as ``--item_rank 12`` and ``--semantics release``::

    python -m adapter4rec.convert epoch-9.pt source.safetensors --adapter lora.safetensors \\
        --backbone bert/bert_base_uncased --method lora --semantics release
"""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.adapters.attaching import add_adapters, detach_adapters
from adapter4rec.adapters.files import save_adapter
from adapter4rec.checkpoints.rebuilding import KINDS
from adapter4rec.checkpoints.released import is_text, load_released_target, read_released
from adapter4rec.checkpoints.settings import TargetSettings
from adapter4rec.checkpoints.source_models import export_source_model, require_export_path
from adapter4rec.models.parameters import count_parameters
from adapter4rec.models.registry import OBJECTIVES
from adapter4rec.models.transrec import new_transrec
from adapter4rec.utils.command_line import settings_from_command_line
from adapter4rec.utils.errors import UserError, run_main

_NOT_READ = ["--users", "not-read", "--items", "not-read"]


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(
        prog="adapter4rec convert",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("released", type=Path, help="checkpoint of the released code (.pt)")
    parser.add_argument("ours", type=Path, metavar="output", help="source model to write (.safetensors)")
    parser.add_argument("--objective", choices=OBJECTIVES, default="sasrec", help="objective (%(default)s)")
    parser.add_argument("--adapter", type=Path, help="adapter file to write (.safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files")
    options, rest = parser.parse_known_args()
    if options.adapter is None and rest:
        parser.error(f"{' '.join(rest)}: requires --adapter FILE")
    for path in filter(None, (options.ours, options.adapter)):
        require_export_path(path, overwrite=options.overwrite)
    tensors = read_released(options.released)
    description = {"converted_from": options.released.name}
    if options.adapter is not None:
        cls = KINDS["text target" if is_text(tensors) else "image target"]
        settings = settings_from_command_line(cls, [*_NOT_READ, *rest, "--objective", options.objective])
        if not isinstance(settings, TargetSettings) or settings.adapter is None:
            raise UserError(
                f"--method {settings.method}: not an adapter family; choose one, such as --method houlsby"
            )
        model = new_transrec(settings, cls.build_encoder, n_items=0)
        add_adapters(model, settings.adapter)
        load_released_target(model, tensors, options.released)
        save_adapter(model, options.adapter, description)
        print(f"{options.adapter}: adapter, {count_parameters(model.adapters).total:,} parameters")
        detach_adapters(model)
        tensors = model.state_dict()
    export_source_model(tensors, options.ours, options.objective, description)
    total = sum(tensor.numel() for tensor in tensors.values())
    print(f"{options.ours}: {len(tensors)} entries, {total:,} parameters")


if __name__ == "__main__":
    run_main(main)
