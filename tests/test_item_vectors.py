"""Item vectors from elsewhere in place of a backbone."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from conftest import write_domain
from safetensors.numpy import save_file
from safetensors.torch import load_file
from trees import ImageSourceSettings, TextSourceSettings, TextTargetSettings, carry_out

import adapter4rec
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.data.item_vectors import read_item_vectors
from adapter4rec.datasets.files import polars_errors
from adapter4rec.models.text_encoder import build_text_encoder
from adapter4rec.runs.inputs import input_hashes
from adapter4rec.runs.ledger import run_key
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import single_process

NAMES = [f"i{number}" for number in range(8)]


@pytest.fixture
def domain(tmp_path):
    users = {
        f"u{n}": [NAMES[(3 * n + step * (1 + n % 2)) % 8] for step in range(5 + n % 3)] for n in range(12)
    }
    words = ["red house", "blue garden", "river", "football match", "oil", "snow storm", "guitar", "school"]
    return write_domain(tmp_path / "domain", users, dict(zip(NAMES, words, strict=True)))


@pytest.fixture
def common(domain, tiny_bert_folder, tmp_path):
    return {
        "users": domain[0],
        "items": domain[1],
        "backbone": str(tiny_bert_folder),
        "embedding_dim": 16,
        "lr_item_head": 1e-2,
        "epochs": 2,
        "batch_size": 4,
        "precision": "fp32",
        "device": "cpu",
        "cache_folder": tmp_path / "cache",
    }


def write(folder, suffix, names, rows):
    """Write vectors in one of the formats."""
    path = folder / f"vectors{suffix}"
    if suffix == ".parquet":
        pl.DataFrame({"item": names, "embedding": rows.tolist()}).write_parquet(path)
        return path
    path.with_suffix(".items.tsv").write_text("".join(f"{name}\ttitle\n" for name in names), "utf-8")
    if suffix == ".npy":
        np.save(path, rows)
    else:
        save_file({"items": rows, "users": rows[:2]}, path)
    return path


def with_vectors(common, tmp_path, vectors, name="on_vectors", kind=TextSourceSettings, **options):
    changed = {"run_folder": tmp_path / name, "method": "head", "backbone": "none", "item_vectors": vectors}
    return carry_out(kind.from_values(common | changed | options))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
def test_a_head_on_the_states_of_a_backbone_as_vectors_is_the_head_on_cached_states(common, tmp_path, suffix):
    settings = TextSourceSettings.from_values(common | {"method": "head", "run_folder": tmp_path / "states"})
    expected = carry_out(settings)
    from Pretraining.Text.data import read_domain

    read = read_domain(settings, single_process("cpu"))
    with torch.no_grad():
        states = build_text_encoder(settings).eval().states(read.store.fetch(np.arange(1, 9)))[:, 0].numpy()
    order = np.random.default_rng(0).permutation(8)  # the file has its own order, and further items
    names = [read.interactions.item_names[row] for row in order] + ["unknown"]
    rows = np.concatenate([states[order], np.full((1, 32), np.nan, np.float32)])
    export = tmp_path / "source.safetensors"
    vectors = write(tmp_path, suffix, names, rows)
    found = with_vectors(common, tmp_path, vectors, export=export)
    assert found["test"] == expected["test"]
    one, two = (load_file(tmp_path / name / "best.safetensors") for name in ("states", "on_vectors"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    target = {"source_checkpoint": export, "lr_user_encoder": 1e-2}
    kind = {"kind": TextTargetSettings, "name": "target"}
    adapted = with_vectors(common, tmp_path, vectors, method="houlsby", encoders="user", **kind, **target)
    assert adapted["trained_parameters"] == sum(
        tensor.numel() for tensor in load_file(tmp_path / "target" / "adapter.safetensors").values()
    )
    moved = vectors.rename(tmp_path / f"moved{suffix}")
    if suffix != ".parquet":
        (tmp_path / "vectors.items.tsv").rename(tmp_path / "moved.items.tsv")
    assert adapter4rec.load_source(export, item_vectors=moved).item_encoder.head.in_features == 32
    model = adapter4rec.load(tmp_path / "target", item_vectors=moved)
    assert len(model.recommend(["i1", "i2"], top_k=3)) == 3
    with pytest.raises(UserError, match="head on item vectors, cannot encode new content"):
        model.encode(["a title"])


def test_an_export_is_read_as_item_vectors(common, tmp_path):
    carry_out(TextSourceSettings.from_values(common | {"run_folder": tmp_path / "run"}))
    model = adapter4rec.load(tmp_path / "run")
    model.export(tmp_path / "exported.safetensors")
    vectors = read_item_vectors(tmp_path / "exported.safetensors")
    store = vectors.store_of(NAMES[:2])
    encoded = model.encode(["blue garden", "red house"])
    assert torch.allclose(store.fetch(np.array([2, 1])).states[:, 0], encoded, atol=1e-5)


def test_a_run_goes_on_with_vectors_of_image_items(common, tmp_path):
    rows = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float16)
    vectors = write(tmp_path, ".npy", NAMES, rows)
    first = with_vectors(common, tmp_path, vectors, kind=ImageSourceSettings, loss="full")
    settings = ImageSourceSettings.from_values(
        common
        | {"run_folder": tmp_path / "on_vectors", "method": "head", "backbone": "none", "loss": "full"}
        | {"item_vectors": vectors, "mode": "test"}
    )
    assert carry_out(settings)["test"] == first["test"]
    np.save(vectors, rows + 1)
    with pytest.raises(UserError, match="data: was"):
        carry_out(replace(settings, mode="train", resume=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "all"}, "--method all needs a backbone to train; use --method head"),
        ({"method": "id"}, "--method id needs no vectors"),
        ({"kind": TextTargetSettings, "method": "finetune"}, "needs a backbone to train"),
        ({"kind": TextTargetSettings, "method": "houlsby"}, "no backbone that --method houlsby could adapt"),
    ],
)
def test_methods_that_need_a_backbone_are_refused(common, tmp_path, options, message):
    vectors = write(tmp_path, ".npy", NAMES, np.ones((8, 4), np.float32))
    with pytest.raises(UserError, match=message):
        with_vectors(common, tmp_path, vectors, **options)


def broken(change):
    rows, names = np.ones((8, 4), np.float32), list(NAMES)
    return change(rows, names) or (rows, names)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, names: (rows[:-2], names[:-2]), r"2 of 8 items have no vector: i6, i7"),
        (lambda rows, names: rows.__setitem__((3, 1), np.nan), r"1 vectors hold NaN.*: i3"),
        (lambda rows, names: rows.__setitem__((0, 0), -np.inf), r"NaN or infinity.*: i0"),
        (lambda rows, names: (rows.astype(np.float64) * 1e300, names), "overflow float32"),
        (lambda rows, names: names.__setitem__(5, "i2"), r"item 'i2' has several vectors"),
        (lambda rows, names: (rows.astype(np.int64), names), "expected floating-point numbers"),
    ],
)
def test_vectors_that_cannot_be_used(common, tmp_path, suffix, change, message):
    rows, names = broken(change)
    with pytest.raises(UserError, match=message):
        with_vectors(common, tmp_path, write(tmp_path, suffix, names, rows))


def test_files_that_cannot_be_read(tmp_path):
    def refused(path, message):
        with pytest.raises(UserError, match=message):
            read_item_vectors(path)

    refused(tmp_path / "vectors.csv", "must end in .safetensors, .npy, .parquet")
    refused(tmp_path / "vectors.npy", "no such file")
    for suffix, message in ((".npy", "NumPy"), (".safetensors", "safetensors file"), (".parquet", "Parquet")):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(b"half a file")
        refused(path, message)
    rows = np.ones((3, 2), np.float32)
    with (tmp_path / "broken.npy").open("wb") as file:
        np.savez(file, rows)
    refused(tmp_path / "broken.npy", "NumPy")
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, %d)}" % 10**30
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head)
    refused(tmp_path / "broken.npy", "NumPy")
    os.mkfifo(tmp_path / "fifo.npy")
    refused(tmp_path / "fifo.npy", "found a FIFO")
    path = write(tmp_path, ".npy", ["a", "b"], rows)
    refused(path, "3 vectors, but 2 item names")
    path.with_suffix(".items.tsv").unlink()
    refused(path, r"vectors\.items\.tsv, which does not exist")
    np.save(path, rows[0])
    path.with_suffix(".items.tsv").write_text("a\nb\n")
    refused(path, r"expected floating-point numbers \[items, h\]")
    save_file({"one": rows, "two": rows}, tmp_path / "two.safetensors")
    refused(tmp_path / "two.safetensors", "'items', or a single one; found one, two")
    frame = pl.DataFrame({"item": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]})
    frame.write_parquet(tmp_path / "ragged.parquet")
    refused(tmp_path / "ragged.parquet", "differ in length")
    frame.rename({"item": "name"}).write_parquet(tmp_path / "nameless.parquet")
    refused(tmp_path / "nameless.parquet", "expected a column 'item'")
    pl.DataFrame({"item": ["a"], "v": [[1.0, None]]}).write_parquet(tmp_path / "null.parquet")
    with pytest.raises(UserError, match="NaN"):
        read_item_vectors(tmp_path / "null.parquet").store_of(["a"])
    pl.DataFrame({"item": ["a"], "v": [["x"]]}).write_parquet(tmp_path / "words.parquet")
    refused(tmp_path / "words.parquet", "one column of lists of numbers")
    array = pl.Series("v", [[1.0, 2.0]], dtype=pl.Array(pl.Float32, 2))
    pl.DataFrame({"item": ["a"], "v": array}).write_parquet(tmp_path / "array.parquet")
    assert read_item_vectors(tmp_path / "array.parquet").rows.tolist() == [[1.0, 2.0]]


def test_names_are_read_as_in_items_tsv(tmp_path):
    """A byte order mark, CRLF, and letters in composed form."""
    np.save(tmp_path / "v.npy", np.ones((2, 2), np.float32))
    (tmp_path / "v.items.tsv").write_bytes("\ufeffe\u0301\ttitle\r\nb\r\n".encode())
    assert read_item_vectors(tmp_path / "v.npy").names == ["\u00e9", "b"]


def test_a_panic_of_polars_is_refused(tmp_path, monkeypatch):
    def panics(_):
        raise pl.exceptions.PanicException("called `Option::unwrap()`")

    monkeypatch.setattr(pl, "read_parquet", panics)
    (tmp_path / "v.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"v\.parquet: not a Parquet file"):
        read_item_vectors(tmp_path / "v.parquet")
    with pytest.raises(UserError, match="clicks: damaged"), polars_errors("clicks"):
        panics(None)


def test_an_own_family_may_adapt_the_user_encoder_alone(common, tmp_path, monkeypatch):
    vectors = write(tmp_path, ".npy", NAMES, np.ones((8, 4), np.float32))
    monkeypatch.setitem(FAMILIES, "own", FAMILIES["houlsby"])
    options = {"method": "own", "encoders": "user", "backbone": "none", "item_vectors": vectors}
    settings = TextTargetSettings.from_values(common | options | {"source_checkpoint": "s.safetensors"})
    assert settings.adapter.encoders == ("user",)


def test_a_change_of_the_names_of_the_rows_is_another_run(common, tmp_path):
    vectors = write(tmp_path, ".npy", NAMES, np.ones((8, 4), np.float32))
    values = common | {"method": "head", "backbone": "none", "item_vectors": vectors}
    settings = TextSourceSettings.from_values(values)
    before = run_key(settings)
    names = vectors.with_suffix(".items.tsv")
    names.write_text("".join(reversed(names.read_text().splitlines(keepends=True))))
    assert run_key(settings) != before


def test_a_source_model_that_a_method_does_not_read_may_be_missing(common):
    settings = TextTargetSettings.from_values(
        common | {"method": "popularity", "source_checkpoint": "no_such_file.safetensors"}
    )
    assert set(input_hashes(settings)) == {"users", "items"}
