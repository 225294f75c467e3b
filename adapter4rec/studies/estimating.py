"""Estimates of time and disk space of a study's runs.

An estimate is taken from a finished run of the same row if there is one. Otherwise it is computed from the
number of operations: matrix products of the backbone at a fraction of the rate measured on this machine, plus
a fixed startup time. It is accurate to an order of magnitude.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

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
    backbone_config,
    backbone_folder,
)
from adapter4rec.models.operations import forward_operations
from adapter4rec.models.parameters import count_parameters, train_only
from adapter4rec.models.transrec import new_transrec
from adapter4rec.report.wording import plural
from adapter4rec.runs.ledger import FINISHED, Record, command_of, read_ledger
from adapter4rec.runs.settings import RunSettings
from adapter4rec.studies.campaign import Campaign
from adapter4rec.studies.plan import StudyRow
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.machine import matmul_rate
from adapter4rec.utils.precision import choose_precision

_ANY_ENCODER = TEXT_ENCODERS + IMAGE_ENCODERS
_EFFICIENCY = 0.6
_STARTUP_SECONDS = 15.0
"""Time per run for imports and for reading and writing files."""
_TOKENS_PER_WORD = 1.4
_BYTES_PER_PARAMETER = 16
"""float32: the best weights, and the last ones with the two moments of Adam."""
_TRAIN_BACKBONE = ("finetune", "scratch", "all")
_STATES_CACHED = ("head", "frozen")


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a run.

    Attributes:
        seconds: on one device, or on all cores of a CPU.
        bytes: disk space.
        how: what the estimate is based on.
    """

    seconds: float
    bytes: int
    how: str


class Estimator:
    """Estimates the cost of runs.

    Args:
        records: records of the study's ledger.
    """

    def __init__(self, records: list[Record]) -> None:
        self._finished = [record for record in records if record["outcome"] == FINISHED]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def of(self, settings: RunSettings) -> Estimate:
        """Estimate the cost of a run.

        Raises:
            UserError: a file that the run reads is missing.
        """
        kept = _BYTES_PER_PARAMETER * _trained(settings)
        expected = _without_seed(settings.plain(runtime=False)) | {"epochs": settings.epochs}
        for record in self._finished:
            recorded = record["settings"]
            timed = record["seconds"] is not None
            if timed and all(recorded.get(name) == value for name, value in expected.items()):
                evaluation = sum(epoch.get("evaluation_seconds", 0) for epoch in record["epochs"])
                seconds = record["seconds"] + evaluation + _STARTUP_SECONDS
                return Estimate(seconds, kept, "from a finished run of the row")
        training, evaluation = self._operations(settings)
        training_dtype = choose_precision(settings.precision, self._device).dtype
        evaluation_dtype = choose_precision(settings.evaluation_precision, self._device).dtype
        seconds = training / self._rate(training_dtype) + evaluation / self._rate(evaluation_dtype)
        return Estimate(seconds + _STARTUP_SECONDS, kept, "from the number of operations")

    def _rate(self, dtype: torch.dtype) -> float:
        return _EFFICIENCY * (self._bf16 if dtype != torch.float32 else self._fp32)

    @cached_property
    def _fp32(self) -> float:
        return matmul_rate(torch.float32, self._device)

    @cached_property
    def _bf16(self) -> float:
        return matmul_rate(torch.bfloat16, self._device)

    def _operations(self, settings: RunSettings) -> tuple[float, float]:
        """Operations of training, and of validation and test."""
        users = _interactions(settings.users, settings.items, settings.min_seq_len, settings.max_seq_len)
        ranking = 6.0 * users.n_users * users.n_items * settings.embedding_dim
        if not settings.uses_content:
            return 0.0, ranking * (settings.epochs + 1)
        config = backbone_config(backbone_folder(settings.backbone), _ANY_ENCODER, settings.layers)
        per_item = forward_operations(config, np.array([_length(settings, config)]))
        catalogue = per_item * users.n_items
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
        passes = 3 if settings.method in _TRAIN_BACKBONE else 2  # with or without gradients of the weights
        return passes * steps * distinct * per_item, (catalogue + ranking) * (settings.epochs + 1)


def _without_seed(plain: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in plain.items() if name != "seed"}


@lru_cache
def _interactions(users: Path, items: Path, least: int, longest: int) -> Interactions:
    return read_interactions(users, read_items(items), min_seq_len=least, max_seq_len=longest)


def _length(settings: RunSettings, config: object) -> float:
    """Mean number of tokens of an item, or number of patches of an image."""
    if isinstance(settings, ImageSettings):
        side = (settings.image_size or config.image_size) // config.patch_size
        return side * side + 1
    return sum(_tokens(settings.items, name, settings.max_tokens(name)) for name in settings.attributes)


@lru_cache
def _tokens(items: Path, attribute: str, most: int) -> float:
    texts = read_items(items, (attribute,), allow_empty_titles=True).texts[attribute]
    return float(np.mean([min(most, 2 + _TOKENS_PER_WORD * len(text.split())) for text in texts]))


def _trained(settings: RunSettings) -> int:
    """Number of parameters that a run trains."""
    users = _interactions(settings.users, settings.items, settings.min_seq_len, settings.max_seq_len)
    rebuilt = rebuilt_settings(settings.kind, settings.plain(), {})
    build_encoder = type(rebuilt).build_encoder if rebuilt.uses_content else None
    model = new_transrec(rebuilt, build_encoder, users.n_items)
    if getattr(rebuilt, "adapter", None) is not None:
        add_adapters(model, rebuilt.adapter)
    train_only(model, rebuilt.trained_parts)
    return count_parameters(model).trained


def print_plan(campaign: Campaign) -> None:
    """Print the runs of a study, which of them are finished, and an estimate of the remaining cost."""
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
        what = f"{row.label}: {plural(len(campaign.seeds), 'seed')}, {finished} finished"
        settings = replace(settings_of[row.label], seed=campaign.seeds[0])
        lines.append(_line(estimator, settings, what, len(campaign.seeds) - finished))
    known = [line for line in lines if line is not None]
    hours = sum(seconds for seconds, _ in known) / 3600 / campaign.how.jobs
    kept = sum(size for _, size in known) / 2**30
    unknown = len(lines) - len(known)
    others = f", not counting {plural(unknown, 'entry', 'entries')} without estimate" if unknown else ""
    jobs = (
        f" with {campaign.how.jobs} runs in parallel, if they do not slow each other down"
        if campaign.how.jobs > 1
        else ""
    )
    print(f"\nremaining, roughly: {hours:,.1f} hours{jobs}, {kept:,.2f} GiB of disk space{others}")


def _finished_stages(campaign: Campaign, name: str, done: Collection[str]) -> int:
    """Number of finished stages of a source model; 0 if its data is missing."""
    try:
        runs, _ = campaign.source_runs(name)
    except UserError:
        return 0
    ready = [run.key in done and Path(run.settings.export).is_file() for run in runs]
    return ready.index(False) if False in ready else len(ready)


def _finished_seeds(campaign: Campaign, row: StudyRow, done: Collection[str]) -> int:
    """Number of finished runs of a row; 0 if its data is missing."""
    try:
        runs = [campaign.target_run(row, seed) for seed in campaign.seeds]
    except UserError:
        return 0
    return sum(run is not None and run.key in done for run in runs)


def _line(estimator: Estimator, settings: RunSettings, what: str, count: int) -> tuple[float, int] | None:
    """Print one line on ``count`` equal runs. Returns their total seconds and bytes; None if unknown."""
    try:
        estimate = estimator.of(settings)
    except UserError as error:
        print(f"{what}\n    no estimate: {error}")
        return None
    minutes, size = estimate.seconds / 60, estimate.bytes / 2**20
    print(f"{what}; each {minutes:,.1f} min, {size:,.0f} MiB ({estimate.how})")
    print(f"    {command_of(settings)}")
    return count * estimate.seconds, count * estimate.bytes
