"""A run's folder: what was asked, what came out, and the weights to go on from.

::

    settings.json         settings, data, versions, hardware, parameters
    metrics.jsonl         a record each epoch, and one of the test
    result.json           the test of the best epoch, with time, memory and trained parameters
    test_ranks.csv.gz     the rank of each user's target in that test (metrics.py)
    tensorboard/          the scalars of metrics.jsonl for TensorBoard, where it is asked for
    log.txt               what was printed
    curves.png            loss and validation metrics over the epochs
    best.safetensors      trained weights of the epoch with the highest validation HR@10
    adapter.safetensors   of a run with adapters: the same, for use apart from the run (adapters/files.py)
    last.safetensors      the state to go on from

A finished run leaves a line in the ledger beside its folder (ledger.py).
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from adapter4rec.models.weights import load_into
from adapter4rec.utils.checkpoint_file import (
    read_checkpoint,
    read_description,
    weights_hash,
    write_checkpoint,
)
from adapter4rec.runs.curves import draw_curves
from adapter4rec.utils.process_group import Process
from adapter4rec.domains import Domain
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY, locked_file, read_json, whole_file, write_json
from adapter4rec.runs.ledger import append, finished_record, read_ledger
from adapter4rec.evaluation.metrics import RANKS_FILE, RankedUsers
from adapter4rec.utils.settings import plain_value
from adapter4rec.stages import RunSettings
from adapter4rec.runs.tensorboard import require_tensorboard, write_scalars
from adapter4rec.training.optimizer import ParameterCounts, trained_state, whole_trained_state
from adapter4rec.utils.versions import versions

_MAX_LISTED = 5
_BEST = "trained weights"
_LOCK = ".lock"
Record = dict[str, Any]


@dataclass(frozen=True)
class Tested:
    """A run's best epoch and its test.

    Attributes:
        best: the record of the epoch.
        metrics: of the test split.
        users: with their ranks there.
    """

    best: Record
    metrics: dict[str, float]
    users: RankedUsers


@dataclass(frozen=True)
class Identity:
    """What a run computes. Runs with equal identities give equal results on equal devices and processes.

    Attributes:
        stage: ``source`` or ``target``, and the modality.
        settings: all but the runtime options.
        data: hash of what is read of the domain.
        start: hash of the weights that the run starts from; None where there is no model.
    """

    stage: str
    settings: Record
    data: str
    start: str | None

    def short_hash(self) -> str:
        """Eight characters that differ for other identities."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    def differences(self, other: Any) -> list[str]:
        """Which parts another identity (as JSON) has otherwise."""
        if not isinstance(other, dict) or not isinstance(other.get("settings"), dict):
            return ["it does not say which"]
        mine = asdict(self)
        trouble = [
            f"{name}: {other.get(name)} there, {mine[name]} now"
            for name in ("stage", "data", "start")
            if mine[name] != other.get(name)
        ]
        there = other["settings"]
        return trouble + [
            f"--{name}: {there.get(name)} there, {self.settings.get(name)} now"
            for name in dict.fromkeys([*there, *self.settings])
            if there.get(name) != self.settings.get(name)
        ]


def open_run(
    stage: str, settings: RunSettings, domain: Domain, model: nn.Module | None, process: Process
) -> Run:
    """The run that these settings describe, its folder checked (see :class:`Run`).

    Args:
        stage: modality and stage, as ``text source``.
        settings: of the run.
        domain: its data.
        model: as the run begins; None where there is no model.
        process: this process.
    """
    weights = None if model is None else weights_hash(model.state_dict())
    identity = Identity(stage, settings.plain(runtime=False), domain.identity, weights)
    encoder = f"_{settings.backbone.rpartition('/')[2]}" if settings.uses_content else ""
    name = (
        f"{stage.replace(' ', '_')}_{domain.name}_{settings.method}_{settings.objective.value}{encoder}"
        f"_seed{settings.seed}"
    )
    return Run(settings, identity, name, process, domain.interactions.warning())


class Run:
    """A run's folder, opened for training or testing. Only the first process writes.

    Args:
        settings: of the run.
        identity: of the run; a folder that belongs to another is refused.
        name: what the run is; part of the default folder's name.
        process: this process.
        warning: about the data; printed when the run begins and again with its result.

    Raises:
        UserError: the folder belongs to another run, or holds a run and neither resuming nor testing is
            asked for, or there is no run to test.
    """

    def __init__(
        self,
        settings: RunSettings,
        identity: Identity,
        name: str,
        process: Process,
        warning: str | None = None,
    ) -> None:
        self.settings = settings
        self.warning = warning
        self.identity = identity
        self.process = process
        self.folder = Path(settings.run_folder or REPOSITORY / "runs" / f"{name}_{identity.short_hash()}")
        self.best_path = self.folder / "best.safetensors"
        self.last_path = self.folder / "last.safetensors"
        if settings.tensorboard:
            require_tensorboard()
        process.first_decides(self._open)

    def _open(self) -> None:
        description = self.folder / "settings.json"
        if not description.is_file():
            if self.settings.mode == "test":
                raise UserError(f"{self.folder}: no run there to test")
            if self.folder.exists() and (not self.folder.is_dir() or _holds_files(self.folder)):
                raise UserError(
                    f"{self.folder}: holds something other than a run; choose another --run_folder"
                )
            return
        there = read_json(description, ("identity",))["identity"]
        trouble = self._differences(there)
        if trouble:
            raise UserError(
                f"{self.folder}: this run folder belongs to other settings; choose another --run_folder\n  "
                + "\n  ".join(trouble[:_MAX_LISTED])
            )
        begun = self.last_path.exists() or (self.folder / "result.json").exists()
        if begun and self.settings.mode == "train" and not self.settings.resume:
            raise UserError(
                f"{self.folder}: this run is there already; go on with --resume, test it with --mode test, "
                "or remove the folder"
            )

    def _differences(self, there: Any) -> list[str]:
        """As :meth:`Identity.differences`; what a run of an older version does not say is at its default."""
        if isinstance(there, dict) and isinstance(there.get("settings"), dict):
            options = type(self.settings).options({"method": self.settings.method})
            defaults = {name: plain_value(one.default) for name, one in options.items() if not one.runtime}
            there = there | {"settings": defaults | there["settings"]}
        return self.identity.differences(there)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder.

        Raises:
            UserError: one is at work there.
        """
        with ExitStack() as held:
            self.process.first_decides(lambda: self._lock(held))
            yield

    def _lock(self, held: ExitStack) -> None:
        def busy() -> None:
            raise UserError(f"{self.folder}: another process is at work on this run; wait for it, or stop it")

        self.folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked_file(self.folder / _LOCK, busy))

    def begin(self, counts: ParameterCounts, domain: Domain) -> None:
        """Write what the run is, before it computes or says anything.

        The result of an earlier, shorter training goes: it would soon stand beside other weights.
        """
        if self.process.is_first:
            (self.folder / "result.json").unlink(missing_ok=True)
            there = domain.interactions
            write_json(
                self.folder / "settings.json",
                {
                    "identity": asdict(self.identity),
                    "settings": self.settings.plain(),
                    "domain": {
                        "name": domain.name,
                        "users": there.n_users,
                        "items": there.n_items,
                        "clicks": len(there.clicks),
                    },
                    "parameters": asdict(counts),
                    "versions": versions(),
                    "hardware": _hardware(self.process),
                },
            )
        self.say(f"run folder: {self.folder}")
        self.say(f"{counts.trained:,} of {counts.total:,} parameters are trained ({counts.share:.2f} %)")
        self.say(f"{domain.name}: {domain.interactions.describe()}")
        if self.warning:
            self.say(self.warning)

    def say(self, text: str) -> None:
        """Print a line and keep it in the log, on the first process alone."""
        if self.process.is_first:
            print(text, flush=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
                log.write(text + "\n")

    def finished_result(self) -> Record | None:
        """The run's result, if it has finished and was asked for as many epochs as now; it is reported."""

        def read() -> Record | None:
            path = self.folder / "result.json"
            if not path.is_file():
                return None
            result = read_json(path, ("asked_epochs", "epoch", "test", "peak_memory_bytes"))
            if result["asked_epochs"] < self.settings.epochs:
                return None
            self._report(result)
            self._enter_in_ledger()
            return result

        return self.process.first_decides(read)

    def _report(self, result: Record) -> None:
        """Say what a finished run found."""
        test = result["test"]
        self.say(
            f"{self.folder}: test of epoch {result['epoch']}: HR@10 {test['HR@10']:.4f} %  "
            f"NDCG@10 {test['NDCG@10']:.4f} %; peak memory {result['peak_memory_bytes'] / 2**20:,.0f} MiB"
        )
        if self.warning:
            self.say(self.warning)

    @property
    def _ledger(self) -> Path:
        return self.settings.ledger or self.folder.absolute().parent / "ledger.jsonl"

    def _enter_in_ledger(self) -> None:
        """Leave a line about a run that finished before, unless there is one already."""
        record = finished_record(self.folder, self.settings)
        what = ("outcome", "key", "folder")
        known = read_ledger(self._ledger) if self._ledger.exists() else []
        if not any(all(there.get(name) == record[name] for name in what) for there in known):
            append(self._ledger, record)

    def save_best(self, model: nn.Module, record: Record) -> None:
        """Keep the trained weights of the best epoch so far."""
        trained = whole_trained_state(model)
        if self.process.is_first:
            write_checkpoint(self.best_path, trained, self.described(_BEST, record))

    def described(self, what: str, record: Record) -> Record:
        """The description that stands in a checkpoint of this run."""
        return {
            "what": what,
            "run": self.folder.name,
            "identity": asdict(self.identity),
            "record": record,
            "versions": versions(),
        }

    def load_best(self, model: nn.Module) -> Record:
        """Put the best epoch's weights into the model; its record.

        Raises:
            UserError: they are missing or do not fit.
        """
        description = self.own_description(self.best_path, _BEST)
        load_into(model, read_checkpoint(self.best_path).tensors, self.best_path, trained_state(model))
        return description["record"]

    def own_description(self, path: Path, what: str) -> Record:
        """The description of a checkpoint, after making sure that this run wrote it as ``what``.

        Raises:
            UserError: it is missing, damaged, something else, or of another run.
        """
        description = read_description(path)
        if description["what"] != what or self._differences(description.get("identity")):
            raise UserError(
                f"{path}: holds {description['what']!r} of another run or kind, not this run's {what}"
            )
        return description

    def write_metrics(self, history: list[Record], test: Record | None = None) -> None:
        """Write ``metrics.jsonl`` anew, whole, and the picture of it; on the first process alone."""
        if not self.process.is_first:
            return
        records = history + ([test] if test else [])
        with whole_file(self.folder / "metrics.jsonl") as aside:
            aside.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        if history:
            draw_curves({self.folder.name: history}, self.folder / "curves.png")
        if self.settings.tensorboard:
            write_scalars(records, self.folder / "tensorboard")

    def finish(
        self, history: list[Record], tested: Tested, counts: ParameterCounts, peak_memory: int
    ) -> Record:
        """Write the run's result and enter it in the ledger; a run without ``result.json`` has not finished.

        Args:
            history: a record for each epoch.
            tested: the epoch that was tested, and how its test went.
            counts: of the model's parameters.
            peak_memory: in bytes.

        Returns:
            The result.
        """
        times = [record["seconds"] for record in history if "seconds" in record]
        best, test = tested.best, tested.metrics
        result = {
            "asked_epochs": self.settings.epochs,
            "epoch": best["epoch"],
            "validation": {name: best[name] for name in test if name in best},
            "test": test,
            "groups": tested.users.groups(self.settings.ks),
            "trained_parameters": counts.trained,
            "trained_share": counts.share,
            "seconds_per_epoch": float(np.median(times)) if times else None,
            "seconds": float(sum(times)),
            "peak_memory_bytes": peak_memory,
        }
        self.write_metrics(history, {"epoch": best["epoch"], "split": "test", **test})
        if self.process.is_first:
            tested.users.write(self.folder / RANKS_FILE)
            write_json(self.folder / "result.json", result)
            self._report(result)
            append(self._ledger, finished_record(self.folder, self.settings))
        return result


def _holds_files(folder: Path) -> bool:
    """Whether there is anything but what a run may leave that was stopped before it began."""
    return any(not path.name.endswith(".part") and path.name != _LOCK for path in folder.iterdir())


def _hardware(process: Process) -> Record:
    cuda = process.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(process.device) if cuda else platform.machine() or "cpu",
        "processes": process.count,
        "threads": torch.get_num_threads(),
        "platform": sys.platform,
    }
