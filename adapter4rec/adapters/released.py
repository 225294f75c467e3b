"""What the released code computes where it differs from the papers, selected by ``--semantics release``.

For comparison with released numbers and checkpoints; docs/differences.md lists the differences. First come
the variants of adapter families, which do not know about them (a family without a variant computes the same
in both semantics), then what differs outside the adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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
from adapter4rec.data.content import Content
from adapter4rec.data.packing import Packing
from adapter4rec.data.states import States
from adapter4rec.data.text import Pack, Text
from adapter4rec.models.backbones import first_position, image_size
from adapter4rec.models.image_encoder import RELEASED_MASK_RATIO, ImageItemEncoder
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layouts import Reads
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.modules import shadow
from adapter4rec.utils.precision import original_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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

    adapter: ClassVar[str] = "adapter4rec.adapters.released:ReleasedLora"
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
                if projection.fused:
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

    So the content of padding matters: see :func:`change_as_released`.
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


def change_as_released(model: TransRec | PreTrainedModel, config: AdapterConfig) -> Iterator[Undo]:
    """Change a model to compute as the released code does.

    ViTMAE drops 75 % of the patches at random, in evaluation too. With K-Adapter, texts are padded to a fixed
    length, and a padded position of a user's sequence holds the embedding of a padding item.

    Yields:
        What takes back each change.

    Raises:
        UserError: the backbone has fewer positions than the padded texts, or items have no content.
    """
    items = model.item_encoder if isinstance(model, TransRec) else None
    backbone = getattr(items, "backbone", None) if isinstance(model, TransRec) else model
    if backbone is not None and backbone.config.model_type == "vit_mae":
        yield partial(setattr, backbone.config, "mask_ratio", backbone.config.mask_ratio)
        backbone.config.mask_ratio = RELEASED_MASK_RATIO
    if isinstance(items, ContentItemEncoder) and items.pooling != "cls":
        raise UserError("--semantics release: the released code has --pooling cls only")
    if not isinstance(model, TransRec) or not isinstance(config, KAdapterConfig):
        return
    if not isinstance(items, ContentItemEncoder):
        raise UserError("--semantics release: not supported for an id tower, which has no padding item")
    width = config.released_tokens
    if isinstance(items, TextItemEncoder):
        positions = items.backbone.config.max_position_embeddings - first_position(items.backbone.config)
        if width > positions:
            raise UserError(f"--released_tokens {width}: the backbone has only {positions} positions")
        if "item" in config.encoders:
            yield _pad_texts(items, width)
    if "user" in config.encoders:
        yield from _encode_padding(model, items, width)


def _pad_texts(encoder: TextItemEncoder, width: int) -> Undo:
    """Pad all texts to one length before they are encoded.

    Raises:
        UserError: when the encoder is called: a text is longer than ``width``.
    """

    def padded(pack: Pack) -> Tensor:
        if pack.packing.longest > width:
            raise UserError(
                f"--released_tokens {width}: a text has {pack.packing.longest} tokens; "
                "use that of --title_tokens"
            )
        mask = pack.packing.real(width)
        token_ids = pack.values.new_full(mask.shape, encoder.backbone.config.pad_token_id or 0)
        token_ids[mask] = pack.values
        return _text_states(encoder.backbone, token_ids, mask)

    def encode(_: nn.Module, arguments: tuple[Content]) -> tuple[Content]:
        (content,) = arguments
        if not isinstance(content, Text) or content.layers:
            return arguments
        states = torch.cat([padded(pack) for pack in content.packs])[content.order]
        return (States(states.view(len(content), -1, states.shape[-1])),)

    return encoder.register_forward_pre_hook(encode).remove


def _text_states(backbone: PreTrainedModel, token_ids: Tensor, mask: Tensor) -> Tensor:
    """[CLS] states ``[n, h]``. The backbone computes the positions: RoBERTa does not count padding."""
    states: Tensor = backbone(input_ids=token_ids, attention_mask=mask).last_hidden_state
    return states[:, 0]


def _encode_padding(model: TransRec, encoder: ContentItemEncoder, width: int) -> Iterator[Undo]:
    """Fill padded positions of the user encoder's input, which are zero, with the padding item's embedding.

    Other positions read the outputs of padded ones. A padded position attends uniformly to all positions: its
    query is zero and nothing is masked. Masking everything with -1e9 would be uniform, too, but in the
    backward pass fused attention recomputes the weights, and gets 1 instead of 1 / L.
    """
    padded: list[Tensor] = []

    def fill(_: nn.Module, arguments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        items, log_mask = arguments
        padded[:] = [~log_mask[..., None]]
        empty = padded[0] & (items == 0).all(-1, keepdim=True)
        with original_weights(encoder):  # the user encoder is computed in float32
            padding = model.encode_items(States(_padding_states(encoder, width)))
        return torch.where(empty, padding.to(items.dtype), items), log_mask

    def unmask(_: nn.Module, arguments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, mask = arguments
        return x, mask.masked_fill(padded[0][:, None], 0)

    def without_query(_: nn.Module, __: object, query: Tensor) -> Tensor:
        return query.masked_fill(padded[0], 0)

    yield model.user_encoder.register_forward_pre_hook(fill).remove
    assert isinstance(model.user_encoder, TransformerUserEncoder)  # that of the released code
    for block in model.user_encoder.blocks:
        yield block.register_forward_pre_hook(unmask).remove
        query = block.get_submodule("attention.query")
        yield query.register_forward_hook(without_query).remove


def _padding_states(encoder: ContentItemEncoder, width: int) -> Tensor:
    """[CLS] states of the padding item, ``[1, 1, h]``.

    As an image, its pixels are zero after normalisation. As a text, its words have the id 0, whatever the
    tokenizer's padding token is, and all are masked, so that they attend to each other uniformly; torch's
    fused attention would compute something else.
    """
    backbone = encoder.backbone
    if isinstance(encoder, ImageItemEncoder):
        size = image_size(backbone.config)
        blank = torch.zeros(1, backbone.config.num_channels, size, size)
        return encoder.states_of_scaled(blank.to(backbone.device, backbone.dtype))
    words = torch.zeros(1, width, dtype=torch.long, device=backbone.device)
    least = torch.finfo(backbone.dtype).min
    nothing = torch.full((1, 1, width, width), least, device=backbone.device, dtype=backbone.dtype)
    with sdpa_kernel(SDPBackend.MATH):  # fused, the gradient would be wrong, as in _encode_padding
        return _text_states(backbone, words, nothing)[:, None]
