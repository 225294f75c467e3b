"""The quickstart: the project's main job in small, from nothing to a table and a picture.

``python -m adapter4rec.quickstart`` fetches a small pretrained BERT, generates the sample, trains a source
model, adapts it to the target domain in several ways and compares them. ``python -m adapter4rec.quickstart
image`` does the same with pictures. What is done already is used again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapter4rec.curves import draw_curves
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.download import fetch
from adapter4rec.errors import UserError, run_main
from adapter4rec.files import REPOSITORY, whole_file
from adapter4rec.models.small_vit import SIZES, make_small_vit
from adapter4rec.processes import run
from adapter4rec.report.rendering import aligned
from adapter4rec.runs import Record
from adapter4rec.sample import Outcome, SampleSettings, make_image_sample, make_sample

NAMES = {
    "popularity": "most popular items",
    "frozen": "source model as it is (frozen)",
    "scratch": "from scratch (no source)",
    "houlsby": "Houlsby adapters",
    "finetune": "full fine-tuning",
}


@dataclass(frozen=True)
class Plan:
    """What a quickstart runs.

    Attributes:
        tree: ``Text`` or ``CV``.
        sample: the folder of the generated sample.
        runs: the folder of its runs.
        backbone: under ``pretrained_models/``.
        prepare: makes the sample and the backbone.
        source_stages: runs on the source domain; each starts from the one before.
        target_methods: ways to adapt the last of these.
        files: what a domain consists of: the file of each setting that names one.
        after: what follows the table.
        try_next: options of the launcher that is suggested at the end.
    """

    tree: str
    sample: Path
    runs: Path
    backbone: str
    prepare: Callable[[Plan], None]
    source_stages: dict[str, Record]
    target_methods: dict[str, Record]
    files: dict[str, str]
    after: Callable[[Plan], None] = lambda plan: None
    try_next: str = ""

    def data(self, domain: str) -> dict[str, Path]:
        """The files of ``source`` or ``target``."""
        return {name: self.sample / domain / file for name, file in self.files.items()}

    def exported(self, stage: str) -> Path:
        """Where a source stage's model is put."""
        return self.runs / f"{stage}.safetensors"

    @property
    def source(self) -> Path:
        """The source model that is adapted."""
        return self.exported(list(self.source_stages)[-1])


def main() -> None:
    """Run a quickstart."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "items", nargs="?", choices=tuple(PLANS), default="text", help="what items are made of"
    )
    plan = PLANS[parser.parse_args().items]
    plan.prepare(plan)
    start: Record = {}
    for name, options in plan.source_stages.items():
        _train(plan, name, "source", options | start | {"export": plan.exported(name)})
        start = {"start_from": plan.exported(name)}
    for name, options in plan.target_methods.items():
        _train(plan, name, "target", options | {"method": name, "source_checkpoint": plan.source})
    _report(plan)
    plan.after(plan)
    _say_what_next(plan)


def _train(plan: Plan, name: str, domain: str, options: Record) -> None:
    stage = {"source": "Pretraining", "target": "Downstream"}[domain]
    settings = plan.data(domain) | {"backbone": plan.backbone, "run_folder": plan.runs / name}
    settings |= options
    arguments = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    print(f"\n== {name}")
    _run([f"{stage}.{plan.tree}.train", *arguments, "--resume"], f"the run {name}")


def _run(command: list[str], what: str) -> None:
    print(shlex.join(["python", "-m", *command]), flush=True)
    code = run([sys.executable, "-m", *command], cwd=REPOSITORY).returncode
    if code:
        raise UserError(f"{what} failed with exit code {code}; see its output above")


def _report(plan: Plan) -> None:
    results = {
        name: json.loads((plan.runs / name / "result.json").read_text("utf-8"))
        for name in plan.target_methods
    }
    table = table_of(results)
    with whole_file(plan.runs / "table.md") as aside:
        aside.write_text(table, encoding="utf-8")
    curves = {NAMES[name]: validation_history(plan.runs / name) for name in plan.target_methods}
    draw_curves(curves, plan.runs / "curves.png")
    print(f"\nTarget domain of the sample (generated, not real), test split:\n\n{table}", flush=True)


def _say_what_next(plan: Plan) -> None:
    print(f"table    {plan.runs / 'table.md'}\ncurves   {plan.runs / 'curves.png'}")
    print(f"runs     {plan.runs}, a folder each\nsample   {plan.sample}")
    print(f"backbone {REPOSITORY / 'pretrained_models' / plan.backbone}\n")
    print("Next: the same with a smaller bottleneck, by the launcher:")
    data = " ".join(
        f"--{name} ../../../{path.relative_to(REPOSITORY)}" for name, path in plan.data("target").items()
    )
    script = f"cd Downstream/{plan.tree}/script && {sys.executable} adapter_houlsby.py"
    print(f"  {script} --backbone {plan.backbone} {data} \\")
    print(f"    --source_checkpoint ../../../{plan.source.relative_to(REPOSITORY)} \\")
    print(f"    {plan.try_next} --item_bottleneck 16")
    print("or the paper's data: see README.md and Dataset/README.md")


def validation_history(folder: Path) -> list[Record]:
    """The validation records of a run's ``metrics.jsonl``."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == "validation"]


def table_of(results: dict[str, Record]) -> str:
    """Results of runs as a Markdown table."""
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


_NEW_PARTS = {"lr_item_head": 1e-3, "lr_user_encoder": 1e-3}


def _prepare_text(plan: Plan) -> None:
    fetch(plan.backbone)
    make_sample(plan.sample, SampleSettings(users=3000, target_users=1000, items=400))
    print(f"sample (generated, not real): {plan.sample}")


TEXT = Plan(
    tree="Text",
    sample=REPOSITORY / "Dataset" / "quickstart",
    runs=REPOSITORY / "runs" / "quickstart",
    backbone="minilm/all_minilm_l6_v2",
    prepare=_prepare_text,
    # The head is trained first, on states of the frozen backbone that are computed once; then everything.
    source_stages={
        "source_head": {"method": "head", "epochs": 15, **_NEW_PARTS},
        "source": {"method": "all", "epochs": 1, "lr_backbone": 1e-4, **_NEW_PARTS},
    },
    target_methods={
        "popularity": {},
        "frozen": {},
        "scratch": {"epochs": 3, "lr_backbone": 1e-4, **_NEW_PARTS},
        "houlsby": {"epochs": 3, "lr_adapter": 2e-3},
        "finetune": {"epochs": 3, "lr_backbone": 1e-4, **_NEW_PARTS},
    },
    files={"users": "users.tsv", "items": "items.tsv"},
    try_next="--batch_size 64 --lr_adapter 2e-3 --epochs 3",
)


def _prepare_images(plan: Plan) -> None:
    outcome = make_image_sample(plan.sample, SampleSettings(users=3000, target_users=1000, items=400))
    print(f"sample (generated, not real): {plan.sample}")
    for folder in (plan.sample / "source", plan.sample / "target"):
        lmdb = folder / "images.lmdb"
        if outcome is not Outcome.KEPT:
            shutil.rmtree(lmdb, ignore_errors=True)  # of other pictures, under the same names
        build(
            ImageLmdbSettings(
                items=folder / "items.tsv",
                images=folder / "images",
                into=lmdb,
                size=SIZES["image_size"],
            )
        )
    make_small_vit(REPOSITORY / "pretrained_models" / plan.backbone)
    print(f"backbone (small and untrained, the source model trains it): {plan.backbone}")


def _draw_contact_sheet(plan: Plan) -> None:
    sheet = plan.runs / "contact_sheet.png"
    _run(
        ["adapter4rec.recommend", str(plan.runs / "houlsby"), "--sheet", str(sheet), "--top-k", "8"],
        "drawing the contact sheet",
    )


IMAGE = Plan(
    tree="CV",
    sample=REPOSITORY / "Dataset" / "quickstart_image",
    runs=REPOSITORY / "runs" / "quickstart_image",
    backbone="small_vit_untrained",
    prepare=_prepare_images,
    source_stages={
        "source_head": {"method": "head", "epochs": 6, **_NEW_PARTS},
        "source": {"method": "all", "epochs": 16, "lr_backbone": 5e-4, **_NEW_PARTS},
    },
    target_methods={
        "popularity": {},
        "frozen": {},
        "scratch": {"epochs": 10, "lr_backbone": 5e-4, **_NEW_PARTS},
        "houlsby": {"epochs": 10, "lr_adapter": 2e-3},
        "finetune": {"epochs": 10, "lr_backbone": 5e-4, **_NEW_PARTS},
    },
    files={"users": "users.tsv", "items": "items.tsv", "images": "images.lmdb"},
    after=_draw_contact_sheet,
    try_next="--batch_size 64 --lr_adapter 2e-3 --epochs 10",
)

PLANS = {"text": TEXT, "image": IMAGE}

if __name__ == "__main__":
    run_main(main)
