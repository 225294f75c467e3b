"""What the released code computes where it differs from the papers of the adapters.

Selected by ``--semantics release``, for comparison with released numbers and checkpoints; docs/differences.md
lists the differences. The families themselves do not know about them. A family without a variant here
computes the same in both semantics. Differences outside the adapters are in ``released_model.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import loralib
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.bottleneck_layers import SublayerAdapter
from adapter4rec.adapters.compacter import CompacterConfig
from adapter4rec.adapters.config import FEED_FORWARD, AdapterConfig
from adapter4rec.adapters.houlsby_parallel import HoulsbyParallelConfig
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.adapters.k_adapter_layers import KAdapter
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.prompt import PromptConfig
from adapter4rec.adapters.prompt_layers import Prompt
from adapter4rec.adapters.sites import Projection, Sites, Undo
from adapter4rec.data.packing import Packing
from adapter4rec.models.layouts import Reads
from adapter4rec.utils.errors import UserError


@dataclass(frozen=True)
class ReleasedHoulsbyParallelConfig(HoulsbyParallelConfig):
    """The residual x is added twice, and image encoders adapt feed-forward only."""

    def change(self, module: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        """f(x) + a(x) + x; the encoder adds the residual afterwards."""
        return y + module(x) + x

    def build(self, sites: Sites) -> Adapter:
        """One bottleneck for each chosen sublayer.

        Raises:
            UserError: only attention is chosen, in an image encoder.
        """
        config = self
        if sites.reads is Reads.PATCHES:
            if FEED_FORWARD not in self.sublayers:
                raise UserError("--sublayers: released parallel adapters of images support feed_forward only")
            config = replace(self, sublayers=(FEED_FORWARD,))
        return SublayerAdapter(config, sites, partial(self.build_module, sites))


@dataclass(frozen=True)
class ReleasedCompacterConfig(CompacterConfig):
    """There is no residual around the adapter."""

    def change(self, module: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        """a(y)."""
        del x
        return module(y)


@dataclass(frozen=True)
class ReleasedLoraConfig(LoraConfig):
    """New layers replace the projections."""

    adapter: ClassVar[str] = "adapter4rec.adapters.released_variants:ReleasedLora"

    def rank_of_projection(self, kind: str, sites: Sites) -> int:
        """r of a query or value projection; with 0 the new layer is trained as a whole, without factors."""
        del kind
        return self.rank_of(sites)


@dataclass(frozen=True)
class ReleasedImageLoraConfig(ReleasedLoraConfig):
    """With images, r is 0 for value projections of the user encoder."""

    def rank_of_projection(self, kind: str, sites: Sites) -> int:
        """r of a query or value projection."""
        return 0 if sites.role == "user" and kind == "value" else self.rank_of(sites)


class ReleasedLora(Adapter):
    """New layers replace the projections: pretrained weights are lost, new biases are trained.

    ``layers.N.query`` and ``layers.N.value`` are these layers: W x + b + (alpha / r) B A x. W is initialised
    as torch does, and frozen: it is a buffer, saved with the adapter. A, B and b are trained. All layers have
    a bias, also in the user encoder, whose own projections have none.

    Raises:
        UserError: the encoder computes query, key and value in one linear layer, which the released code does
            not support.
    """

    def __init__(self, config: ReleasedLoraConfig, sites: Sites) -> None:
        super().__init__()
        paths = {id(module): name for name, module in sites.encoder.named_modules()}
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites).items():
            self.layers[number] = nn.ModuleDict()
            for kind in config.projections:
                projection: Projection = getattr(layer, kind)
                if projection.parts > 1:
                    raise UserError("--semantics release: lora does not support fused query, key and value")
                rank = config.rank_of_projection(kind, sites)
                own = self.layers[number][kind] = _new_projection(projection.module, rank, config)
                path = paths[id(projection.module)]
                for name in ("weight", "bias"):
                    self.copies[f"layers.{number}.{kind}.{name}"] = (sites.encoder, f"{path}.{name}")
                self.attach(projection.replace_by(_StandIn(projection.module, own)))


def _new_projection(original: nn.Linear, rank: int, config: LoraConfig) -> loralib.Linear:
    layer = loralib.Linear(
        original.in_features,
        original.out_features,
        r=rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        merge_weights=False,
        device=original.weight.device,
    )
    if rank:
        weight = layer.weight.detach()
        del layer.weight
        layer.register_buffer("weight", weight)
    return layer


class _StandIn(nn.Module):
    """Holds a projection's weight and bias under their names; computes the output of another layer."""

    def __init__(self, original: nn.Linear, other: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self._other = [other]  # in a list: it is registered in the adapter only

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` → ``[..., out]``."""
        (other,) = self._other
        return other(x)


class OverwritingSites(Sites):
    """Further words overwrite the first words of a text, [CLS] included; the mask does not change."""

    def on_tokens(self, further: Tensor) -> Undo:
        """Let the encoder read ``further`` tokens ``[n, h]``; of a text shorter than n, only the first."""
        if self.reads is not Reads.WORDS:
            return super().on_tokens(further)
        embed = self.encoder.get_input_embeddings()

        def overwrite(arguments: dict) -> dict:
            words = arguments.get("inputs_embeds")
            if words is None:
                words = embed(arguments["input_ids"])
            if (packing := arguments.get("packing")) is not None:
                own = F.embedding(packing.places.clamp(max=len(further) - 1), further).to(words.dtype)
                overwritten = torch.where(packing.places[:, None] < len(further), own, words)
                return arguments | {"inputs_embeds": overwritten}
            own = further[: words.shape[1]].to(words.dtype).expand(len(words), -1, -1)
            overwritten = torch.cat([own, words[:, own.shape[1] :]], dim=1)
            return arguments | {"input_ids": None, "inputs_embeds": overwritten}

        return self.on_inputs(overwrite)


@dataclass(frozen=True)
class ReleasedPromptConfig(PromptConfig):
    """With text, the prompt overwrites the first tokens of a title; with images, it is that of the paper."""

    def build(self, sites: Sites) -> Adapter:
        """See :class:`OverwritingSites`."""
        return Prompt(self, OverwritingSites(**vars(sites)))


class UnmaskedSites(Sites):
    """Sites without attention masks."""

    def on_mask(self, remember: Callable[[Tensor | Packing | None], None]) -> Undo:
        """Call ``remember(None)`` at each call of the encoder."""
        return super().on_mask(lambda mask: remember(None))


@dataclass(frozen=True)
class ReleasedKAdapterConfig(KAdapterConfig):
    """The adapters attend to padding and, in the user encoder, to later positions.

    So the content of padding matters: see ``released_model.py``.
    """

    def build(self, sites: Sites) -> Adapter:
        """See :class:`UnmaskedSites`."""
        return KAdapter(self, UnmaskedSites(**vars(sites)))


RELEASED: dict[type[AdapterConfig], type[AdapterConfig]] = {
    HoulsbyParallelConfig: ReleasedHoulsbyParallelConfig,
    CompacterConfig: ReleasedCompacterConfig,
    LoraConfig: ReleasedLoraConfig,
    PromptConfig: ReleasedPromptConfig,
    KAdapterConfig: ReleasedKAdapterConfig,
}
"""The variant of each family that has one, by its config class."""
RELEASED_WITH_IMAGES = RELEASED | {LoraConfig: ReleasedImageLoraConfig}


def as_released(config: AdapterConfig, *, images: bool) -> AdapterConfig:
    """A config with the same options that builds adapters as the released code computes them.

    Args:
        config: of a family.
        images: whether the model's items are images.
    """
    variants = RELEASED_WITH_IMAGES if images else RELEASED
    variant = variants.get(type(config), type(config))
    if isinstance(config, BottleneckConfig) and not isinstance(config, CompacterConfig):
        config = replace(config, adapter_dropout=0.0)  # defined, but never applied
    return variant(**vars(config))
