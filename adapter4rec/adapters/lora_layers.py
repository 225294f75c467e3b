"""The modules of LoRA: loralib's layers around the encoder's own projections."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import loralib
import torch
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.config import PROJECTIONS
from adapter4rec.adapters.sites import Layer, Projection, Sites
from adapter4rec.utils.modules import shadow

if TYPE_CHECKING:
    from adapter4rec.adapters.lora import LoraConfig


class Factors(nn.Module):
    """A and B of the projections that one linear layer computes.

    A is initialised Kaiming-uniform (√5), B with zero.

    Args:
        inputs: width of x.
        outputs: width of one projection.
        rank: r.
        count: number of projections of the layer that are adapted. A is ``[count · r, in]`` and B
            ``[count · out, r]``, concatenated along the first dimension.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, count: int) -> None:
        super().__init__()
        start = nn.init.kaiming_uniform_(torch.empty(count * rank, inputs), math.sqrt(5))
        self.lora_A = nn.Parameter(start)
        self.lora_B = nn.Parameter(torch.zeros(count * outputs, rank))


class Lora(Adapter):
    """A projection W x + b becomes W x + b + (alpha / r) B A x; W and b are the pretrained ones, frozen.

    ``layers.N.query`` and ``layers.N.value`` are the factors of layer N; ``layers.N.query_value`` where one
    linear layer computes query, key and value.
    """

    def __init__(self, config: LoraConfig, sites: Sites) -> None:
        super().__init__()
        rank = config.rank_of(sites)
        self._wrapped: list[loralib.Linear | loralib.MergedLinear] = []
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites).items():
            self.layers[number] = nn.ModuleDict()
            for name, projections in _by_linear_layer(layer, config.projections).items():
                original = projections[0].module
                outputs = original.out_features // projections[0].parts
                factors = Factors(original.in_features, outputs, rank, len(projections))
                self.layers[number][name] = factors
                wrapped = _wrapped(projections, factors, rank, config)
                self._wrapped.append(wrapped)
                self.attach(projections[0].replace_by(wrapped))

    def merged_weights(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each adapted W with W + (alpha / r) B A."""
        for layer in self._wrapped:
            fused = isinstance(layer, loralib.MergedLinear)
            update = layer.merge_AB() if fused else layer.lora_B @ layer.lora_A
            yield layer.weight, layer.weight + layer.scaling * update


def _by_linear_layer(layer: Layer, chosen: tuple[str, ...]) -> dict[str, list[Projection]]:
    """The chosen projections, grouped by linear layer; keys are their names joined by ``_``."""
    kinds_of: dict[tuple[int, str], list[str]] = {}
    for kind in sorted(chosen, key=PROJECTIONS.index):
        projection: Projection = getattr(layer, kind)
        kinds_of.setdefault((id(projection.owner), projection.name), []).append(kind)
    return {"_".join(kinds): [getattr(layer, kind) for kind in kinds] for kinds in kinds_of.values()}


def _wrapped(
    projections: list[Projection], factors: Factors, rank: int, config: LoraConfig
) -> loralib.Linear | loralib.MergedLinear:
    """loralib's layer with the weight and bias of the original, and the factors of the adapter."""
    original: nn.Linear = projections[0].module
    options = {
        "r": rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        # Merging in eval() would change what is saved, and cannot be undone bit for bit.
        "merge_weights": False,
        "bias": original.bias is not None,
        "device": original.weight.device,
    }
    if projections[0].parts == 1:
        layer = loralib.Linear(original.in_features, original.out_features, **options)
    else:
        parts = [projection.part for projection in projections]
        adapted = [part in parts for part in range(projections[0].parts)]
        layer = loralib.MergedLinear(
            original.in_features, original.out_features, enable_lora=adapted, **options
        )
        places = layer.lora_ind
        del layer.lora_ind
        layer.register_buffer("lora_ind", places, persistent=False)  # moves to the layer's device
    layer.weight, layer.bias = original.weight, original.bias
    for name in ("lora_A", "lora_B"):
        delattr(layer, name)  # registered in the adapter only
        shadow(layer, name, getattr(factors, name))
    layer.train(original.training)  # loralib's train() returns nothing
    return layer
