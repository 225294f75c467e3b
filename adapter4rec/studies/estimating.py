"""What a study's runs will take: from finished runs of the same row, else from a count of operations.

The count is rough: matrix products of the backbone at a part of the rate that this machine reaches now, and a
fixed time to begin. It tells minutes from days.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.checkpoints.rebuilding import rebuilt_settings
from adapter4rec.data.batches import TrainingSet
from adapter4rec.data.content import IdStore
from adapter4rec.data.interactions import Interactions, read_interactions, read_items
from adapter4rec.data.settings import ImageSettings
from adapter4rec.models.backbones import (
    IMAGE_ENCODERS,
    TEXT_ENCODERS,
    Kinds,
    backbone_config,
    backbone_folder,
)
from adapter4rec.models.operations import forward_operations
from adapter4rec.models.parameters import count_parameters, train_only
from adapter4rec.models.transrec import new_transrec
from adapter4rec.runs.ledger import FINISHED, Record, command_of, read_ledger
from adapter4rec.runs.settings import RunSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.machine import matrix_rate
from adapter4rec.utils.precision import choose_precision

if TYPE_CHECKING:
    from adapter4rec.studies.launching import Campaign
    from adapter4rec.studies.plan import StudyRow

_ANY_ENCODER = Kinds("item", TEXT_ENCODERS.model_types + IMAGE_ENCODERS.model_types)
_EFFICIENCY = 0.6
_BEGINNING = 15.0
"""Seconds to import, read and write, in each run."""
_TOKENS_A_WORD = 1.4
_KEPT_BYTES = 16
"""A trained parameter in float32: in the best weights, and in the last with two moments of Adam."""
_WEIGHTS_TOO = ("finetune", "scratch", "all")
_STATES_CACHED = ("head", "frozen")


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        seconds: on one device, or on all cores of a CPU.
        bytes: on disk.
        how: what it was taken from.
    """

    seconds: float
    bytes: int
    how: str


class Estimator:
    """Estimates runs of a study.

    Args:
        records: of the ledger.
    """

    def __init__(self, records: list[Record]) -> None:
        self._finished = [record for record in records if record["outcome"] == FINISHED]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def of(self, settings: RunSettings) -> Estimate:
        """What a run will take.

        Raises:
            UserError: a file that it reads is not there.
        """
        kept = _KEPT_BYTES * _trained(settings)
        wanted = _but_for_seed(settings.plain(runtime=False)) | {"epochs": settings.epochs}
        for record in self._finished:
            there = record["settings"]
            timed = record["seconds"] is not None  # runs of older versions are not
            if timed and all(there.get(name) == value for name, value in wanted.items()):
                rating = sum(epoch.get("evaluation_seconds", 0) for epoch in record["epochs"])
                return Estimate(record["seconds"] + rating + _BEGINNING, kept, "a finished run of the row")
        operations, rated = self._operations(settings)
        form = choose_precision(settings.precision, self._device).dtype
        evaluated = choose_precision(settings.evaluation_precision, self._device).dtype
        seconds = operations / self._rate(form) + rated / self._rate(evaluated)
        return Estimate(seconds + _BEGINNING, kept, "operations counted")

    def _rate(self, dtype: torch.dtype) -> float:
        return _EFFICIENCY * (self._bf16 if dtype != torch.float32 else self._fp32)

    @cached_property
    def _fp32(self) -> float:
        return matrix_rate(torch.float32, self._device)

    @cached_property
    def _bf16(self) -> float:
        return matrix_rate(torch.bfloat16, self._device)

    def _operations(self, settings: RunSettings) -> tuple[float, float]:
        """Of training, and of validation and test."""
        users = _interactions(settings.users, settings.items, settings.min_seq_len, settings.max_seq_len)
        ranking = 6.0 * users.n_users * users.n_items * settings.embedding_dim
        if not settings.uses_content:
            return 0.0, ranking * (settings.epochs + 1)
        config = backbone_config(backbone_folder(settings.backbone), _ANY_ENCODER, settings.layers)
        an_item = forward_operations(config, np.array([_length(settings, config)]))
        catalogue = an_item * users.n_items
        if settings.method in _STATES_CACHED:
            return 0.0, catalogue + ranking * (settings.epochs + 1)
        examples = TrainingSet(
            users,
            IdStore(users.n_items),
            batch_size=settings.batch_size,
            seed=settings.seed,
            predicted=lambda log_mask: log_mask,
        )
        ids = examples.ids(1, 0)
        distinct = len(np.unique(np.concatenate([ids.positives, ids.negatives], axis=1))) - 1
        steps = settings.epochs * examples.steps * settings.user_share
        passes = 3 if settings.method in _WEIGHTS_TOO else 2
        return passes * steps * distinct * an_item, (catalogue + ranking) * (settings.epochs + 1)


def _but_for_seed(plain: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in plain.items() if name != "seed"}


@lru_cache
def _interactions(users: Path, items: Path, least: int, longest: int) -> Interactions:
    return read_interactions(users, read_items(items), min_seq_len=least, max_seq_len=longest)


def _length(settings: RunSettings, config: object) -> float:
    """Tokens of an item, or patches of an image, in the mean."""
    if isinstance(settings, ImageSettings):
        side = (settings.image_size or config.image_size) // config.patch_size
        return side * side + 1
    return sum(_tokens(settings.items, name, settings.max_tokens(name)) for name in settings.attributes)


@lru_cache
def _tokens(items: Path, attribute: str, most: int) -> float:
    texts = read_items(items, (attribute,), allow_empty_titles=True).texts[attribute]
    return float(np.mean([min(most, 2 + _TOKENS_A_WORD * len(text.split())) for text in texts]))


def _trained(settings: RunSettings) -> int:
    """Parameters that a run trains."""
    users = _interactions(settings.users, settings.items, settings.min_seq_len, settings.max_seq_len)
    rebuilt = rebuilt_settings(settings.kind, settings.plain(), {})
    build_encoder = type(rebuilt).build_encoder if rebuilt.uses_content else None
    model = new_transrec(rebuilt, build_encoder, users.n_items)
    if getattr(rebuilt, "adapter", None) is not None:
        add_adapters(model, rebuilt.adapter)
    train_only(model, rebuilt.trained_parts)
    return count_parameters(model).trained


def print_plan(campaign: Campaign) -> None:
    """Print a study's runs, what is finished of them, and what the others will take together."""
    ledger = campaign.into / "ledger.jsonl"
    records = read_ledger(ledger) if ledger.exists() else []
    done = {record["key"] for record in records if record["outcome"] == FINISHED}
    estimator = Estimator(records)
    settings_of = campaign.distinct_rows()
    lines: list[tuple[float, int] | None] = []
    print(f"{campaign.study.title}\nfolder {campaign.into}\n")
    for name in campaign.wanted_sources():
        ready = campaign.checkpoint(name)
        if ready is not None:
            print(f"source {name}: {ready}")
            continue
        finished = _finished_stages(campaign, name, done)
        for number, values in enumerate(campaign.stages(name), 1):
            missing = number > finished
            what = f"source {name}, stage {number}" + ("" if missing else ": finished")
            lines.append(_line(estimator, campaign.source.from_values(values), what, int(missing)))
    for row in campaign.rows:
        finished = _finished_seeds(campaign, row, done)
        what = f"{row.label}: {len(campaign.seeds)} seeds, {finished} finished"
        settings = replace(settings_of[row.label], seed=campaign.seeds[0])
        lines.append(_line(estimator, settings, what, len(campaign.seeds) - finished))
    known = [line for line in lines if line is not None]
    hours = sum(seconds for seconds, _ in known) / 3600 / campaign.how.jobs
    kept = sum(size for _, size in known) / 2**30
    others = ", and what cannot be estimated" if len(known) < len(lines) else ""
    jobs = (
        f" with {campaign.how.jobs} runs at once, each as fast as one alone" if campaign.how.jobs > 1 else ""
    )
    print(f"\nstill to do, roughly: {hours:,.1f} hours{jobs}, {kept:,.2f} GiB of disk{others}")


def _finished_stages(campaign: Campaign, name: str, done: Collection[str]) -> int:
    """How many of a source model's stages need not be run; none where their data is not there."""
    try:
        runs, _ = campaign.source_runs(name)
    except UserError:
        return 0
    ready = [run.key in done and Path(run.settings.export).is_file() for run in runs]
    return ready.index(False) if False in ready else len(ready)


def _finished_seeds(campaign: Campaign, row: StudyRow, done: Collection[str]) -> int:
    """How many of a row's runs have finished; none where their data is not there."""
    try:
        runs = [campaign.target_run(row, seed) for seed in campaign.seeds]
    except UserError:
        return 0
    return sum(run is not None and run.key in done for run in runs)


def _line(estimator: Estimator, settings: RunSettings, what: str, count: int) -> tuple[float, int] | None:
    """Print a line about some equal runs; their seconds and bytes together, if they can be told."""
    try:
        estimate = estimator.of(settings)
    except UserError as error:
        print(f"{what}\n    cannot be estimated: {error}")
        return None
    minutes, size = estimate.seconds / 60, estimate.bytes / 2**20
    print(f"{what}; each {minutes:,.1f} min, {size:,.0f} MiB ({estimate.how})")
    print(f"    {command_of(settings)}")
    return count * estimate.seconds, count * estimate.bytes
