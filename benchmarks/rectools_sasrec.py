"""SASRec of RecTools on the same split, a reference from outside. It needs an environment of its own.

    python -m venv .venv-rectools && .venv-rectools/bin/pip install "rectools[torch]"
    .venv-rectools/bin/python benchmarks/rectools_sasrec.py FOLDER --loss softmax --lr 1e-3 --seed 1

FOLDER has ``users.tsv``. Users with fewer than 5 clicks are dropped, and the last 23 clicks of each user are
kept, as in this project. The last click is the test target, the click before it the validation target. After
each epoch the model ranks all items for all users; items of the history are left out. The test is that of the
epoch with the highest validation HR@10. One JSON line is appended to ``--output``.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning_fabric import seed_everything
from pytorch_lightning import Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

KEPT, LEAST = 23, 5


def read_clicks(users: Path) -> pd.DataFrame:
    """The clicks of each user, oldest first, with their distance from the end."""
    rows = []
    for line in users.read_text("utf-8").splitlines():
        user, clicks = line.split("\t")
        items = clicks.split()
        if len(items) >= LEAST:
            kept = items[-KEPT:]
            rows += [(user, item, position, len(kept) - position) for position, item in enumerate(kept)]
    return pd.DataFrame(rows, columns=[Columns.User, Columns.Item, "position", "left"])


def dataset(clicks: pd.DataFrame) -> Dataset:
    """A dataset of RecTools; the order of the clicks is kept in their time."""
    times = pd.Timestamp("2020-01-01") + pd.to_timedelta(clicks["position"], unit="D")
    return Dataset.construct(clicks[[Columns.User, Columns.Item]].assign(weight=1, datetime=times))


def metrics(model: SASRecModel, clicks: pd.DataFrame, target: int) -> dict[str, float]:
    """HR@10 and NDCG@10 in per cent; ``target`` is the distance of the target from the end."""
    history, targets = clicks[clicks["left"] > target], clicks[clicks["left"] == target]
    known = dataset(history)
    listed = model.recommend(targets[Columns.User].to_numpy(), known, k=10, filter_viewed=True)
    found = targets.merge(listed, on=[Columns.User, Columns.Item])[Columns.Rank]
    gains = 1 / np.log2(found + 1)
    return {"HR@10": 100 * len(found) / len(targets), "NDCG@10": 100 * gains.sum() / len(targets)}


def trainer() -> Trainer:
    """Without files and progress bars."""
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return Trainer(max_epochs=1, accelerator="cpu", **quiet)


def main() -> None:
    """Train and test one model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loss", default="softmax", choices=("softmax", "BCE", "gBCE", "sampled_softmax"))
    parser.add_argument("--negatives", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--patience", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rectools.jsonl"))
    how = parser.parse_args()
    torch.set_num_threads(how.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    clicks = read_clicks(how.folder / "users.tsv")
    train = dataset(clicks[clicks["left"] > 2])
    seed_everything(how.seed)
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=how.width,
        dropout_rate=how.dropout,
        session_max_len=20,
        loss=how.loss,
        n_negatives=how.negatives,
        gbce_t=0.75,
        lr=how.lr,
        batch_size=64,
        get_trainer_func=trainer,
    )
    best: dict[str, object] = {"validation": {"HR@10": -1.0}, "epoch": 0}
    started = time.monotonic()
    for epoch in range(1, how.epochs + 1):
        model.fit_partial(train, min_epochs=1, max_epochs=1)
        found = metrics(model, clicks, 2)
        print(f"epoch {epoch}: {found}", flush=True)
        if found["HR@10"] > best["validation"]["HR@10"]:
            best = {"epoch": epoch, "validation": found, "test": metrics(model, clicks, 1)}
        if epoch - best["epoch"] >= how.patience:
            break
    settings = {name: str(value) for name, value in vars(how).items() if name not in ("output", "folder")}
    record = {
        "model": "RecTools SASRec",
        "data": how.folder.name,
        "settings": settings,
        "epochs": epoch,
        **best,
    }
    record["seconds"] = round(time.monotonic() - started)
    with how.output.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
