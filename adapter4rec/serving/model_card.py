"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapter4rec.runs.ledger import finished_runs
from adapter4rec.runs.records import Metrics, Result, RunDescription
from adapter4rec.runs.settings import RunSettings
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.portable_paths import found_paths
from adapter4rec.utils.records import read_record
from adapter4rec.utils.settings import options_of


@dataclass(frozen=True)
class Training:
    """How a model was trained, as far as its run folder records it.

    Attributes:
        domain: name of the domain.
        users: number of users.
        clicks: number of clicks.
        backbone: name of the backbone; empty for an id tower.
        epoch: the epoch of the model, the best one in validation; None if not recorded, as in the following.
        metrics: metrics of the test split, in per cent.
        trained_parameters: number of trained parameters.
        command: the command of the run.
    """

    domain: str
    users: int
    clicks: int
    backbone: str = ""
    epoch: int | None = None
    metrics: Metrics = field(default_factory=dict)
    trained_parameters: int | None = None
    command: str | None = None


def training_of(run: TrainedRun) -> Training:
    """How the model of a run was trained."""
    interactions, folder = run.domain.interactions, run.folder
    backbone = Path(run.settings.backbone).name if run.settings.uses_content else ""
    known: dict[str, Any] = {
        "domain": run.domain.name,
        "users": interactions.n_users,
        "clicks": len(interactions.clicks),
        "backbone": backbone,
    }
    if (folder / "result.json").is_file():
        result = read_record(folder / "result.json", Result)
        known |= {
            "epoch": result.epoch,
            "metrics": result.test,
            "trained_parameters": result.trained_parameters,
        }
        recorded = read_record(folder / "settings.json", RunDescription)
        values = {"ledger": recorded.settings.get("ledger")}
        places = folder, Path(recorded.folder or folder)
        ledger = found_paths(values, options_of(RunSettings), places)["ledger"]
        records = finished_runs(Path(ledger) if ledger else folder.parent / "ledger.jsonl").values()
        of_folder = [one for one in records if Path(one["folder"]) in (folder.absolute(), places[1])]
        of_name = [one for one in records if Path(one["folder"]).name == folder.name]
        for record in (of_folder or of_name)[-1:]:
            known["command"] = record["command"]
    return Training(**known)


_CARD = """---
library_name: adapter4rec
tags:
- recommender-systems
- sequential-recommendation
- adapters
---

# {name}

A recommender that learns from item content (TransRec): an item encoder maps {content} to an embedding, and a
user encoder maps a history of clicks to a prediction of the next item.

{facts}

{results}
## Use

```python
import adapter4rec

model = adapter4rec.from_pretrained("{name}")  # this folder, or its name on the Hugging Face hub
model.recommend({history}, top_k=5)
```

`adapter4rec recommend {name} --history ITEM ITEM` does the same on the command line. `items.tsv` has the
names of the items. `model.with_items(…)` adds items that the model was not trained on.
{command}
## Limits

The model recommends items of this catalogue, and new items of the same kind. It was tested by leaving out the
last click of each user, or the clicks after a date. It has learned what its users clicked, which need not be
what is good for others.
"""


def model_card(name: str, kind: str, settings: Mapping[str, Any], n_items: int, training: Training) -> str:
    """The model card, in Markdown with the metadata of the Hugging Face hub.

    Args:
        name: of the bundle.
        kind: modality and stage, as ``text target``.
        settings: settings of the run.
        n_items: number of items.
        training: how the model was trained.
    """
    modality, stage = kind.split()
    facts = {
        "kind": f"{modality} items, {stage} model",
        "domain": training.domain,
        "items, users, clicks": f"{n_items:,}, {training.users:,}, {training.clicks:,}",
        "method": settings["method"],
        "objective, loss": f"{settings['objective']}, {settings['loss']}",
        "backbone": training.backbone or "none (id tower)",
        "user encoder": settings["user_encoder"],
    }
    if training.trained_parameters is not None:
        facts["trained parameters"] = f"{training.trained_parameters:,}"
    results = ""
    if training.metrics:
        metrics = [(metric, f"{value:.2f}") for metric, value in training.metrics.items()]
        table = _table(("metric", "test (%)"), metrics)
        results = f"{table}\n\nof epoch {training.epoch}, the best in validation.\n\n"
    return _CARD.format(
        name=name,
        content="the text of an item" if modality == "text" else "the picture of an item",
        facts=_table(("", ""), facts.items()),
        results=results,
        history='["ITEM", "ITEM"]',
        command=f"\n## Training\n\n    {training.command}\n" if training.command else "",
    )


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---", "---"), *rows))
