"""The rows of the study of real data (:mod:`benchmarks.gpu_study`): settings, rates and starting points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapter4rec.checkpoints.settings import WITHOUT_MODEL

Values = dict[str, Any]

LADDER = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Factors of the learning rates: 1 and 3 are tried, then what is next to the best one."""
SEEDS = (1, 2, 3)
BASELINES = ("popularity", "item kNN")
"""Rows without a model."""
FEW, FEWER = 0.2, 0.05
"""Shares of the target's 10,000 users: 2,000, also for the search of rates, and 500."""

PASSES = {1.0: (1.0, 1), FEW: (1.5, 3), FEWER: (4.0, 6)}
"""By share of the users: factor of the epochs, and epochs between validations."""

_CHEAP = {"loss": "mixed", "negatives": 512, "epochs": 40, "patience": 8, "workers": 0}
"""Rows whose item embeddings are cheap (head, id tower); others have the loss and the epochs of the call."""
_DECAY = {"schedule": "linear", "warmup_steps": 50, "clip_norm": 1.0}
"""Rows that compute the backbone in each step: few epochs, which the decay makes good use of."""
_ALL = {"lr_backbone": 1e-4, "lr_item_head": 1e-3, "lr_user_encoder": 1e-3} | _DECAY
HEAD = {"method": "head", "lr_item_head": 1e-3, "lr_user_encoder": 1e-3} | _CHEAP
FROM_HEAD = {"method": "all"} | _ALL
"""The second step of the source model; its optimizer starts anew beside a trained head."""
_THIRD = {name: value / 3 if name.startswith("lr_") else value for name, value in _ALL.items()}
_HOULSBY = {"method": "houlsby", "item_bottleneck": 64, "lr_adapter": 3e-3} | _DECAY
_HOULSBY_AND_REST = (
    _HOULSBY
    | {"encoders": "item", "train_head": True, "train_user_encoder": True}
    | {"lr_item_head": 1e-3, "lr_user_encoder": 1e-3}
)

METHODS: dict[str, Values] = {
    "popularity": {"method": "popularity"},
    "item kNN": {"method": "item_knn"},
    "head without source": HEAD,
    "head": HEAD,
    "id tower": {"method": "id", "lr_item_head": 1e-2, "lr_user_encoder": 1e-3} | _CHEAP,
    "full fine-tuning": {"method": "finetune"} | _ALL,
    "full fine-tuning, after the head": {"method": "finetune"} | _ALL,
    "Houlsby": _HOULSBY,
    "Houlsby, head and user encoder trained": _HOULSBY_AND_REST,
    "from scratch": {"method": "scratch"} | _ALL,
    "LoRA": {"method": "lora", "lr_adapter": 3e-3} | _DECAY,
}
"""Rows of three seeds; the backbone and the user encoder are adapted unless the method says otherwise."""
SINGLE: dict[str, Values] = {
    "frozen": {"method": "frozen"},
    "Houlsby, head trained": _HOULSBY | {"train_head": True, "lr_item_head": 1e-3},
    "Houlsby, directly": _HOULSBY,
    "full fine-tuning, after the head, a third of the rates": {"method": "finetune"} | _THIRD,
    "full fine-tuning, 12 epochs": {"method": "finetune", "epochs": 12} | _ALL,
    "from scratch, 12 epochs": {"method": "scratch", "epochs": 12} | _ALL,
    "Houlsby, head and user encoder trained, 12 epochs": _HOULSBY_AND_REST | {"epochs": 12},
    "Houlsby, head and user encoder trained, without source": _HOULSBY_AND_REST,
    "full fine-tuning, without source": {"method": "finetune"} | _ALL,
    "Pfeiffer": {"method": "pfeiffer", "lr_adapter": 3e-3} | _DECAY,
    "Compacter": {"method": "compacter", "lr_adapter": 4e-3, "lr_rule": 1e-3} | _DECAY,
    "K-Adapter": {"method": "k_adapter", "item_inner": 192, "cache_frozen": True}
    | {"lr_adapter": 1e-4, "lr_item_join": 5e-4, "lr_user_join": 1e-3}
    | _DECAY,
    "BitFit": {"method": "bitfit", "lr_adapter": 1e-3} | _DECAY,
    "full fine-tuning, bce": {"method": "finetune", "loss": "bce"} | _ALL,
    "Houlsby, bce": _HOULSBY | {"loss": "bce"},
    "Houlsby, item encoder": _HOULSBY | {"encoders": "item"},
    "Houlsby, user encoder": _HOULSBY | {"encoders": "user"},
}
"""Rows of one seed, in the order of their importance."""
LOW_DATA = tuple(name for name in METHODS if name not in ("popularity", "id tower"))
"""Rows of small target domains."""
TRAINED = {
    name: values
    for name, values in (METHODS | SINGLE).items()
    if values["method"] not in (*WITHOUT_MODEL, "frozen") and "," not in name
}
"""Rows whose learning rates are searched; "Houlsby, …" has those of Houlsby."""
SOURCE = "source"
"""The source model, as what a row starts from."""


def scaled(values: Mapping[str, Any], factor: float) -> Values:
    """Settings with all learning rates multiplied by a factor."""
    return {
        name: float(f"{value * factor:.3g}") if name.startswith("lr_") else value
        for name, value in values.items()
    }


def start_of(name: str) -> str | None:
    """What a row starts from: the source model, the head of the named row on the same users, or None."""
    method, _, note = name.partition(", ")
    if method in (*BASELINES, "id tower", "head without source", "from scratch"):
        return None
    if note.endswith("without source"):
        return "head without source"
    of_source = method in ("head", "frozen", "full fine-tuning") and "after the head" not in note
    if of_source or note == "directly":
        return SOURCE
    return f"head, {note}" if note.startswith("source") else "head"


def is_cheap(name: str) -> bool:
    """Whether the item embeddings of a row are cheap, so that all rates can be tried on all users."""
    return bool(TRAINED[name].get("loss") == _CHEAP["loss"])
