"""LoRA (Hu et al., ICLR 2022, "LoRA: Low-Rank Adaptation of Large Language Models"), by loralib's layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import loralib
import torch
from torch import nn

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.sites import Projection, Sites
from adapter4rec.settings import option

PROJECTIONS = ("query", "value")


@dataclass(frozen=True)
class LoraConfig(AdapterConfig):
    """Low-rank updates of the query and value projections of every layer."""

    projections: tuple[str, ...] = option(
        PROJECTIONS, "projections that are adapted: query,value", choices=PROJECTIONS
    )
    item_rank: int = option(12, "rank r in the item encoder", least=1)
    user_rank: int = option(4, "rank r in the user encoder", least=1)
    lora_alpha: float = option(1.0, "alpha; the update is scaled by alpha / r", above=0)
    lora_dropout: float = option(0.0, "dropout of what the update reads", least=0, most=0.99)


class Factors(nn.Module):
    """A ``[r, in]`` and B ``[out, r]`` of one projection; A begins Kaiming-uniform (√5), B as zero."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, inputs), math.sqrt(5)))
        self.lora_B = nn.Parameter(torch.zeros(outputs, rank))


class Lora(Adapter):
    """A projection W x + b becomes W x + b + (alpha / r) B A x; W and b stay the pretrained ones, frozen.

    ``layers.N.query`` and ``layers.N.value`` are the factors of layer N.
    """

    def __init__(self, config: LoraConfig, sites: Sites) -> None:
        super().__init__()
        rank = config.item_rank if sites.role == "item" else config.user_rank
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites):
            factors = nn.ModuleDict()
            for kind in config.projections:
                projection: Projection = getattr(layer, kind)
                original = projection.module
                factors[kind] = Factors(original.in_features, original.out_features, rank)
                self.attach(projection.replace_by(_wrapped(original, factors[kind], rank, config)))
            self.layers[number] = factors


def _wrapped(original: nn.Linear, factors: Factors, rank: int, config: LoraConfig) -> loralib.Linear:
    """loralib's layer around the original's own weight and bias, reading the factors where they are kept."""
    # Merging on eval() would change what is saved, and is not undone bit for bit.
    layer = loralib.Linear(
        original.in_features,
        original.out_features,
        r=rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        merge_weights=False,
        bias=original.bias is not None,
        device=original.weight.device,
    )
    layer.weight, layer.bias = original.weight, original.bias
    for name in ("lora_A", "lora_B"):
        delattr(layer, name)  # registered in the adapter and nowhere else
        vars(layer)[name] = getattr(factors, name)
    layer.train(original.training)  # loralib's gives nothing back
    return layer
