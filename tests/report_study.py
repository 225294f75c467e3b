"""A study that never ran, for the tests of reports: its study.json, its ledger, and ranks of its users."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from adapter4rec.evaluation.metrics import RankedUsers, metrics_of
from adapter4rec.runs.ledger import append

USERS = [f"U{number}" for number in range(200)]
VERSIONS = {"python": "3.11.7", "torch": "2.14.1", "transformers": "5.17.0", "numpy": "2.4.6"}
RUNTIME = ("users", "epochs", "run_folder", "threads")
"""Settings that are no part of a record's ``identity``."""
HARDWARE = {"device": "x86_64", "processes": 1, "threads": 1, "platform": "linux"}


def ranks_of(hit_rate, seed, users=200):
    """Ranks of which about ``hit_rate`` per cent are among the first ten."""
    draw = np.random.default_rng(seed)
    far = draw.integers(11, 1000, users)
    return np.where(draw.random(users) < hit_rate / 100, draw.integers(1, 11, users), far)


def run_record(ledger: Path, name, ranks, seed=1, key=None, **changes):
    """Append a finished run to a ledger, and write its ranks; its key."""
    folder = ledger.parent / name
    history = np.arange(len(ranks)) % 12 + 1
    clicks = np.arange(len(ranks)) % 40
    users = RankedUsers(USERS[: len(ranks)], history, ["I1"] * len(ranks), clicks, np.asarray(ranks))
    users.write(folder / "test_ranks.csv.gz")
    test = metrics_of(np.asarray(ranks), (5, 10)) | {"coverage@10": 12.5}
    key = key or name
    settings = {"users": "data/Instruments/users.tsv", "method": "houlsby", "epochs": 3, "lr_adapter": 1e-3}
    settings |= {"seed": seed, "run_folder": str(folder)} | changes.pop("settings", {})
    record = {
        "outcome": "finished",
        "key": key,
        "stage": "text target",
        "name": name,
        "settings": settings,
        "identity": identity_of(settings),
        "seed": seed,
        "folder": str(folder),
        "command": f"python -m Downstream.Text.train --method houlsby --seed {seed}",
        "data": "0123456789abcdef",
        "start": None,
        "domain": {"name": "Instruments", "users": len(ranks), "items": 1000, "clicks": 5 * len(ranks)},
        "versions": VERSIONS,
        "hardware": HARDWARE,
        "epochs": validation_records(test["HR@10"], changes.pop("trained_epochs", 3)),
        "best_epoch": 3,
        "validation": {"HR@10": test["HR@10"] + 1},
        "test": test,
        "groups": users.groups((10,)),
        "parameters": {"share": 2.5, "trained": 603_712, "total": 23_000_000},
        "seconds_per_epoch": 40.0,
        "seconds": 120.0,
        "peak_memory_bytes": 1000 * 2**20,
    }
    append(ledger, record | changes)
    return key


def identity_of(settings):
    """The settings that decide what a run computes."""
    return {name: value for name, value in settings.items() if name not in RUNTIME}


def validation_records(reached, epochs):
    """A curve that comes near what the test reached."""
    if epochs == 0:
        return [{"epoch": 0, "split": "validation", "HR@10": reached, "NDCG@10": reached / 2}]
    return [
        {
            "epoch": epoch,
            "split": "validation",
            "loss": 1 / epoch,
            "seconds": 40.0,
            "HR@10": reached * (1 - 0.5**epoch),
            "NDCG@10": reached * (1 - 0.5**epoch) / 2,
        }
        for epoch in range(1, epochs + 1)
    ]


def failure(ledger: Path, name, key, message="RuntimeError: no memory", exit_code=1, *, method="houlsby"):
    """Append a failed run to a ledger."""
    settings = {"users": "data/Instruments/users.tsv", "method": method, "epochs": 3, "lr_adapter": 1e-3}
    settings |= {"seed": 1}
    append(
        ledger,
        {
            "outcome": "failed",
            "key": key,
            "stage": "text target",
            "name": name,
            "settings": settings,
            "identity": identity_of(settings),
            "seed": 1,
            "folder": str(ledger.parent / name),
            "command": "python -m Downstream.Text.train --method houlsby",
            "exit_code": exit_code,
            "message": message,
        },
    )


def row(name, keys, section="", scale=None):
    """A planned row with a run for each key, seeds from 1."""
    return {
        "section": section,
        "name": name,
        "scale": scale,
        "runs": [
            {
                "seed": seed,
                "key": key,
                "folder": "/nowhere",
                "command": f"python -m planned --seed {seed}",
            }
            for seed, key in enumerate(keys, 1)
        ],
    }


def write_plan(folder: Path, rows, **changes):
    """Write a study.json."""
    plan = {
        "study": "study_test",
        "title": "A study",
        "about": "What it shows.\n\nAnd more.",
        "command": "python study_test.py --sample",
        "reference": "full fine-tuning",
        "groups": False,
        "scale": None,
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(plan | changes), "utf-8")
