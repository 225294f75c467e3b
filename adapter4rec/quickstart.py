"""The quickstart: the project's main job in small, from nothing to a table and a picture.

It fetches a small pretrained BERT, generates the sample, trains a source model, adapts it to the target
domain in several ways and compares them. What is done already is used again.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

from adapter4rec.curves import draw_curves
from adapter4rec.download import fetch
from adapter4rec.errors import UserError, run_main
from adapter4rec.files import REPOSITORY, whole_file
from adapter4rec.runs import Record
from adapter4rec.sample import SampleSettings, make_sample

BACKBONE = "minilm/all_minilm_l6_v2"
SAMPLE = REPOSITORY / "Dataset" / "quickstart"
RUNS = REPOSITORY / "runs" / "quickstart"
SIZE = SampleSettings(users=3000, target_users=1000, items=400)

_HEAD_RATES = {"lr_item_head": 1e-3, "lr_user_encoder": 1e-3}
_ALL_RATES = _HEAD_RATES | {"lr_backbone": 1e-4}
SOURCE_STAGES = {
    "source_head": {"method": "head", "epochs": 15, **_HEAD_RATES},
    "source": {"method": "all", "epochs": 1, **_ALL_RATES},
}
"""The head is trained first, on states of the frozen backbone that are computed once; then everything."""

TARGET_METHODS = {
    "popularity": {},
    "frozen": {},
    "scratch": {"epochs": 3, **_ALL_RATES},
    "houlsby": {"epochs": 3, "lr_adapter": 2e-3},
    "finetune": {"epochs": 3, **_ALL_RATES},
}
NAMES = {
    "popularity": "most popular items",
    "frozen": "source model as it is (frozen)",
    "scratch": "from scratch (no source)",
    "houlsby": "Houlsby adapters",
    "finetune": "full fine-tuning",
}


def main() -> None:
    """Run the quickstart."""
    fetch(BACKBONE)
    make_sample(SAMPLE, SIZE)
    print(f"sample (generated, not real): {SAMPLE}")
    start: Record = {}
    for name, options in SOURCE_STAGES.items():
        exported = RUNS / f"{name}.safetensors"
        _train("Pretraining.Text.train", name, "source", options | start | {"export": exported})
        start = {"start_from": exported}
    source = RUNS / f"{list(SOURCE_STAGES)[-1]}.safetensors"
    for name, options in TARGET_METHODS.items():
        _train(
            "Downstream.Text.train", name, "target", options | {"method": name, "source_checkpoint": source}
        )
    _report()


def _train(module: str, name: str, domain: str, options: Record) -> None:
    settings = {
        "users": SAMPLE / domain / "users.tsv",
        "items": SAMPLE / domain / "items.tsv",
        "backbone": BACKBONE,
        "run_folder": RUNS / name,
        **options,
    }
    arguments = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", module, *arguments, "--resume"]
    print(f"\n== {name}\n{shlex.join(['python', *command[1:]])}", flush=True)
    code = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    if code:
        raise UserError(f"the run {name} ended with {code}; what it said stands above")


def _report() -> None:
    results = {name: json.loads((RUNS / name / "result.json").read_text("utf-8")) for name in TARGET_METHODS}
    table = table_of(results)
    with whole_file(RUNS / "table.md") as aside:
        aside.write_text(table, encoding="utf-8")
    draw_curves(
        {NAMES[name]: validation_history(RUNS / name) for name in TARGET_METHODS}, RUNS / "curves.png"
    )
    print(f"\nTarget domain of the sample (generated, not real), test split:\n\n{table}")
    print(f"table    {RUNS / 'table.md'}\ncurves   {RUNS / 'curves.png'}\nruns     {RUNS}, a folder each")
    print(f"sample   {SAMPLE}\nbackbone {REPOSITORY / 'pretrained_models' / BACKBONE}\n")
    print("Next: the same with a smaller bottleneck, by the launcher:")
    data = " ".join(f"--{name} ../../../Dataset/quickstart/target/{name}.tsv" for name in ("users", "items"))
    print(
        f"  cd Downstream/Text/script && {sys.executable} adapter_houlsby.py --backbone {BACKBONE} {data} \\"
    )
    print("    --source_checkpoint ../../../runs/quickstart/source.safetensors \\")
    print("    --batch_size 64 --lr_adapter 2e-3 --epochs 3 --item_bottleneck 16")
    print("or the paper's data: see README.md and Dataset/README.md")


def validation_history(folder: Path) -> list[Record]:
    """The validation records of a run's ``metrics.jsonl``."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == "validation"]


def table_of(results: dict[str, Record]) -> str:
    """Results of runs as a Markdown table."""
    rows = [
        ("", "HR@10 (%)", "NDCG@10 (%)", "trained parameters", "share (%)", "s / epoch", "peak memory (MiB)"),
        ("---", *["---:"] * 6),
    ]
    for name, result in results.items():
        seconds = result["seconds_per_epoch"]
        rows.append(
            (
                NAMES[name],
                f"{result['test']['HR@10']:.2f}",
                f"{result['test']['NDCG@10']:.2f}",
                f"{result['trained_parameters']:,}",
                f"{result['trained_share']:.2f}",
                "-" if seconds is None else f"{seconds:.1f}",
                f"{result['peak_memory_bytes'] / 2**20:,.0f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |\n"
        for row in rows
    )


if __name__ == "__main__":
    run_main(main)
