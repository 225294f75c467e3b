"""What the released code computes where it differs from the papers of the adapters.

Selected by ``--semantics release``, for comparison with released numbers and checkpoints; docs/differences.md
lists the differences. The families themselves do not know about them. A family without a variant here
computes the same in both semantics. Differences outside the adapters are in ``released_model.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.bottleneck_layers import SublayerAdapter
from adapter4rec.adapters.compacter import CompacterConfig
from adapter4rec.adapters.config import FEED_FORWARD, AdapterConfig
from adapter4rec.adapters.houlsby import HoulsbyConfig, HoulsbyParallelConfig
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.lora_layers import new_layer
from adapter4rec.adapters.prompt import PromptConfig
from adapter4rec.adapters.sites import Arguments, Projection, Sites, Undo
from adapter4rec.data.packing import Packing
from adapter4rec.models.layouts import Reads
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.modules import shadow


@dataclass(frozen=True)
class ReleasedHoulsbyParallelConfig(HoulsbyParallelConfig):
    """The residual x is added twice, and image encoders adapt feed-forward only."""

    def change(self, module: Callable[[Tensor], Tensor], y: Tensor, x: Tensor) -> Tensor:
        """f(x) + a(x) + x; the encoder adds the residual afterwards."""
        return super().change(module, y, x) + x

    def build(self, sites: Sites) -> Adapter:
        """One bottleneck for each chosen sublayer.

        Raises:
            UserError: only attention is chosen, in an image encoder.
        """
        if sites.layout.reads is not Reads.PATCHES:
            return super().build(sites)
        if FEED_FORWARD not in self.sublayers:
            raise UserError("--sublayers: released parallel adapters of images support feed_forward only")
        return SublayerAdapter(replace(self, sublayers=(FEED_FORWARD,)), sites)


@dataclass(frozen=True)
class ReleasedCompacterConfig(CompacterConfig):
    """There is no residual around the adapter."""

    def change(self, module: Callable[[Tensor], Tensor], y: Tensor, x: Tensor) -> Tensor:
        """a(y)."""
        return module(y)


@dataclass(frozen=True)
class ReleasedLoraConfig(LoraConfig):
    """New layers replace the projections; with images, value projections of the user encoder have r = 0."""

    adapter: ClassVar[str] = "adapter4rec.adapters.released_variants:ReleasedLora"
    images: bool = False


class ReleasedLora(Adapter):
    """New layers replace the projections: pretrained weights are lost, new biases are trained.

    ``layers.N.query`` and ``layers.N.value`` are these layers: W x + b + (alpha / r) B A x. W is initialised
    as torch does, and frozen: it is a buffer, saved with the adapter. A, B and b are trained; if r is 0, W
    and b. All layers have a bias, also in the user encoder, whose own projections have none.

    Raises:
        UserError: the encoder computes query, key and value in one linear layer, which the released code does
            not support.
    """

    def __init__(self, config: ReleasedLoraConfig, sites: Sites) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites).items():
            self.layers[number] = modules = nn.ModuleDict()
            for kind in config.projections:
                projection: Projection = getattr(layer, kind)
                if projection.layout.parts > 1:
                    raise UserError("--semantics release: lora does not support fused query, key and value")
                whole = config.images and sites.role == "user" and kind == "value"
                rank = 0 if whole else config.size_of(sites, "rank")
                own = modules[kind] = new_layer(projection.linear, rank, config, bias=True)
                if rank:
                    weight = own.weight.detach()
                    del own.weight
                    own.register_buffer("weight", weight)
                for name in ("weight", "bias"):
                    self.copies[f"layers.{number}.{kind}.{name}"] = (projection.linear, name)
                self.attach(shadow(projection.linear, "forward", own))


class OverwritingSites(Sites):
    """Of the prompt: its words overwrite the first of a title, [CLS] included; the mask does not change.

    With images, it is that of the paper.
    """

    def with_words(self, arguments: Arguments, further: Tensor) -> Arguments:
        """Of a text that is shorter than ``further``, ``[n, h]``, only as many overwrite it."""
        words = self.words_of(arguments)
        if (packing := arguments.get("packing")) is not None:
            own = F.embedding(packing.places.clamp(max=len(further) - 1), further).to(words.dtype)
            return {"inputs_embeds": torch.where(packing.places[:, None] < len(further), own, words)}
        own = further[: words.shape[1]].to(words.dtype).expand(len(words), -1, -1)
        return {"input_ids": None, "inputs_embeds": torch.cat([own, words[:, own.shape[1] :]], dim=1)}


class UnmaskedSites(Sites):
    """Of K-Adapter: its adapters attend to padding and, in the user encoder, to later positions.

    So the content of padding matters: see ``released_model.py``.
    """

    def on_mask(self, remember: Callable[[Tensor | Packing | None], None]) -> Undo:
        """Call ``remember(None)`` at each call of the encoder."""
        return super().on_mask(lambda mask: remember(None))


VARIANTS: dict[type[AdapterConfig], type[AdapterConfig]] = {
    HoulsbyParallelConfig: ReleasedHoulsbyParallelConfig,
    CompacterConfig: ReleasedCompacterConfig,
    LoraConfig: ReleasedLoraConfig,
}
SITES: dict[type[AdapterConfig], type[Sites]] = {
    PromptConfig: OverwritingSites,
    KAdapterConfig: UnmaskedSites,
}
"""Configs and sites that behave differently, by the config class of the family."""


def as_released(
    config: AdapterConfig, sites: dict[str, Sites], *, images: bool
) -> tuple[AdapterConfig, dict[str, Sites]]:
    """A config with the same options that builds adapters as the released code computes them, and its sites.

    Args:
        config: of a family.
        sites: of each adapted encoder.
        images: whether the model's items are images.
    """
    family, options = type(config), dict(vars(config))
    if family is LoraConfig:
        options["images"] = images
    elif isinstance(config, HoulsbyConfig) and family is not CompacterConfig:
        options["adapter_dropout"] = 0.0  # defined, but never applied
    kind = SITES.get(family, Sites)
    return VARIANTS.get(family, family)(**options), {role: kind(**vars(own)) for role, own in sites.items()}
