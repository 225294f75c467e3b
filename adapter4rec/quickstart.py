"""Quickstart: train a small source model, adapt it to a target domain and compare adaptation methods.

``python -m adapter4rec.quickstart`` downloads a small pretrained BERT, generates sample data, trains a source
model, adapts it to the target domain with several methods and prints a table. ``python -m
adapter4rec.quickstart image`` does the same with images. Finished steps are reused.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapter4rec.report.rendering import aligned
from adapter4rec.runs.curves import draw_curves
from adapter4rec.runs.records import Result
from adapter4rec.studies.quickstarts import QUICKSTARTS, Quickstart
from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.processes import run
from adapter4rec.utils.records import read_record
from adapter4rec.utils.settings import as_arguments

NAMES = {
    "popularity": "most popular items",
    "frozen": "frozen source model",
    "scratch": "from scratch (no source model)",
    "houlsby": "Houlsby adapters",
    "finetune": "full fine-tuning",
    "houlsby_in_batch": "Houlsby adapters, in-batch softmax",
}
Record = dict[str, Any]


def main() -> None:
    """Run a quickstart."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "items", nargs="?", choices=tuple(QUICKSTARTS), default="text", help="item content (%(default)s)"
    )
    plan = QUICKSTARTS[parser.parse_args().items]
    print(
        f"{len(plan.source_stages) + len(plan.target_methods)} runs on generated data: about 3 minutes on "
        "2 CPU cores, after the download of the backbone (text only, 92 MB). Finished runs are reused.",
        flush=True,
    )
    plan.prepare(plan)
    start: Record = {}
    for name, options in plan.source_stages.items():
        exported = plan.runs / f"{name}.safetensors"
        _train(plan, f"Pretraining.{plan.tree}.train", name, options | start | {"export": exported})
        start = {"start_from": exported}
    source = start["start_from"]
    for name, options in plan.target_methods.items():
        settings = {"method": name, "source_checkpoint": source} | options
        _train(plan, f"Downstream.{plan.tree}.train", name, settings)
    _report(plan)
    if "images" in plan.files:
        sheet = ["--sheet", str(plan.runs / "contact_sheet.png"), "--top-k", "8"]
        _run(["adapter4rec.recommend", str(plan.runs / "houlsby"), *sheet], "contact sheet")
    _print_next_steps(plan, source)


def _train(plan: Quickstart, module: str, name: str, options: Record) -> None:
    domain = "source" if module.startswith("Pretraining") else "target"
    settings = plan.settings(domain) | {"run_folder": plan.runs / name} | options
    print(f"\n== {name}")
    _run([module, *as_arguments(settings), "--resume"], f"run {name}")


def _run(command: list[str], what: str) -> None:
    print(shlex.join(["python", "-m", *command]), flush=True)
    code = run([sys.executable, "-m", *command], cwd=REPOSITORY).returncode
    if code:
        raise UserError(f"{what} failed with exit code {code}; see its output above")


def _report(plan: Quickstart) -> None:
    folders = {name: plan.runs / name for name in plan.target_methods}
    results = {name: asdict(read_record(folder / "result.json", Result)) for name, folder in folders.items()}
    table = table_of(results)
    (plan.runs / "table.md").write_text(table, encoding="utf-8")
    draw_curves({NAMES[name]: folder for name, folder in folders.items()}, plan.runs / "curves.png")
    print(f"\nTarget domain of the sample data (generated), test split:\n\n{table}", flush=True)


def table_of(results: Mapping[str, Record]) -> str:
    """A Markdown table of results, by the name of the run."""
    head = "", "HR@10 (%)", "NDCG@10 (%)", "trained parameters", "share (%)", "s / epoch", "peak memory (MiB)"
    rows = [
        (
            NAMES[name],
            f"{result['test']['HR@10']:.2f}",
            f"{result['test']['NDCG@10']:.2f}",
            f"{result['trained_parameters']:,}",
            f"{result['trained_share']:.2f}",
            "-" if result["seconds_per_epoch"] is None else f"{result['seconds_per_epoch']:.1f}",
            f"{result['peak_memory_bytes'] / 2**20:,.0f}",
        )
        for name, result in results.items()
    ]
    return aligned(head, rows)


def _print_next_steps(plan: Quickstart, source: Path) -> None:
    print(f"table    {plan.runs / 'table.md'}\ncurves   {plan.runs / 'curves.png'}")
    print(f"runs     {plan.runs} (one folder per run)\nsample   {plan.sample}")
    print("\nNext, train Houlsby adapters with a smaller bottleneck with the launcher:")
    settings = plan.settings("target") | {"source_checkpoint": source, "batch_size": 64}
    settings |= plan.target_methods["houlsby"] | {"item_bottleneck": 16}
    print(f"  cd Downstream/{plan.tree}/script")
    print(f"  {shlex.join([sys.executable, 'adapter_houlsby.py', *as_arguments(settings)])}")
    print("or use the paper's data: see README.md and Dataset/README.md")


if __name__ == "__main__":
    run_main(main)
