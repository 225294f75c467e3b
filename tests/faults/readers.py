"""Every reader of files from outside, with valid files to start from.

A reader must end with its result or with one of ``REFUSALS``: no other exception, no code of the file, no
hang.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save

from adapter4rec.checkpoints.source_models import read_source_model
from adapter4rec.data.cached_table import computed_table
from adapter4rec.data.images.database import Description
from adapter4rec.data.images.decoding import BrokenImageError, decoded
from adapter4rec.data.images.released import released_image
from adapter4rec.data.interactions import read_interactions, read_items
from adapter4rec.data.item_vectors import read_item_vectors
from adapter4rec.data.text import cached_arrays
from adapter4rec.datasets.files import polars_errors, scan_files
from adapter4rec.datasets.options import FileSettings
from adapter4rec.models.backbones import IMAGE_ENCODERS, TEXT_ENCODERS, backbone_config, image_size
from adapter4rec.models.weights import read_tensors
from adapter4rec.report.results import read_studies
from adapter4rec.report.significance import NotComparableError, read_ranks
from adapter4rec.runs.ledger import read_ledger
from adapter4rec.runs.records import Result, RunDescription, read_metrics
from adapter4rec.training.state import Progress
from adapter4rec.utils.checkpoint_file import read_checkpoint, save_tensors
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.records import Object, checked_in, read_record

REFUSALS = (UserError, BrokenImageError, NotComparableError)


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Attributes:
        name: for the tests.
        file: name of the file.
        seeds: contents of valid files.
        read: reads the file at a path.
        memory_mb: how much it may allocate; 200 MiB are 210 MB, and decoders need some in addition.
    """

    name: str
    file: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], Any]
    memory_mb: int = 200

    def try_bytes(self, folder: Path, content: bytes) -> Any:
        """Read a file with this content; None if it was refused."""
        path = folder / self.file
        path.write_bytes(content)
        try:
            return self.read(path)
        except REFUSALS:
            return None


IDENTITY = {"stage": "text target", "settings": {"method": "houlsby", "seed": 1}, "data": "0f", "start": None}
HARDWARE = {"device": "cpu", "processes": 1, "threads": 1, "platform": "linux"}
DOMAIN = {"name": "d", "users": 9, "items": 8, "clicks": 70}
EPOCH = {"epoch": 1, "split": "validation", "loss": 0.5, "HR@10": 12.5}
GROUPS = {"history length": [{"group": "up to 4", "users": 3, "HR@10": 1.5}]}
RUN = {
    "identity": IDENTITY,
    "settings": {"method": "houlsby", "seed": 1},
    "domain": DOMAIN,
    "parameters": {"trained": 10, "total": 100},
    "versions": {"python": "3.11"},
    "hardware": HARDWARE,
}
RESULT = {
    "requested_epochs": 1,
    "epoch": 1,
    "validation": {"HR@10": 12.5},
    "test": {"HR@10": 11.5},
    "groups": GROUPS,
    "trained_parameters": 10,
    "trained_share": 10.0,
    "seconds_per_epoch": 1.5,
    "seconds": 1.5,
    "peak_memory_bytes": 1 << 20,
}
COMMON = {"ledger": 1, "key": "k", "stage": "text target", "name": "n", "settings": {"users": "a/users.tsv"}}
COMMON |= {"identity": {"method": "houlsby"}, "seed": 1, "folder": "/nowhere", "command": "python"}
FAILED = COMMON | {"outcome": "failed", "exit_code": 1, "message": "no memory"}
FINISHED = COMMON | {"outcome": "finished", "data": "0f", "start": None, "epochs": [EPOCH], "best_epoch": 1}
FINISHED |= {"domain": DOMAIN, "versions": {"python": "3.11"}, "hardware": HARDWARE, "groups": GROUPS}
FINISHED |= {"parameters": {"trained": 10, "total": 100, "share": 10.0}}
FINISHED |= {name: RESULT[name] for name in ("validation", "test", "seconds_per_epoch", "seconds")}
FINISHED |= {"peak_memory_bytes": 1 << 20}
PLANNED = {"seed": 1, "key": "k", "folder": "", "command": ""}
PLAN = {"study": "s", "title": "t", "about": "a", "command": "c", "reference": "r", "groups": True}
PLAN |= {"scale": {"label": "x"}, "rows": [{"section": "", "name": "r", "scale": None, "runs": [PLANNED]}]}
PROGRESS = asdict(Progress(2, 1, 0.5, 1.0, 0.1, [EPOCH], EPOCH, "fp32"))
CONFIG = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE_CONFIG = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGE_CONFIG |= {"image_size": [16, 16], "patch_size": [4, 4]}


def lines(*records: Any) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


class LMDB_Image:  # noqa: N801 (its name in the released scripts)
    """A record of the released scripts."""

    def __init__(self) -> None:
        self.channels, self.size, self.image, self.id = 3, (2, 2), bytes(range(12)), 7


def _picture(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).convert(mode).save(file, kind)
    return file.getvalue()


def _checkpoint(what: str, **description: Any) -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder, "a.safetensors")
        save_tensors(path, {"a": torch.arange(4.0)}, {"what": what, "objective": "sasrec"} | description)
        return path.read_bytes()


def _pickled(content: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _read_users(path: Path) -> Any:
    items = path.with_name("listed.tsv")
    items.write_text("".join(f"i{number}\tt\n" for number in range(9)))
    return read_interactions(path, read_items(items), min_seq_len=5, max_seq_len=5)


def _read_report(path: Path) -> Any:
    return [study.sections[0].rows if study.sections else None for study in read_studies([path])]


def _read_plan(path: Path) -> Any:
    ledger = path.with_name("ledger.jsonl")
    ledger.write_bytes(lines(FINISHED))
    return [study.headline for study in read_studies([ledger])]


def _read_progress(path: Path) -> Any:
    progress = checked_in(path, read_record(path, Object), Progress, exact=True)
    return progress.fault()


def _read_description(path: Path) -> Any:
    return Description.from_bytes(path.read_bytes(), path).size


def _read_released(path: Path) -> Any:
    return released_image(path.read_bytes(), str(path))


def _read_table(path: Path) -> Any:
    scratch = path.with_name("scratch")
    scratch.mkdir(exist_ok=True)
    settings = FileSettings(interactions=(path,))
    with polars_errors(str(path)):
        return scan_files([path], settings, scratch, []).collect()


def _read_vectors(path: Path) -> Any:
    path.with_suffix(".items.tsv").write_bytes(b"a\nb\n")
    return read_item_vectors(path).rows.sum()


def _npy(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def _parquet(**columns: list[Any]) -> bytes:
    """Written by another process: polars starts threads, which a process that is forked later lacks."""
    code = f"import polars, sys; polars.DataFrame({columns!r}).write_parquet(sys.stdout.buffer)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout


def _read_ranks(path: Path) -> Any:
    read_ranks.cache_clear()
    return read_ranks(str(path.parent))


def _read_config(path: Path) -> Any:
    config = backbone_config(path.parent, (*TEXT_ENCODERS, *IMAGE_ENCODERS))
    return image_size(config) if config.model_type in IMAGE_ENCODERS else None


def _read_cache(path: Path) -> Any:
    return cached_arrays(path, lambda: {"a": np.zeros(1)}, lambda _: None)


def _read_states(path: Path) -> Any:
    zeros = torch.zeros(1, 1, dtype=torch.float32)
    table = computed_table(path.parent, (1, 1), torch.float32, [1], lambda _: zeros, lambda _: None)
    assert table.shape == (1, 1)
    return table


ROWS = np.ones((2, 3), np.float32)
DESCRIPTION = Description({"size": 4}, 1, (b"i",), "0f")
RANKS = b"user,history,target,target_clicks,rank\nu1,4,i1,3,1\nu2,5,i2,3,17\n"
PICTURE_MB = 230
CSV = b"user,item,time\nu1,i1,5\nu1,i2,6\n"
PICTURES = (
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("JPEG", "RGB"),
    ("GIF", "P"),
    ("TIFF", "RGB"),
    ("WEBP", "RGB"),
    ("BMP", "L"),
)
READERS = (
    Reader("settings.json", "settings.json", (lines(RUN),), lambda path: read_record(path, RunDescription)),
    Reader("result.json", "result.json", (lines(RESULT),), lambda path: read_record(path, Result)),
    Reader("metrics.jsonl", "metrics.jsonl", (lines(EPOCH, EPOCH | {"split": "test"}),), read_metrics),
    Reader("ledger", "ledger.jsonl", (lines(FINISHED), lines(FAILED)), read_ledger),
    Reader("report of a ledger", "ledger.jsonl", (lines(FINISHED), lines(FAILED)), _read_report),
    Reader("study.json", "study.json", (lines(PLAN),), _read_plan),
    Reader("progress of a run", "progress.json", (lines(PROGRESS),), _read_progress),
    Reader("checkpoint", "a.safetensors", (_checkpoint("adapter", family="lora"),), read_checkpoint),
    Reader("source model", "s.safetensors", (_checkpoint("source model"),), read_source_model),
    Reader(
        "released checkpoint",
        "r.pt",
        (
            _pickled({"model_state_dict": {"model.a": torch.ones(2)}}),
            _pickled({"model_state_dict": {"a": torch.ones(2)}}, False),
        ),
        read_source_model,
    ),
    Reader("tensors", "t.bin", (_pickled({"a": torch.ones(2)}),), read_tensors),
    Reader("cache of tokens", "c.safetensors", (save({"a": np.zeros(1)}),), _read_cache),
    Reader("cache of states", "rows.bin", (bytes(4),), _read_states),
    Reader(
        "image LMDB",
        "description",
        (Description({"size": 4}, 1, (b"i",), "0f").to_bytes(),),
        _read_description,
    ),
    Reader(
        "released LMDB", "record", (pickle.dumps(LMDB_Image()), pickle.dumps(LMDB_Image(), 3)), _read_released
    ),
    Reader("users.tsv", "users.tsv", (b"u1\ti1 i2 i3 i4 i5 i6\nu2\ti1 i2 i3 i4 i5\n",), _read_users),
    Reader(
        "items.tsv",
        "items.tsv",
        ("i1\tsnow\nbl\u00e5\ttitle\n".encode(), b"\xef\xbb\xbfi1\ta\tb\tc\r\n"),
        lambda path: read_items(path, ("title",)),
    ),
    Reader(
        "table",
        "table",
        (
            CSV,
            gzip.compress(CSV, mtime=0),
            lines({"user": "u1", "item": "i1"}),
            CSV.decode().encode("utf-16"),
        ),
        _read_table,
    ),
    Reader(
        "table, Parquet", "table.parquet", (_parquet(user=["u1"] * 3, item=["a", "b", "a"]),), _read_table
    ),
    Reader("item vectors, NumPy", "v.npy", (_npy(ROWS),), _read_vectors),
    Reader("item vectors", "v.safetensors", (save({"items": ROWS}),), _read_vectors),
    Reader(
        "item vectors, Parquet",
        "v.parquet",
        (_parquet(item=["a", "b"], vector=ROWS.tolist()),),
        _read_vectors,
    ),
    Reader(
        "test ranks",
        "test_ranks.csv.gz",
        (gzip.compress(RANKS, mtime=0),),
        _read_ranks,
    ),
    Reader("config.json", "config.json", (lines(CONFIG), lines(IMAGE_CONFIG)), _read_config),
    *(
        Reader(f"picture, {kind} {mode}", "picture", (_picture(kind, mode),), decoded, PICTURE_MB)
        for kind, mode in PICTURES
    ),
)
