"""``python -m adapter4rec.convert RELEASED.pt OURS.safetensors``: a released source model becomes ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapter4rec.errors import UserError, run_main
from adapter4rec.models.objectives import Objective
from adapter4rec.released import read_released
from adapter4rec.source_models import export_source_model


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("released", type=Path, help="a checkpoint of the released code (.pt)")
    parser.add_argument("ours", type=Path, help="the .safetensors file to write")
    parser.add_argument("--objective", choices=[member.value for member in Objective], default="sasrec")
    options = parser.parse_args()
    if options.ours.suffix != ".safetensors":
        raise UserError(f"{options.ours}: the file to write ends in .safetensors")
    tensors = read_released(options.released)
    description = {"converted_from": options.released.name}
    export_source_model(tensors, options.ours, Objective(options.objective), description)
    total = sum(tensor.numel() for tensor in tensors.values())
    print(f"{options.ours}: {len(tensors)} entries, {total:,} parameters")


if __name__ == "__main__":
    run_main(main)
