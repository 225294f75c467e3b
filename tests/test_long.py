"""Every loss with every objective and modality, from a launcher, on one and two processes; one on four."""

import json
import os
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from conftest import REPOSITORY, write_domain
from PIL import Image

from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.models.registry import LOSSES, OBJECTIVES

pytestmark = pytest.mark.long
USERS, ITEMS, SIDE = 24, 30, 16
LAUNCHERS = {
    "text": "Pretraining/Text/script/sm_base_sasrec.py",
    "image": "Pretraining/CV/script/sm_vit_sasrec.py",
}


@pytest.fixture(scope="module")
def domains(tmp_path_factory, tiny_bert_folder, tiny_vit_folder):
    """Files and backbone of a small domain, by modality."""
    chance = np.random.default_rng(0)
    clicks = {f"u{u}": [f"i{i}" for i in chance.integers(0, ITEMS, 8)] for u in range(USERS)}
    folder = tmp_path_factory.mktemp("domain")
    (folder / "images").mkdir()
    for item in range(ITEMS):
        pixels = np.full((SIDE, SIDE, 3), chance.integers(0, 256, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"i{item}.png")
    users, items = write_domain(
        folder, clicks, {f"i{i}": ("red house", "blue snow")[i % 2] for i in range(ITEMS)}
    )
    lmdb = folder / "images.lmdb"
    build(ImageLmdbSettings(items, lmdb, folder / "images", size=SIDE, workers=1))
    files = {"users": users, "items": items}
    return {
        "text": files | {"backbone": tiny_bert_folder},
        "image": files | {"backbone": tiny_vit_folder, "images": lmdb},
    }


@pytest.mark.parametrize(
    ("modality", "loss", "objective", "processes"),
    [*product(LAUNCHERS, LOSSES, OBJECTIVES, (1, 2)), ("text", "mixed", "sasrec", 4)],
)
def test_a_launcher_trains_with_each_loss(domains, tmp_path, modality, loss, objective, processes):
    options = domains[modality] | {
        "loss": loss,
        "objective": objective,
        "method": "head" if loss == "full" else "all",
        "accumulation_steps": 2,
        "max_seq_len": 6,
        "embedding_dim": 8,
        "batch_size": 8,
        "epochs": 1,
        "device": "cpu",
        "export": "none",
        "cache_folder": tmp_path / "cache",
        "run_folder": tmp_path / "run",
        "processes": processes,
    }
    if loss not in ("in_batch", "full"):
        options["negatives"] = 5
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(REPOSITORY / LAUNCHERS[modality]), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    losses = [
        json.loads(line).get("loss") for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert np.isfinite(losses[0])
