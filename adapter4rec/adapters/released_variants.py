"""What the code released with the paper computes where it departs from what the adapters' papers describe.

Chosen by ``--semantics release``, to compare with released numbers and checkpoints; docs/differences.md has
a list. The families know nothing of this, but that K-Adapter's config holds an option for it: a variant is a
builder that stands in for a family's, a kind of :class:`Sites` whose places behave otherwise, or a change to
the whole model. Families that are not named here compute the same in both semantics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import loralib
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from adapter4rec.adapters.base import Adapter, AdapterConfig
from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.compacter import Compacter
from adapter4rec.adapters.houlsby import Houlsby
from adapter4rec.adapters.houlsby_parallel import HoulsbyParallel, HoulsbyParallelConfig
from adapter4rec.adapters.k_adapter import KAdapter, KAdapterConfig
from adapter4rec.adapters.lora import Lora, LoraConfig
from adapter4rec.adapters.pfeiffer import Pfeiffer
from adapter4rec.adapters.pfeiffer_after_layernorm import PfeifferAfterLayerNorm
from adapter4rec.adapters.prompt import Prompt, PromptConfig
from adapter4rec.adapters.sites import FEED_FORWARD, Projection, Sites, Undo
from adapter4rec.data.content import Content
from adapter4rec.data.packing import Packing
from adapter4rec.data.states import States
from adapter4rec.data.text import Text, TokenPack
from adapter4rec.models.backbones import first_position, image_size
from adapter4rec.models.image_encoder import RELEASED_MASK_RATIO, ImageItemEncoder
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layouts import Reads
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.precision import own_weights

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
            if (packing := arguments.get("packing")) is not None:
                own = F.embedding(packing.places.clamp(max=len(further) - 1), further).to(words.dtype)
                overwritten = torch.where(packing.places[:, None] < len(further), own, words)
                return arguments | {"inputs_embeds": overwritten}
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

    def on_mask(self, remember: Callable[[Tensor | Packing | None], None]) -> Undo:
        """Tell ``remember`` at each call that there is no mask."""
        return super().on_mask(lambda mask: remember(None))


class ReleasedKAdapter(KAdapter):
    """The adapters attend to padding, in the user encoder to later places, too.

    What stands in padded places then matters: see :func:`change_as_released`.
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


_PADDING_WORD = 0
"""The padding item's title is this word throughout, whatever the tokenizer's padding token is."""


def change_as_released(model: TransRec | PreTrainedModel, config: AdapterConfig) -> None:
    """Change what the released code has otherwise outside the adapters; ``model.adapters`` undoes it.

    ViTMAE drops 75 % of the patches at random, in evaluation too. With K-Adapter, texts are padded to a fixed
    width, and a padded place of a user's sequence holds the embedding of a padding item.

    Raises:
        UserError: the texts' width is more than the backbone has places for, or items are encoded from no
            content.
    """
    attach = model.adapters.attach
    whole = isinstance(model, TransRec)
    backbone = getattr(model.item_encoder, "backbone", None) if whole else model
    if backbone is not None and backbone.config.model_type == "vit_mae":
        attach(_set_mask_ratio(backbone, RELEASED_MASK_RATIO))
    if whole and isinstance(config, KAdapterConfig):
        _require_places(model.item_encoder, config.released_tokens)
        if "item" in config.encoders and isinstance(model.item_encoder, TextItemEncoder):
            attach(_pad_texts(model.item_encoder, config.released_tokens))
        if "user" in config.encoders:
            for undo in _encode_padding(model, config.released_tokens):
                attach(undo)


def _require_places(encoder: nn.Module, width: int) -> None:
    if not isinstance(encoder, ContentItemEncoder):
        raise UserError("--semantics release: an id tower has no padding item")
    if isinstance(encoder, TextItemEncoder):
        config = encoder.backbone.config
        places = config.max_position_embeddings - first_position(config)
        if width > places:
            raise UserError(f"--released_tokens {width}: the backbone has {places} places")


def _set_mask_ratio(backbone: PreTrainedModel, ratio: float) -> Undo:
    before = backbone.config.mask_ratio
    backbone.config.mask_ratio = ratio

    def undo() -> None:
        backbone.config.mask_ratio = before

    return undo


def _pad_texts(encoder: TextItemEncoder, width: int) -> Undo:
    """Let all texts be encoded at one width."""

    def encode(_: nn.Module, arguments: tuple[Content]) -> tuple[Content]:
        (content,) = arguments
        if not isinstance(content, Text):
            return arguments
        filling = encoder.backbone.config.pad_token_id or 0
        rows = [_padded(pack, width, filling) for pack in content.packs]
        states = torch.cat([_text_states(encoder.backbone, *padded) for padded in rows])
        return (States(states[content.order].unflatten(0, (len(content), -1))),)

    return encoder.register_forward_pre_hook(encode).remove


def _padded(pack: TokenPack, width: int, pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of the texts of a pack, ``[n, width]`` both.

    Raises:
        UserError: one of them is longer.
    """
    if pack.packing.longest > width:
        raise UserError(
            f"--released_tokens {width}: a text has {pack.packing.longest} tokens; make it as large as "
            "--title_tokens"
        )
    mask = pack.packing.real(width)
    token_ids = pack.token_ids.new_full(mask.shape, pad_token_id)
    token_ids[mask] = pack.token_ids
    return token_ids, mask


def _text_states(backbone: PreTrainedModel, token_ids: Tensor, mask: Tensor) -> Tensor:
    """[CLS] states ``[n, h]``; the backbone numbers the positions itself: RoBERTa does not count padding."""
    return backbone(input_ids=token_ids, attention_mask=mask).last_hidden_state[:, 0]


def _encode_padding(model: TransRec, width: int) -> Iterator[Undo]:
    """Let a padded place of the user encoder's sequences, which is zero, hold the padding item's embedding.

    What such a place computes is then read, too: it attends uniformly to all places, whatever they hold. Its
    query is zero for that and nothing is masked. A mask of -1e9 throughout would be uniform as well, but
    fused attention recomputes the weights for the gradient and cannot tell 1 from 1 / L there.
    """
    padded: list[Tensor] = []

    def fill(_: nn.Module, arguments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        items, log_mask = arguments
        padded[:] = [~log_mask[..., None]]
        empty = padded[0] & (items == 0).all(-1, keepdim=True)
        with own_weights(model.item_encoder):  # the user encoder is computed in float32
            padding = model.encode_items(States(_padding_states(model.item_encoder, width)))
        return torch.where(empty, padding.to(items.dtype), items), log_mask

    def unmask(_: nn.Module, arguments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, mask = arguments
        return x, mask.masked_fill(padded[0][:, None], 0)

    def without_query(_: nn.Module, __: tuple, query: Tensor) -> Tensor:
        return query.masked_fill(padded[0], 0)

    yield model.user_encoder.register_forward_pre_hook(fill).remove
    for block in model.user_encoder.blocks:
        yield block.register_forward_pre_hook(unmask).remove
        yield block.attention.query.register_forward_hook(without_query).remove


def _padding_states(encoder: ContentItemEncoder, width: int) -> Tensor:
    """[CLS] states of the padding item, ``[1, 1, h]``.

    As an image its pixels are zero behind scaling. As a text all its words are masked, so that they attend to
    each other uniformly; torch's fused attention would give something else.
    """
    backbone = encoder.backbone
    if isinstance(encoder, ImageItemEncoder):
        size = image_size(backbone.config)
        blank = torch.zeros(1, backbone.config.num_channels, size, size)
        return encoder.states_of_scaled(blank.to(backbone.device, backbone.dtype))
    words = torch.full((1, width), _PADDING_WORD, device=backbone.device)
    least = torch.finfo(backbone.dtype).min
    nothing = torch.full((1, 1, width, width), least, device=backbone.device, dtype=backbone.dtype)
    with sdpa_kernel(SDPBackend.MATH):  # fused, the gradient would be wrong, as in _encode_padding
        return _text_states(backbone, words, nothing)[:, None]
