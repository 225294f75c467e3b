"""Fully sharded data parallelism (PyTorch's FSDP2) for the item encoder, for backbones too large for one GPU.

Each process holds a shard of the parameters, gradients and optimizer states; the weights of a layer are
gathered while it computes. Checkpoints contain full tensors: ``torch.distributed.checkpoint`` gathers them on
rank 0 when saving and shards them again when loading.
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

_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


def place(model: TransRec, process: Process, *, sharded: bool) -> None:
    """Move a model to the device of this process, sharded or not.

    Raises:
        UserError: sharding with a single process, or of a model with a frozen backbone or adapters.
    """
    if not sharded:
        model.to(process.device)
        return
    if process.world_size == 1:
        raise UserError("--shard true: requires more than one process (--processes 2)")
    backbone = getattr(model.item_encoder, "backbone", None)
    if backbone is None or len(model.adapters) or not any(p.requires_grad for p in backbone.parameters()):
        raise UserError(
            "--shard true: only for training the whole backbone (finetune, scratch, source models)"
        )
    mesh = init_device_mesh(process.device.type, (process.world_size,))
    for layer in layers_of(backbone):
        fully_shard(layer, mesh=mesh)
    fully_shard(model.item_encoder, mesh=mesh)
    # Each forward pass of a layer is a collective operation, so all processes must call it equally often.
    model.item_encoder.rounds = process.all_reduce_max
    model.user_encoder.to(process.device)  # small, so it is replicated


def is_sharded(model: nn.Module) -> bool:
    """Whether some parameters of a model are sharded over the processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """State dict of a model with full tensors; of a sharded model it is empty on ranks other than 0.

    A collective operation: all processes must call it.
    """
    return get_model_state_dict(model, options=_FULL) if is_sharded(model) else model.state_dict()


def load_full_state(model: nn.Module, tensors: Mapping[str, Tensor], *, strict: bool) -> None:
    """Load full tensors into a model that may be sharded; all processes must pass the same tensors."""
    if is_sharded(model):
        set_model_state_dict(
            model, dict(tensors), options=StateDictOptions(full_state_dict=True, strict=strict)
        )
    else:
        model.load_state_dict(tensors, strict=strict)


def full_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Optimizer state with full tensors, by parameter name; collective, see :func:`full_state_dict`."""
    if is_sharded(model):
        return get_optimizer_state_dict(model, optimizer, options=_FULL).get("state", {})
    names = _names(optimizer)
    return {names[index]: values for index, values in optimizer.state_dict()["state"].items()}


def load_full_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, kept: Mapping[str, dict[str, Any]]
) -> None:
    """Load optimizer state with full tensors, by parameter name; see :func:`full_optimizer_state`."""
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
    """All-reduce the gradients of the replicated user encoder; FSDP averages those of the item encoder."""
    for parameter in model.user_encoder.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= process.world_size


def _names(optimizer: torch.optim.Optimizer) -> list[str]:
    return [name for group in optimizer.param_groups for name in group["param_names"]]
