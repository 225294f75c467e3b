"""A training step: loss and gradients of a global batch, the same for any number of processes and parts.

The items of a batch are divided, not its users: each process encodes its part of the distinct items, and the
embeddings are gathered, so that a loss may compare every target with every item of the batch. With gradient
accumulation, the items are first encoded part by part without a graph. The loss gives the gradient of each
embedding, with which the parts are encoded again, now with a graph (GradCache, Gao et al. 2021, arXiv
2101.06983). Memory is that of one part, and the result that of an undivided batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from adapter4rec.data.batches import Batch
from adapter4rec.training.setup import TrainingSetup

_DROPOUT = 2  # random stream; others are in data/batches.py


def train_step(setup: TrainingSetup, batch: Batch, at: tuple[int, int, int], rate: float = 1.0) -> float:
    """Take one optimizer step. Returns the mean loss over the global batch.

    Args:
        setup: model and optimizer.
        batch: this process's share of the global batch.
        at: seed, epoch and step, which determine the dropout.
        rate: factor of all learning rates.

    Raises:
        FloatingPointError: the loss or the gradient is not finite; the weights are unchanged.
    """
    loss = setup.process.all_reduce(backward(setup, batch.to(setup.process.device), at))
    setup.scaler.unscale_(setup.optimizer)
    norm = get_total_norm([p.grad for p in setup.parameters if p.grad is not None])
    mean, size = torch.stack([loss, norm.to(loss)]).tolist()
    # A gradient in fp16 may overflow; the scaler then skips the step and lowers its scale.
    if not np.isfinite(mean) or not (np.isfinite(size) or setup.scaler.is_enabled()):
        raise FloatingPointError(f"loss {mean:g}, norm of the gradient {size:g}")
    if setup.clip_norm is not None:
        clip_grads_with_norm_(setup.parameters, setup.clip_norm, norm)
    for group in setup.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * rate
    setup.scaler.step(setup.optimizer)
    setup.scaler.update()
    if not np.isfinite(size) and setup.scaler.get_scale() < 1:
        raise FloatingPointError(f"loss {mean:g}, norm of the gradient {size:g} also without loss scaling")
    setup.optimizer.zero_grad(set_to_none=True)
    return float(mean)


def backward(setup: TrainingSetup, batch: Batch, at: tuple[int, int, int]) -> Tensor:
    """Compute the loss of this process's targets, and the gradients of the global batch.

    Args:
        setup: model and gradient scaler.
        batch: on the device.
        at: seed, epoch and step.

    Returns:
        A scalar; its sum over processes is the mean loss of the global batch.
    """
    model, process = setup.model, setup.process
    replayed = len(batch.contents) > 1

    def encode(part: int) -> Tensor:
        if replayed:
            _seed_dropout(*at, process.rank, part)  # the same dropout in both passes
        with setup.precision.autocast():
            return model.encode_items(batch.contents[part])

    _seed_dropout(*at, process.rank)
    with torch.set_grad_enabled(not replayed):
        encoded = [encode(part) for part in range(len(batch.contents))]
    embeddings = torch.zeros(len(batch.items), model.user_encoder.width, device=process.device)
    embeddings[batch.own] = torch.cat([embeddings[:0], *encoded]).detach()
    process.all_reduce(embeddings).requires_grad_()
    loss = model.loss_of(embeddings, batch)
    torch.autograd.backward(setup.scaler.scale(loss))
    assert embeddings.grad is not None
    gradient = process.all_reduce(embeddings.grad)[batch.own]
    for part, some in enumerate(torch.split(gradient, [len(rows) for rows in encoded])):
        output = encode(part) if replayed else encoded[part]
        if not output.requires_grad:  # nothing in the item encoder is trained
            break
        with setup.precision.autocast():  # matrix products of the backward pass, too, are in this format
            torch.autograd.backward(output, some)
    for parameter in setup.parameters if process.world_size > 1 else ():
        if parameter.grad is None:  # another process may have one, from its items and users
            parameter.grad = torch.zeros_like(parameter)
        process.all_reduce(parameter.grad)
    return loss.detach()


def _seed_dropout(seed: int, *rest: int) -> None:
    """Seed dropout by (seed, epoch, step, rank[, part]): a resumed run repeats the same random numbers."""
    state = np.random.SeedSequence([seed, _DROPOUT, *rest]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]) & (2**63 - 1))
