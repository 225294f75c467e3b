"""Correctness and speed on a GPU. Without a GPU, a small version runs on the CPU.

``python -m benchmarks.gpu`` compares losses, gradients, ranks and compiled layers with the CPU in float32,
times training steps in bf16 with and without ``torch.compile``, and estimates the time of source training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.data.batches import Batch
from adapter4rec.data.content import ContentStore
from adapter4rec.data.images.store import Pixels
from adapter4rec.data.interactions import Interactions
from adapter4rec.data.loader import load_ahead
from adapter4rec.evaluation.catalogue import Embeddings
from adapter4rec.evaluation.ranking import EvalBatch, rank_targets
from adapter4rec.models.layers import can_compile_layers, compile_layers
from adapter4rec.models.parameters import train_only
from adapter4rec.models.transrec import TransRec
from adapter4rec.training.step import train_step
from adapter4rec.utils.errors import UserError, reason_of, run_main
from adapter4rec.utils.machine import peak_memory
from adapter4rec.utils.precision import choose_precision
from adapter4rec.utils.process_group import Process, prepare_cuda
from benchmarks.measuring import Measurement, arguments, machine, matmul_rate, parsed, report
from benchmarks.models import (
    BACKBONES,
    domain_folder,
    houlsby_operations,
    image_model,
    read_domain,
    small_model,
    text_model,
)
from benchmarks.steps import ProjectSteps, examples_of, lengths_of

USERS = {"text": 630_000, "image": 500_000}
"""Number of users of MIND and H&M."""
NAMES = {"text": "MIND", "image": "H&M"}
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Scale:
    """Size of the benchmark.

    Attributes:
        device: device to run on.
        layers: number of backbone layers.
        batches: users per step, by modality.
        warm_up: untimed steps; three times as many with compiled layers.
        steps: timed steps.
        workers: number of data loader workers.
    """

    device: torch.device
    layers: int
    batches: dict[str, tuple[int, ...]]
    warm_up: int
    steps: int
    workers: int


def scale_of(options: argparse.Namespace) -> Scale:
    """Full size on a GPU, small on a CPU or with ``--small``."""
    if torch.cuda.is_available() and not options.small:
        batches = {"text": (64, 128, 256, 512), "image": (32, 64, 128)}
        return Scale(torch.device("cuda", 0), options.layers, batches, 5, 20, 4)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else _CPU
    return Scale(device, min(2, options.layers), {"text": (4,), "image": (2,)}, 1, 2, 0)


class RandomPixels(ContentStore):
    """A store of random images in memory."""

    def __init__(self, n_items: int, size: int = 224) -> None:
        self.n_items, self.size = n_items, size
        self._pool = torch.randint(0, 256, (64, size, size, 3), dtype=torch.uint8)

    def fetch(self, items: np.ndarray) -> Pixels:
        """Pixels of ``items``, uint8 ``[n, size, size, 3]``."""
        return Pixels(self._pool[torch.from_numpy(items % len(self._pool))])


def _data(modality: str) -> tuple[Interactions, ContentStore]:
    tokens = 16_384 if torch.cuda.is_available() else 4096
    interactions, titles = read_domain(domain_folder(), 20 if modality == "text" else 10, tokens)
    return interactions, titles if modality == "text" else RandomPixels(interactions.n_items)


def _model(modality: str, layers: int, adapter: HoulsbyConfig | None) -> TransRec:
    if modality == "text":
        return text_model(adapter, layers)
    model = image_model(adapter, layers)
    model.item_encoder.images_at_once = None
    return model


def _batch(interactions: Interactions, store: ContentStore, users: int, objective: str) -> Batch:
    return examples_of(interactions, store, users, objective=objective)[1, 0]


def checks(scale: Scale) -> Iterator[tuple[str, float, float]]:
    """Compare with the CPU in float32. Yields name, largest difference and tolerance of each check."""
    for kind, modality in BACKBONES.items():
        interactions, store = _data(modality)
        for objective in ("sasrec", "cpc"):
            batch = _batch(interactions, store, 4, objective)
            for family in ("finetune", *FAMILIES):
                what = f"{kind}, {objective}, {family}"
                try:
                    expected = _losses_and_gradients(kind, family, objective, batch, _CPU)
                except UserError as error:
                    print(f"-      {what}: {error}")
                    continue
                found = _losses_and_gradients(kind, family, objective, batch, scale.device)
                yield f"{what}: loss and gradients", _difference(found, expected), 2e-3
    yield from _checks_of_ways(scale)
    yield "ranks", *_ranks_differ(scale)


def _built(kind: str, family: str, objective: str) -> TransRec:
    model = small_model(kind).eval()
    model.objective = objective
    torch.manual_seed(0)
    if family == "finetune":
        train_only(model, ("backbone", "item_head", "user_encoder"))
    else:
        add_adapters(model, FAMILIES[family]())
    return model


def _losses_and_gradients(
    kind: str, family: str, objective: str, batch: Batch, device: torch.device, way: str = "fp32"
) -> dict[str, torch.Tensor]:
    model = _built(kind, family, objective).to(device)
    if way == "recompute":
        model.item_encoder.recompute = True
    if way == "compile":
        compile_layers(model.item_encoder.backbone)
    precision = choose_precision(way if way in ("bf16", "fp16") else "fp32", device)
    with precision.frozen_weights(model.item_encoder), precision.autocast():
        loss = model(batch.to(device))
    loss.backward()
    grown = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch._dynamo.reset()
    return {name: tensor.detach().float().cpu() for name, tensor in (grown | {"loss": loss}).items()}


def _difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference over all tensors, relative to the largest absolute value of the tensor.

    Some gradients are zero up to rounding (biases of key projections), so the denominator is at least one
    thousandth of the largest absolute value over all tensors.
    """
    least = 1e-3 * max(float(tensor.abs().max()) for tensor in expected.values())
    return max(
        float((found[name] - expected[name]).abs().max() / expected[name].abs().max().clamp(min=least))
        for name in expected
    )


def _checks_of_ways(scale: Scale) -> Iterator[tuple[str, float, float]]:
    half = ("bf16", "fp16") if scale.device.type == "cuda" else ("bf16",)
    compiled = [("compile", 2e-3)] if can_compile_layers() else []
    ways = [("houlsby", *way) for way in (("recompute", 2e-3), *compiled, *((form, 0.3) for form in half))]
    ways += [(family, *way) for family in ("finetune", "prompt", "bitfit") for way in compiled]
    for kind in ("bert", "vit"):
        interactions, store = _data(BACKBONES[kind])
        batch = _batch(interactions, store, 4, "sasrec")
        for family, way, allowed in ways:
            expected = _losses_and_gradients(kind, family, "sasrec", batch, _CPU)
            found = _losses_and_gradients(kind, family, "sasrec", batch, scale.device, way)
            yield f"{kind}, {family}, {way}: loss and gradients", _difference(found, expected), allowed


def _ranks_differ(scale: Scale) -> tuple[float, float]:
    chance = np.random.default_rng(0)
    torch.manual_seed(0)
    users, table = torch.randn(1000, 64), torch.randn(20_001, 64)
    rows = np.repeat(np.arange(1000), 5)
    question = EvalBatch(
        np.zeros((1000, 1), np.int64),
        chance.integers(1, 20_001, 1000),
        rows,
        chance.integers(1, 20_001, len(rows)),
    )
    one = rank_targets(users, Embeddings(table), question)
    two = rank_targets(users.to(scale.device), Embeddings(table.to(scale.device)), question)
    return float(np.abs(one - two).max()), 2.0


def timed_steps(
    scale: Scale, modality: str, batch: int, *, compiled: bool, whole: bool = False
) -> Measurement:
    """Time training steps in bf16, with Houlsby adapters or of all weights (``whole``)."""
    interactions, store = _data(modality)
    model = _model(modality, scale.layers, None if whole else HoulsbyConfig()).train().to(scale.device)
    if whole:
        train_only(model, ("backbone", "item_head", "user_encoder"))
    if compiled:
        compile_layers(model.item_encoder.backbone)
    examples = examples_of(interactions, store, batch)
    steps = ProjectSteps(model, examples, "bf16", Process(0, 1, scale.device))
    cuda = scale.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    whole_batches = interactions.n_users // batch  # the last, short one is left out
    before = scale.warm_up * (3 if compiled else 1)
    loader = load_ahead(
        examples.__getitem__,
        [(1, number % whole_batches) for number in range(before + scale.steps)],
        workers=scale.workers,
        prefetch=2,
        pin_memory=cuda,
    )
    waited, useful, started = 0.0, 0.0, time.perf_counter()
    config = model.item_encoder.backbone.config
    for number in range(before + scale.steps):
        if number == before:
            waited, useful, started = 0.0, 0.0, time.perf_counter()
        requested = time.perf_counter()
        loaded = next(loader)
        waited += time.perf_counter() - requested
        useful += houlsby_operations(config, lengths_of(loaded))
        # It returns the loss on the CPU, so that the clock sees all of it.
        train_step(steps.setup, loaded, (1, 1, number))
    seconds = time.perf_counter() - started
    rate = matmul_rate(torch.bfloat16, scale.device, 8192 if cuda else 2048)
    what = "all weights" if whole else "Houlsby"
    return Measurement(
        f"{modality}, {what}, {batch} users per step" + (", compiled" if compiled else ""),
        seconds / scale.steps,
        share=None if whole else useful / seconds / rate,
        memory=torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_memory() / 2**20,
        more={
            "sequences per second": round(batch * scale.steps / seconds, 1),
            "input wait, %": round(100 * waited / seconds, 1),
        },
    )


def extrapolated(scale: Scale, modality: str) -> Measurement:
    """Estimate the hours per epoch of source training on MIND or H&M."""
    row = timed_steps(scale, modality, scale.batches[modality][0], compiled=False, whole=True)
    rate = row.more["sequences per second"]
    row.more[f"hours per epoch of {NAMES[modality]}'s {USERS[modality]:,} users"] = round(
        USERS[modality] / rate / 3600, 2
    )
    return row


def measurements(scale: Scale) -> Iterator[tuple[str, Callable[[], Measurement]]]:
    """What is timed, with the function that does it."""
    if not can_compile_layers():
        print("compiled layers are not measured: they need a newer version of PyTorch")
    for modality in ("text", "image"):
        for batch in scale.batches[modality]:
            for compiled in (False, True) if can_compile_layers() else (False,):
                measure = partial(timed_steps, scale, modality, batch, compiled=compiled)
                yield f"{modality}, {batch} users" + (", compiled" if compiled else ""), measure
        yield f"{modality}, extrapolated", partial(extrapolated, scale, modality)


def measured(scale: Scale) -> tuple[list[Measurement], list[str]]:
    """The measurements, and the names of those that failed, as when the GPU was out of memory."""
    rows, failed = [], []
    for what, measure in measurements(scale):
        try:
            rows.append(measure())
        except RuntimeError as error:
            failed.append(what)
            print(f"FAILED {what}: {reason_of(error)}", flush=True)
        else:
            print(f"ok     {what}", flush=True)
    return rows, failed


def one_process_group(scale: Scale) -> None:
    """Create a process group of one process (NCCL on a GPU) and test ``all_reduce``."""
    backend = "nccl" if scale.device.type == "cuda" else "gloo"
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    ones = torch.ones(3, device=scale.device)
    torch.distributed.all_reduce(ones)
    assert ones.tolist() == [1, 1, 1]
    torch.distributed.destroy_process_group()
    print(f"ok     {backend} with one process")


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, layers=12)
    parser.add_argument("--small", action="store_true", help="run the small version even on a GPU")
    return parsed(parser)


def main() -> None:
    """Run checks and benchmarks and print the results."""
    options = _options()
    scale = scale_of(options)
    if scale.device.type == "cuda":
        prepare_cuda(scale.device)
    print(f"device: {machine()['device']}")
    wrong = []
    for what, difference, allowed in checks(scale):
        state = "ok    " if difference <= allowed else "FAILED"
        print(f"{state} {what}: difference {difference:.2g}, tolerance {allowed:g}", flush=True)
        if difference > allowed:
            wrong.append(what)
    rows, failed = measured(scale)
    report("gpu", rows, {"layers": scale.layers, "failed": len(wrong + failed)})
    one_process_group(scale)
    if wrong := wrong + failed:
        raise SystemExit(f"error: {len(wrong)} checks failed; first: {wrong[0]}")


if __name__ == "__main__":
    run_main(main)
