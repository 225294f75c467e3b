"""Builders that stand in for the families' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import loralib
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.compacter import Compacter
from adapter4rec.adapters.houlsby import Houlsby
from adapter4rec.adapters.houlsby_parallel import HoulsbyParallel, HoulsbyParallelConfig
from adapter4rec.adapters.k_adapter import KAdapter, KAdapterConfig
from adapter4rec.adapters.layouts import Reads
from adapter4rec.adapters.lora import Lora, LoraConfig
from adapter4rec.adapters.pfeiffer import Pfeiffer
from adapter4rec.adapters.pfeiffer_after_layernorm import PfeifferAfterLayerNorm
from adapter4rec.adapters.prompt import Prompt, PromptConfig
from adapter4rec.adapters.sites import FEED_FORWARD, Projection, Sites, Undo
from adapter4rec.errors import UserError
from adapter4rec.models.item_encoders import ImageItemEncoder
from adapter4rec.models.transrec import TransRec

Builder = Callable[..., Adapter]


def _without_dropout(build: Builder) -> Builder:
    """Dropout in the bottleneck is declared and never applied."""

    def undropped(config: BottleneckConfig, sites: Sites) -> Adapter:
        return build(replace(config, adapter_dropout=0.0), sites)

    return undropped


class ReleasedHoulsbyParallel(HoulsbyParallel):
    """The sublayer's input is added twice; in image encoders feed-forward alone is adapted.

    Raises:
        UserError: only attention is to be adapted, in an image encoder.
    """

    def __init__(self, config: HoulsbyParallelConfig, sites: Sites) -> None:
        if sites.reads is Reads.PATCHES:
            if FEED_FORWARD not in config.sublayers:
                raise UserError(
                    f"--sublayers {','.join(config.sublayers)}: with --semantics release parallel adapters "
                    "of an image encoder stand beside feed_forward only"
                )
            config = replace(config, sublayers=(FEED_FORWARD,))
        super().__init__(config, sites)

    @staticmethod
    def change(module: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        """f(x) + a(x) + x; the residual x is added once more behind it."""
        return y + module(x) + x


class ReleasedCompacter(Compacter):
    """There is no residual around the adapter."""

    @staticmethod
    def change(module: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        """a(y) in place of y."""
        del x
        return module(y)


class ReleasedLora(Adapter):
    """New layers stand in for the projections: pretrained weights are lost, new biases are trained.

    ``layers.N.query`` and ``layers.N.value`` are these layers: W x + b + (alpha / r) B A x with W as torch
    initialises it (the seed fixes it). W is frozen, a buffer that is saved with the adapter; A, B and b are
    trained. All have a bias, in the user encoder too, whose own projections have none.

    Raises:
        UserError: one linear layer of the encoder gives query, key and value, which the released code knows
            nothing of.
    """

    def __init__(self, config: LoraConfig, sites: Sites) -> None:
        super().__init__()
        paths = {id(module): name for name, module in sites.encoder.named_modules()}
        self.layers = nn.ModuleDict()
        for number, layer in config.layers_of(sites):
            self.layers[number] = nn.ModuleDict()
            for kind in config.projections:
                projection: Projection = getattr(layer, kind)
                if projection.parts > 1:
                    raise UserError(
                        "--semantics release: LoRA replaces whole projections, and this encoder computes "
                        "query, key and value in one"
                    )
                rank = self.rank_of(kind, config, sites)
                own = self.layers[number][kind] = _new_projection(projection.module, rank, config)
                for name in ("weight", "bias"):
                    self.copies[f"layers.{number}.{kind}.{name}"] = f"{paths[id(projection.module)]}.{name}"
                self.attach(projection.replace_by(_StandIn(projection.module, own)))

    def rank_of(self, kind: str, config: LoraConfig, sites: Sites) -> int:
        """r of a query or value projection; with 0 the new layer itself is trained, and has no factors."""
        del kind
        return config.item_rank if sites.role == "item" else config.user_rank


class ReleasedImageLora(ReleasedLora):
    """With images the user encoder's values have rank 0: new layers, trained whole."""

    def rank_of(self, kind: str, config: LoraConfig, sites: Sites) -> int:
        """r of a query or value projection."""
        return 0 if sites.role == "user" and kind == "value" else super().rank_of(kind, config, sites)


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
    """Keeps a projection's weight and bias under their names in the encoder; computes another's output."""

    def __init__(self, original: nn.Linear, other: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self._other = [other]  # in a list, so that it is registered in the adapter and nowhere else

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` → ``[..., out]``."""
        (other,) = self._other
        return other(x)


class OverwritingSites(Sites):
    """Further words stand in the place of a text's first ones, [CLS] included; the mask stays."""

    def on_tokens(self, further: Tensor) -> Undo:
        """Let the encoder read ``further`` tokens ``[n, h]``: of a text that is shorter than n the first."""
        if self.reads is not Reads.WORDS:
            return super().on_tokens(further)
        embed = self.encoder.get_input_embeddings()

        def overwrite(arguments: dict) -> dict:
            words = arguments.get("inputs_embeds")
            if words is None:
                words = embed(arguments["input_ids"])
            own = further[: words.shape[1]].to(words.dtype).expand(len(words), -1, -1)
            overwritten = torch.cat([own, words[:, own.shape[1] :]], dim=1)
            return arguments | {"input_ids": None, "inputs_embeds": overwritten}

        return self.on_inputs(overwrite)


class ReleasedPrompt(Prompt):
    """With text the prompt overwrites the first tokens of a title; with images it is as described."""

    def __init__(self, config: PromptConfig, sites: Sites) -> None:
        super().__init__(config, OverwritingSites(**vars(sites)))


class UnmaskedSites(Sites):
    """Places whose masks are not told."""

    def on_mask(self, remember: Callable[[Tensor | None], None]) -> Undo:
        """Tell ``remember`` at each call that there is no mask."""
        return super().on_mask(lambda mask: remember(None))


class ReleasedKAdapter(KAdapter):
    """The adapters attend to padding, in the user encoder to later places, too.

    What stands in padded places then matters: see ``whole_model.py``.
    """

    def __init__(self, config: KAdapterConfig, sites: Sites) -> None:
        super().__init__(config, UnmaskedSites(**vars(sites)))


RELEASED: dict[Builder, Builder] = {
    Houlsby: _without_dropout(Houlsby),
    Pfeiffer: _without_dropout(Pfeiffer),
    PfeifferAfterLayerNorm: _without_dropout(PfeifferAfterLayerNorm),
    HoulsbyParallel: _without_dropout(ReleasedHoulsbyParallel),
    Compacter: ReleasedCompacter,
    Lora: ReleasedLora,
    Prompt: ReleasedPrompt,
    KAdapter: ReleasedKAdapter,
}
"""The released variant of each family that has one."""
_RELEASED_WITH_IMAGES: dict[Builder, Builder] = RELEASED | {Lora: ReleasedImageLora}


def released_builder(build: Builder, model: TransRec | PreTrainedModel) -> Builder:
    """What the released code builds for a model instead of ``build``, which is a family's."""
    images = isinstance(getattr(model, "item_encoder", None), ImageItemEncoder)
    return (_RELEASED_WITH_IMAGES if images else RELEASED).get(build, build)
