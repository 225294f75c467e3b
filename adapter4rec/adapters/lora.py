"""LoRA (Hu et al., ICLR 2022, "LoRA: Low-Rank Adaptation of Large Language Models"), by loralib's layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import loralib
import torch
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.sites import Layer, Projection, Sites
from adapter4rec.utils.settings import option

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
    """A and B of the projections that one linear layer gives: A begins Kaiming-uniform (√5), B as zero.

    Args:
        inputs: width of x.
        outputs: width of one projection.
        rank: r.
        together: how many projections of the layer are adapted; A is ``[together · r, in]`` and B
            ``[together · out, r]``, one behind the other.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, together: int) -> None:
        super().__init__()
        start = nn.init.kaiming_uniform_(torch.empty(together * rank, inputs), math.sqrt(5))
        self.lora_A = nn.Parameter(start)
        self.lora_B = nn.Parameter(torch.zeros(together * outputs, rank))


class Lora(Adapter):
    """A projection W x + b becomes W x + b + (alpha / r) B A x; W and b stay the pretrained ones, frozen.

    ``layers.N.query`` and ``layers.N.value`` are the factors of layer N; ``layers.N.query_value`` where one
    linear layer computes query, key and value.
    """

    def __init__(self, config: LoraConfig, sites: Sites) -> None:
        super().__init__()
        rank = config.item_rank if sites.role == "item" else config.user_rank
        self._wrapped: list[loralib.Linear | loralib.MergedLinear] = []
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites):
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
    """The chosen projections, together where the same linear layer gives them, by their joined names."""
    together: dict[tuple[int, str], list[str]] = {}
    for kind in sorted(chosen, key=PROJECTIONS.index):
        projection: Projection = getattr(layer, kind)
        together.setdefault((id(projection.owner), projection.name), []).append(kind)
    return {"_".join(kinds): [getattr(layer, kind) for kind in kinds] for kinds in together.values()}


def _wrapped(
    projections: list[Projection], factors: Factors, rank: int, config: LoraConfig
) -> loralib.Linear | loralib.MergedLinear:
    """loralib's layer around the original's own weight and bias, reading the factors where they are kept."""
    original: nn.Linear = projections[0].module
    options = {
        "r": rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        # Merging on eval() would change what is saved, and is not undone bit for bit.
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
        places = vars(layer).pop("lora_ind")
        layer.register_buffer("lora_ind", places, persistent=False)  # so that it moves with the layer
    layer.weight, layer.bias = original.weight, original.bias
    for name in ("lora_A", "lora_B"):
        delattr(layer, name)  # registered in the adapter and nowhere else
        vars(layer)[name] = getattr(factors, name)
    layer.train(original.training)  # loralib's gives nothing back
    return layer
