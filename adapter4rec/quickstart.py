"""Quickstart: train a small source model, adapt it to a target domain and compare adaptation methods.

``python -m adapter4rec.quickstart`` downloads a small pretrained BERT, generates sample data, trains a source
model, adapts it to the target domain with several methods and prints a table. ``python -m
adapter4rec.quickstart image`` does the same with images. Finished steps are reused.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from adapter4rec.report.rendering import aligned
from adapter4rec.runs.curves import draw_curves
from adapter4rec.runs.run import Record
from adapter4rec.studies.quickstarts import QUICKSTARTS, Quickstart
from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.files import REPOSITORY, atomic_file
from adapter4rec.utils.processes import run

NAMES = {
    "popularity": "most popular items",
    "frozen": "frozen source model",
    "scratch": "from scratch (no source model)",
    "houlsby": "Houlsby adapters",
    "finetune": "full fine-tuning",
}


def main() -> None:
    """Run a quickstart."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "items", nargs="?", choices=tuple(QUICKSTARTS), default="text", help="item content (%(default)s)"
    )
    plan = QUICKSTARTS[parser.parse_args().items]
    plan.prepare(plan)
    start: Record = {}
    for name, options in plan.source_stages.items():
        _train(plan, name, "source", options | start | {"export": plan.exported(name)})
        start = {"start_from": plan.exported(name)}
    for name, options in plan.target_methods.items():
        _train(plan, name, "target", options | {"method": name, "source_checkpoint": plan.source})
    _report(plan)
    if plan.draws_contact_sheet:
        _draw_contact_sheet(plan)
    _print_next_steps(plan)


def _train(plan: Quickstart, name: str, domain: str, options: Record) -> None:
    stage = {"source": "Pretraining", "target": "Downstream"}[domain]
    settings = plan.data(domain) | {"backbone": plan.backbone, "run_folder": plan.runs / name}
    settings |= options
    arguments = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    print(f"\n== {name}")
    _run([f"{stage}.{plan.tree}.train", *arguments, "--resume"], f"run {name}")


def _run(command: list[str], what: str) -> None:
    print(shlex.join(["python", "-m", *command]), flush=True)
    code = run([sys.executable, "-m", *command], cwd=REPOSITORY).returncode
    if code:
        raise UserError(f"{what} failed with exit code {code}; see its output above")


def _report(plan: Quickstart) -> None:
    results = {
        name: json.loads((plan.runs / name / "result.json").read_text("utf-8"))
        for name in plan.target_methods
    }
    table = table_of(results)
    with atomic_file(plan.runs / "table.md") as aside:
        aside.write_text(table, encoding="utf-8")
    curves = {NAMES[name]: validation_history(plan.runs / name) for name in plan.target_methods}
    draw_curves(curves, plan.runs / "curves.png")
    print(f"\nTarget domain of the sample data (generated), test split:\n\n{table}", flush=True)


def _print_next_steps(plan: Quickstart) -> None:
    print(f"table    {plan.runs / 'table.md'}\ncurves   {plan.runs / 'curves.png'}")
    print(f"runs     {plan.runs} (one folder per run)\nsample   {plan.sample}")
    print(f"backbone {REPOSITORY / 'pretrained_models' / plan.backbone}\n")
    print("Next, train Houlsby adapters with a smaller bottleneck with the launcher:")
    data = " ".join(
        f"--{name} ../../../{path.relative_to(REPOSITORY)}" for name, path in plan.data("target").items()
    )
    script = f"cd Downstream/{plan.tree}/script && {sys.executable} adapter_houlsby.py"
    print(f"  {script} --backbone {plan.backbone} {data} \\")
    print(f"    --source_checkpoint ../../../{plan.source.relative_to(REPOSITORY)} \\")
    print(f"    {plan.try_next} --item_bottleneck 16")
    print("or use the paper's data: see README.md and Dataset/README.md")


def validation_history(folder: Path) -> list[Record]:
    """Validation records from the ``metrics.jsonl`` of a run."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == "validation"]


def table_of(results: dict[str, Record]) -> str:
    """A Markdown table of results, by the name of the run."""
    head = "", "HR@10 (%)", "NDCG@10 (%)", "trained parameters", "share (%)", "s / epoch", "peak memory (MiB)"
    rows = []
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
    return aligned(head, rows)


def _draw_contact_sheet(plan: Quickstart) -> None:
    sheet = plan.runs / "contact_sheet.png"
    _run(
        ["adapter4rec.recommend", str(plan.runs / "houlsby"), "--sheet", str(sheet), "--top-k", "8"],
        "contact sheet",
    )


if __name__ == "__main__":
    run_main(main)
