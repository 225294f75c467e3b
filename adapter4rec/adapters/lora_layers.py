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
from adapter4rec.adapters.sites import Projection, Sites
from adapter4rec.utils.modules import shadow


class Lora(Adapter):
    """A projection W x + b becomes W x + b + (alpha / r) B A x; W and b are the pretrained ones, frozen.

    ``layers.N.query`` and ``layers.N.value`` are A, initialised Kaiming-uniform (√5), and B, initialised with
    zero, of layer N. Where one linear layer computes query, key and value, ``layers.N.query_value`` are those
    of both, concatenated along the first dimension.
    """

    def __init__(self, config: LoraConfig, sites: Sites) -> None:
        super().__init__()
        self._wrapped: list[loralib.Linear | loralib.MergedLinear] = []
        self.layers = nn.ModuleDict()
        kinds = [kind for kind in PROJECTIONS if kind in config.projections]
        for number, layer in config.layers_of(sites).items():
            self.layers[number] = own = nn.ModuleDict()
            for group in [kinds] if layer.query.fused else [[kind] for kind in kinds]:
                site: Projection = getattr(layer, group[0])
                own["_".join(group)] = self._wrap(site, group, config.size_of(sites, "rank"), config)

    def _wrap(self, site: Projection, kinds: list[str], rank: int, config: LoraConfig) -> nn.ParameterDict:
        """Replace the linear layer that computes projections by loralib's with the same weight and bias.

        Returns:
            The factors: ``lora_A [kinds · r, in]`` and ``lora_B [kinds · out, r]``.
        """
        original, parts = site.linear, ("query", "key", "value")
        outputs = original.out_features // (len(parts) if site.fused else 1)
        start = nn.init.kaiming_uniform_(torch.empty(len(kinds) * rank, original.in_features), math.sqrt(5))
        factors = nn.ParameterDict({"lora_A": start, "lora_B": torch.zeros(len(kinds) * outputs, rank)})
        fused = {"enable_lora": [part in kinds for part in parts]} if site.fused else {}
        layer = new_layer(original, rank, config, bias=original.bias is not None, **fused)
        if fused:
            places = layer.lora_ind
            del layer.lora_ind
            layer.register_buffer("lora_ind", places, persistent=False)  # moves to the layer's device
        layer.weight, layer.bias = original.weight, original.bias
        for name, factor in factors.items():
            delattr(layer, name)  # registered in the adapter only
            shadow(layer, name, factor)
        layer.train(original.training)  # loralib's train() returns nothing
        self._wrapped.append(layer)
        self.attach(site.replace_by(layer))
        return factors

    def merged_weights(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each adapted W with W + (alpha / r) B A."""
        for layer in self._wrapped:
            fused = isinstance(layer, loralib.MergedLinear)
            update = layer.merge_AB() if fused else layer.lora_B @ layer.lora_A
            yield layer.weight, layer.weight + layer.scaling * update


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
