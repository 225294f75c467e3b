"""The modules of LoRA: loralib's layers around the encoder's own projections."""

from __future__ import annotations

import math
from collections.abc import Iterator

import loralib
import torch
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.config import PROJECTIONS
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.sites import Layer, Projection, Sites
from adapter4rec.utils.modules import shadow


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
        rank = config.size_of(sites, "rank")
        self._wrapped: list[loralib.Linear | loralib.MergedLinear] = []
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites).items():
            self.layers[number] = own = nn.ModuleDict()
            for name, projections in _by_linear_layer(layer, config.projections).items():
                original, parts = projections[0].linear, projections[0].layout.parts
                factors = own[name] = Factors(
                    original.in_features, original.out_features // parts, rank, len(projections)
                )
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
    kinds = [kind for kind in PROJECTIONS if kind in chosen]
    groups = [[kind] for kind in kinds] if layer.query.layout.parts == 1 else [kinds]
    return {"_".join(group): [getattr(layer, kind) for kind in group] for group in groups}


def _wrapped(
    projections: list[Projection], factors: Factors, rank: int, config: LoraConfig
) -> loralib.Linear | loralib.MergedLinear:
    """loralib's layer with the weight and bias of the original, and the factors of the adapter."""
    original = projections[0].linear
    parts = [projection.layout.part for projection in projections]
    adapted = [part in parts for part in range(projections[0].layout.parts)]
    fused = {} if len(adapted) == 1 else {"enable_lora": adapted}
    layer = new_layer(original, rank, config, bias=original.bias is not None, **fused)
    if fused:
        places = layer.lora_ind
        del layer.lora_ind
        layer.register_buffer("lora_ind", places, persistent=False)  # moves to the layer's device
    layer.weight, layer.bias = original.weight, original.bias
    for name in ("lora_A", "lora_B"):
        delattr(layer, name)  # registered in the adapter only
        shadow(layer, name, getattr(factors, name))
    layer.train(original.training)  # loralib's train() returns nothing
    return layer


def new_layer(
    original: nn.Linear, rank: int, config: LoraConfig, *, bias: bool, **fused: list[bool]
) -> loralib.Linear | loralib.MergedLinear:
    """A new layer of loralib with the sizes of ``original``; with ``enable_lora``, for fused projections."""
    return (loralib.MergedLinear if fused else loralib.Linear)(
        original.in_features,
        original.out_features,
        r=rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        merge_weights=False,  # merging in eval() would change what is saved, and is not undone bit for bit
        bias=bias,
        device=original.weight.device,
        **fused,
    )
