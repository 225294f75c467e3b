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

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from adapter4rec.data.domain import Domain
from adapter4rec.evaluation.metrics import RANKS_FILE, RankedUsers
from adapter4rec.models.parameters import (
    ParameterCounts,
    count_parameters,
    whole_trained_state,
)
from adapter4rec.runs.curves import draw_curves
from adapter4rec.runs.identity import BEST, Identity, load_best
from adapter4rec.runs.ledger import append, finished_record, read_ledger
from adapter4rec.runs.report_lines import result_line
from adapter4rec.runs.settings import RunSettings
from adapter4rec.runs.tensorboard import require_tensorboard, write_scalars
from adapter4rec.utils.checkpoint_file import (
    write_checkpoint,
)
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY, locked_file, read_json, whole_file, write_json
from adapter4rec.utils.process_group import Process
from adapter4rec.utils.versions import versions

_MAX_LISTED = 5
_LOCK = ".lock"
Record = dict[str, Any]


@dataclass(frozen=True)
class TestResult:
    """A run's best epoch and its test.

    Attributes:
        best: the record of the epoch.
        metrics: of the test split.
        users: with their ranks there.
    """

    best: Record
    metrics: dict[str, float]
    users: RankedUsers


def open_run(settings: RunSettings, domain: Domain, model: nn.Module | None, process: Process) -> Run:
    """The run that these settings describe, its folder checked (see :class:`Run`).

    Args:
        settings: of the run.
        domain: its data.
        model: as the run begins; None where there is no model.
        process: this process.
    """
    identity = Identity.of(settings, domain, model)
    encoder = f"_{settings.backbone.rpartition('/')[2]}" if settings.uses_content else ""
    name = (
        f"{settings.kind.replace(' ', '_')}_{domain.name}_{settings.method}_{settings.objective}{encoder}"
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
        process.on_rank0(self._open)

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
        trouble = self.identity.differences(there)
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

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder.

        Raises:
            UserError: one is at work there.
        """
        with ExitStack() as held:
            self.process.on_rank0(lambda: self._lock(held))
            try:
                yield
            except KeyboardInterrupt:
                self.say("interrupted; resume with --resume")
                raise

    def _lock(self, held: ExitStack) -> None:
        def busy() -> None:
            raise UserError(f"{self.folder}: run folder is in use by another process")

        self.folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(locked_file(self.folder / _LOCK, busy))

    def begin(self, model: nn.Module | None, domain: Domain) -> None:
        """Write ``settings.json`` before anything is computed.

        The result of an earlier, shorter training is removed: it would soon be beside other weights.
        """
        counts = count_parameters(model) if model is not None else ParameterCounts(0, 0)
        if self.process.is_rank0:
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
        if self.process.is_rank0:
            print(text, flush=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
                log.writelines(f"{now} {line}\n" for line in text.splitlines())

    def finished_result(self, model: nn.Module | None = None) -> Record | None:
        """The result of a run that has finished with as many epochs as are asked for now; it is reported.

        Args:
            model: gets the weights of the best epoch.
        """

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

        result = self.process.on_rank0(read)
        if result is not None and model is not None and result["epoch"] > 0:
            self.load_best(model)
        return result

    def _report(self, result: Record) -> None:
        memory = f"peak memory {result['peak_memory_bytes'] / 2**20:,.0f} MiB"
        ks = [k for k in self.settings.ks if f"HR@{k}" in result["test"]]
        self.say(result_line(result["epoch"], result["test"], ks, memory))
        self.say(f"result: {self.folder / 'result.json'}")
        if self.warning:
            self.say(self.warning)

    @property
    def _ledger(self) -> Path:
        return self.settings.ledger_path(self.folder.absolute().parent)

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
        if self.process.is_rank0:
            write_checkpoint(self.best_path, trained, self.described(BEST, record))

    def describe_adapter(self, result: Record) -> Record:
        """What an adapter file says of the run that trained it."""
        return {"stage": self.settings.kind, "settings": self.settings.plain(), "result": result}

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
        """Load the weights of the best epoch into the model.

        Returns:
            The epoch's record.

        Raises:
            UserError: they are missing or do not fit.
        """
        return load_best(self.best_path, self.identity, model)

    def write_metrics(self, history: list[Record], test: Record | None = None) -> None:
        """Write ``metrics.jsonl`` anew, whole, and the picture of it; on the first process alone."""
        if not self.process.is_rank0:
            return
        records = history + ([test] if test else [])
        with whole_file(self.folder / "metrics.jsonl") as aside:
            aside.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        if history:
            draw_curves({self.folder.name: history}, self.folder / "curves.png")
        if self.settings.tensorboard:
            write_scalars(records, self.folder / "tensorboard")

    def finish(
        self, history: list[Record], tested: TestResult, counts: ParameterCounts, peak_memory: int
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
        if self.process.is_rank0:
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
        "processes": process.world_size,
        "threads": torch.get_num_threads(),
        "platform": sys.platform,
    }
