"""A model whose item encoder is divided over the processes (torch's FSDP2), for backbones that no GPU holds.

Each process keeps a share of every weight, of its gradient and of what Adam keeps of it; the weights of a
layer are put together while it computes. Checkpoints are those of an undivided model: torch's
distributed.checkpoint puts them together on the first process, and divides them again when they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from adapter4rec.models.layers import layers_of
from adapter4rec.models.transrec import TransRec
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def place(model: TransRec, process: Process, *, sharded: bool) -> None:
    """Put a model on its device, whole or as this process's shares.

    Raises:
        UserError: it is to be divided, and there is one process, or adapters are trained beside it.
    """
    if not sharded:
        model.to(process.device)
        return
    if process.world_size == 1:
        raise UserError("--shard true: divides the weights over processes, and there is one (--processes 2)")
    backbone = getattr(model.item_encoder, "backbone", None)
    if backbone is None or len(model.adapters) or not any(p.requires_grad for p in backbone.parameters()):
        raise UserError("--shard true: is for training all of a backbone (finetune, scratch, a source model)")
    mesh = init_device_mesh(process.device.type, (process.world_size,))
    for layer in layers_of(backbone):
        fully_shard(layer, mesh=mesh)
    fully_shard(model.item_encoder, mesh=mesh)
    # Each call of a layer gathers its weights from all processes, so that all must call it equally often.
    model.item_encoder.rounds = process.all_reduce_max
    model.user_encoder.to(process.device)  # small, and whole on each process


def is_sharded(model: nn.Module) -> bool:
    """Whether a model's weights, or those of a part of it, are divided over the processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict with undivided tensors; of a divided model on the first process alone.

    All processes must call this.
    """
    return get_model_state_dict(model, options=_WHOLE) if is_sharded(model) else model.state_dict()


def put_state(model: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool) -> None:
    """Load undivided tensors, by name, into a model that may be divided; all processes have them."""
    if is_sharded(model):
        set_model_state_dict(
            model, dict(tensors), options=StateDictOptions(full_state_dict=True, strict=strict)
        )
    else:
        model.load_state_dict(tensors, strict=strict)


def whole_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """What an optimizer keeps of each parameter, by the parameter's name; as :func:`whole_state`."""
    if is_sharded(model):
        return get_optimizer_state_dict(model, optimizer, options=_WHOLE).get("state", {})
    names = _names(optimizer)
    return {names[index]: values for index, values in optimizer.state_dict()["state"].items()}


def put_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, kept: Mapping[str, dict[str, Any]]
) -> None:
    """Let an optimizer go on with undivided tensors that it has kept, by the parameter's name."""
    names = _names(optimizer)
    if is_sharded(model):
        groups = [{**group, "params": group["param_names"]} for group in optimizer.param_groups]
        state = {"state": dict(kept), "param_groups": groups}
        set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))
        return
    state = optimizer.state_dict()
    state["state"] = {index: kept[name] for index, name in enumerate(names) if name in kept}
    optimizer.load_state_dict(state)


def average_gradients(model: TransRec, process: Process) -> None:
    """Average over all processes the gradients of what is whole on each; the rest is averaged as it grows."""
    for parameter in model.user_encoder.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= process.world_size


def _names(optimizer: torch.optim.Optimizer) -> list[str]:
    return [name for group in optimizer.param_groups for name in group["param_names"]]
