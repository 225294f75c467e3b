"""What the released code computes differently outside the adapters, for ``--semantics release``.

See docs/differences.md. The variants of the adapter families are in ``released_variants.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.adapters.sites import Undo
from adapter4rec.data.content import Content
from adapter4rec.data.states import States
from adapter4rec.data.text import Pack, Text
from adapter4rec.models.backbones import first_position, image_size
from adapter4rec.models.image_encoder import RELEASED_MASK_RATIO, ImageItemEncoder
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.precision import original_weights


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
    backbone = model if isinstance(model, PreTrainedModel) else getattr(items, "backbone", None)
    if backbone is not None and backbone.config.model_type == "vit_mae":
        yield partial(setattr, backbone.config, "mask_ratio", backbone.config.mask_ratio)
        backbone.config.mask_ratio = RELEASED_MASK_RATIO
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
    """Pad all texts to one length before they are encoded."""

    def encode(_: nn.Module, arguments: tuple[Content]) -> tuple[Content]:
        (content,) = arguments
        if not isinstance(content, Text) or content.layers:
            return arguments
        filling = encoder.backbone.config.pad_token_id or 0
        rows = [_padded(pack, width, filling) for pack in content.packs]
        states = torch.cat([_text_states(encoder.backbone, *padded) for padded in rows])[content.order]
        return (States(states.view(len(content), -1, states.shape[-1])),)

    return encoder.register_forward_pre_hook(encode).remove


def _padded(pack: Pack, width: int, pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask of the texts of a pack, ``[n, width]`` both.

    Raises:
        UserError: one of them is longer than ``width``.
    """
    if pack.packing.longest > width:
        raise UserError(
            f"--released_tokens {width}: a text has {pack.packing.longest} tokens; use that of --title_tokens"
        )
    mask = pack.packing.real(width)
    token_ids = pack.values.new_full(mask.shape, pad_token_id)
    token_ids[mask] = pack.values
    return token_ids, mask


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
