"""The run folder: settings, metrics, results and checkpoints of a run.

::

    settings.json         settings, data, versions, hardware, number of parameters
    metrics.jsonl         one record per epoch, and one for the test
    result.json           test metrics of the best epoch, time, memory, trained parameters
    test_ranks.csv.gz     rank of each user's target in the test (metrics.py)
    tensorboard/          TensorBoard logs, with --tensorboard
    log.txt               log messages with time stamps
    curves.png            loss and validation metrics over the epochs, drawn at the end or at an interruption
    recommendations.png   contact sheet of the best run on images of a sweep or study (studies/launching.py)
    best.safetensors      trained weights of the epoch with the highest validation HR@10
    adapter.safetensors   the same as a stand-alone adapter file, for runs with adapters (adapters/files.py)
    last.safetensors      training state, to resume from
    previous.safetensors  the training state before it, in case that ``last`` is damaged

A finished run appends a record to the ledger next to its folder (ledger.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np

from adapter4rec.data.domain import Domain
from adapter4rec.evaluation.metrics import RANKS_FILE, RankedUsers
from adapter4rec.models.parameters import ParameterCounts, count_parameters, trained_state
from adapter4rec.models.transrec import TransRec
from adapter4rec.runs.curves import draw_curves
from adapter4rec.runs.identity import BEST, Identity, initial_hash, load_best
from adapter4rec.runs.inputs import changed_inputs, input_hashes
from adapter4rec.runs.ledger import (
    append,
    finished_record,
    read_ledger,
    require_writable,
    validation_history,
)
from adapter4rec.runs.nearest import nothing_to_resume
from adapter4rec.runs.records import (
    SHEET_FILE,
    Record,
    Result,
    RunDescription,
    RunResult,
    stopping_epoch,
)
from adapter4rec.runs.report_lines import opening_lines, result_line
from adapter4rec.runs.settings import RunSettings
from adapter4rec.runs.tensorboard import ScalarLog
from adapter4rec.utils.checkpoint_file import write_checkpoint
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import (
    REPOSITORY,
    atomic_file,
    locked_file,
    remove_abandoned,
    require_regular,
    write_json,
)
from adapter4rec.utils.machine import hardware, peak_memory
from adapter4rec.utils.portable_paths import relative_paths
from adapter4rec.utils.process_group import Process
from adapter4rec.utils.records import read_record
from adapter4rec.utils.versions import versions

_MAX_LISTED = 5
_LOCK, _LOG = ".lock", "log.txt"


class Run:
    """A run folder, opened for training or testing. Only rank 0 writes.

    Args:
        settings: settings of the run.
        domain: its data.
        model: with its initial weights; None without a model.
        process: this process.

    Attributes:
        identity: identity of the run, compared with that of an existing folder.
        counts: number of parameters of the model.
        warning: about the data; printed at the start and with the result.

    Raises:
        UserError: the folder belongs to another run, contains a run that is neither to be resumed nor tested,
            or contains no run to test.
    """

    def __init__(
        self, settings: RunSettings, domain: Domain, model: TransRec | None, process: Process
    ) -> None:
        self.settings = settings
        self.process = process
        self.warning = domain.interactions.warning()
        start = None if model is None else initial_hash(model)
        defining = settings.plain(runtime=False)
        if not settings.extendable:
            defining["epochs"] = settings.epochs
        self.identity = Identity(settings.kind, defining, domain.identity, start)
        self.counts = count_parameters(model) if model is not None else ParameterCounts(0, 0)
        self.folder = settings.run_folder or self._default_folder(domain.name)
        self.best_path = self.folder / "best.safetensors"
        self.last_path = self.folder / "last.safetensors"
        self.previous_path = self.folder / "previous.safetensors"
        self._scalars = ScalarLog(self.folder / "tensorboard") if settings.tensorboard else None
        process.on_rank0(self._open)

    def _default_folder(self, domain: str) -> Path:
        kind = self.settings.kind.replace(" ", "_")
        encoder = f"_{self.settings.backbone.rpartition('/')[2]}" if self.settings.uses_content else ""
        if self.settings.item_vectors is not None:
            encoder = f"_{self.settings.item_vectors.stem}"
        name = f"{kind}_{domain}_{self.settings.method}_{self.settings.objective}{encoder}"
        return REPOSITORY / "runs" / f"{name}_seed{self.settings.seed}_{self.identity.short_hash()}"

    def _open(self) -> None:
        description = self.folder / "settings.json"
        if not description.is_file():
            if self.settings.resume and self.settings.mode == "train":
                named = self.settings.run_folder is not None
                print(nothing_to_resume(self.folder, self.identity, named=named), flush=True)
            if self.settings.mode == "test":
                raise UserError(f"{self.folder}: no run to test")
            if self.folder.exists() and (not self.folder.is_dir() or _has_files(self.folder)):
                raise UserError(f"{self.folder}: not empty and not a run folder; choose another --run_folder")
            return
        recorded = read_record(description, RunDescription)
        if differences := self.identity.differences(recorded.identity):
            changed = [f"changed: {file}" for file in changed_inputs(recorded.files, self.settings)]
            raise UserError(
                f"{self.folder}: run folder of a run with other settings; choose another --run_folder\n  "
                + "\n  ".join([*differences[:_MAX_LISTED], *changed])
            )
        files = self.last_path, self.previous_path, self.folder / "result.json"
        started = any(path.exists() for path in files)
        resumed = self.settings.resume or self.process.restarted
        if started and self.settings.mode == "train" and not resumed:
            raise UserError(
                f"{self.folder}: run already exists; resume it with --resume, test it with --mode test, "
                "or remove the folder"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder; raise a UserError if another process has locked it."""

        def busy() -> None:
            raise UserError(f"{self.folder}: run folder is in use by another process")

        def lock() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked_file(self.folder / _LOCK, busy))
            remove_abandoned(self.folder)

        with ExitStack() as stack:
            self.process.on_rank0(lock)
            try:
                yield
            except KeyboardInterrupt:
                self.log(f"interrupted; to resume, repeat the command with --resume ({self.folder})")
                if self.process.is_rank0 and (self.folder / "metrics.jsonl").exists():
                    self._draw_curves()
                raise

    def begin(self, domain: Domain) -> None:
        """Write ``settings.json`` and log what is trained.

        Raises:
            UserError: the ledger cannot be written.
        """
        self.process.on_rank0(lambda: require_writable(self.settings.ledger_path))
        if self.process.is_rank0:
            interactions = domain.interactions
            write_json(
                self.folder / "settings.json",
                {
                    "identity": asdict(self.identity),
                    **self._recorded_settings(),
                    "domain": {
                        "name": domain.name,
                        "users": interactions.n_users,
                        "items": interactions.n_items,
                        "clicks": len(interactions.clicks),
                    },
                    "parameters": asdict(self.counts),
                    "files": input_hashes(self.settings),
                    "versions": versions(),
                    "hardware": hardware(self.process.device, self.process.world_size),
                },
            )
        self.log(f"run folder: {self.folder}")
        for line in opening_lines(self.settings, self.counts) if self.process.is_rank0 else ():
            self.log(line)
        self.log(f"{domain.name}: {domain.interactions.describe()}")
        if self.warning:
            self.log(self.warning)

    def log(self, text: str) -> None:
        """Print a message and append it to ``log.txt``, on rank 0 only."""
        if self.process.is_rank0:
            self.folder.mkdir(parents=True, exist_ok=True)
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            path = self.folder / _LOG
            if path.exists():
                require_regular(path)  # writing to a FIFO would wait for a reader
            with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
                log.writelines(f"{now} {line}\n" for line in text.splitlines())
            with suppress(BrokenPipeError):  # nobody reads the output any more
                print(text, flush=True)

    def finished_result(self, model: TransRec | None = None) -> RunResult | None:
        """Report and return the result of a finished run: all epochs, or as many as its patience allows.

        Its record is appended to the ledger, unless the ledger has it.

        Args:
            model: if given, the weights of the best epoch are loaded into it.

        Raises:
            UserError: more epochs were trained than ``settings.patience`` allows.
        """

        def read() -> RunResult | None:
            path = self.folder / "result.json"
            if not path.is_file():
                return None
            result = RunResult(asdict(read_record(path, Result)), self.folder)
            record = finished_record(self.folder, self.settings)
            if self.counts.trained and not self._is_complete(record["epochs"]):
                return None
            self._report(result)
            if missing := [f"HR@{k}" for k in self.settings.ks if f"HR@{k}" not in result["test"]]:
                self.log(f"not measured: {', '.join(missing)}; --mode test measures them")
            compared = ("outcome", "key", "folder")
            known = read_ledger(self.settings.ledger_path) if self.settings.ledger_path.exists() else []
            if not any(all(other.get(name) == record[name] for name in compared) for other in known):
                append(self.settings.ledger_path, record)
            return result

        result = self.process.on_rank0(read)
        if result is not None and model is not None and self.counts.trained:
            self.load_best(model)
        return result

    def _is_complete(self, history: Sequence[Record]) -> bool:
        return self.stopped(history) or history[-1]["epoch"] >= self.settings.epochs

    def stopped(self, history: Sequence[Record]) -> bool:
        """Whether training ends after these epochs because of ``--patience``.

        Raises:
            UserError: it would have ended earlier.
        """
        trained, patience = len(history), self.settings.patience
        last = stopping_epoch(history, patience)
        if last is not None and last < trained:
            raise UserError(
                f"{self.folder}: trained for {trained} epochs, but --patience {patience} stops after {last}; "
                "choose another --run_folder"
            )
        return last is not None

    def remove_result(self) -> None:
        """Remove the results of an earlier training with fewer epochs, before the weights change."""
        if self.process.is_rank0:
            for name in ("result.json", SHEET_FILE):
                (self.folder / name).unlink(missing_ok=True)

    def _report(self, result: Record) -> None:
        memory = f"peak memory {result['peak_memory_bytes'] / 2**20:,.0f} MiB"
        ks = [k for k in self.settings.ks if f"HR@{k}" in result["test"]]
        self.log(result_line(result["epoch"], result["test"], ks, memory))
        self.log(f"result: {self.folder / 'result.json'}")
        if self.warning:
            self.log(self.warning)

    def save_best(self, model: TransRec, record: Record) -> None:
        """Save the trained weights of the best epoch so far, on rank 0."""
        if self.process.is_rank0:
            write_checkpoint(self.best_path, trained_state(model), self.describe(BEST, record))

    def _recorded_settings(self) -> Record:
        """The settings as files of this run record them."""
        return {"folder": str(self.folder.absolute()), "settings": relative_paths(self.settings, self.folder)}

    def describe_adapter(self, result: Record) -> Record:
        """The description of this run for an adapter file."""
        return {"stage": self.settings.kind, **self._recorded_settings(), "result": result}

    def describe(self, what: str, record: Record) -> Record:
        """The description of a checkpoint of this run; ``what`` is its kind, ``record`` epoch or progress."""
        return {
            "what": what,
            "run": self.folder.name,
            "identity": asdict(self.identity),
            **self._recorded_settings(),
            "record": record,
            "versions": versions(),
        }

    def load_best(self, model: TransRec) -> Record:
        """Load the weights of the best epoch into the model.

        Returns:
            The epoch's record.

        Raises:
            UserError: the checkpoint is missing or does not match the model.
        """
        return load_best(self.best_path, self.identity, model)

    def write_metrics(self, records: Sequence[Record]) -> None:
        """Rewrite ``metrics.jsonl`` atomically, on rank 0 only."""
        if not self.process.is_rank0:
            return
        with atomic_file(self.folder / "metrics.jsonl") as aside:
            aside.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        if self._scalars is not None:
            self._scalars.write(records)

    def _draw_curves(self) -> None:
        history = validation_history(self.folder)
        if history and history[-1]["epoch"] > 0:
            draw_curves({self.folder.name: self.folder}, self.folder / "curves.png")

    def finish(
        self, history: Sequence[Record], best: Record, test: dict[str, float], users: RankedUsers
    ) -> RunResult:
        """Write ``result.json``, which marks the run as finished, and append the ledger record.

        Args:
            history: records of the epochs.
            best: record of the best epoch.
            test: its metrics on the test split, in per cent.
            users: its per-user results.

        Returns:
            The content of ``result.json``.
        """
        times = [record["seconds"] for record in history if "seconds" in record]
        result = {
            "requested_epochs": self.settings.epochs,
            "epoch": best["epoch"],
            "validation": {name: best[name] for name in test if name in best},
            "test": test,
            "groups": users.groups(self.settings.ks),
            "trained_parameters": self.counts.trained,
            "trained_share": self.counts.share,
            "seconds_per_epoch": float(np.median(times)) if times else None,
            "seconds": float(sum(times)),
            "peak_memory_bytes": peak_memory(self.process.device),
        }
        self.write_metrics([*history, {"epoch": best["epoch"], "split": "test", **test}])
        if self.process.is_rank0:
            users.write(self.folder / RANKS_FILE)
            write_json(self.folder / "result.json", result)
            append(self.settings.ledger_path, finished_record(self.folder, self.settings))
            self._draw_curves()
            self._report(result)
        return RunResult(result, self.folder)


def _has_files(folder: Path) -> bool:
    """Whether a folder has files other than those of a run that stopped before it started."""
    of_start = (_LOCK, _LOG)
    return any(not path.name.endswith(".part") and path.name not in of_start for path in folder.iterdir())
