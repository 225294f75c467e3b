"""Attention among the tokens of each text, where texts are laid end to end (see ``Packing``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from adapter4rec.data.packing import Packing
from adapter4rec.models.dropout import dropped
from adapter4rec.models.layers import layers_of
from adapter4rec.models.layouts import LAYOUTS

_NAME = "adapter4rec_packed"


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    *,
    dropout: float,
    scaling: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Scaled dot-product attention within each text.

    On a CPU stretches of equally long texts are attended to one by one, without a mask. On a GPU, where each
    call costs more than a few padded scores, rows are padded for this step alone.

    Args:
        query: ``[1, heads, tokens, width]``.
        key: the same.
        value: the same.
        packing: where the texts lie.
        dropout: of the attention's probabilities.
        scaling: of the scores; by default 1 / √width.
        window: tokens see others that stand fewer than so many places away; None for all.

    Returns:
        ``[1, heads, tokens, width]``.
    """
    attend = _padded if query.is_cuda else _by_spans
    return attend((query, key, value), packing, _How(dropout, scaling, window))


class _How(NamedTuple):
    dropout: float
    scaling: float | None
    window: int | None

    def near(self, length: int, device: torch.device) -> Tensor | None:
        """Bool ``[length, length]``, true where two places are near enough; None where all are."""
        if self.window is None or length <= self.window:
            return None
        places = torch.arange(length, device=device)
        return (places[:, None] - places).abs() < self.window


def _by_spans(tensors: tuple[Tensor, Tensor, Tensor], packing: Packing, how: _How) -> Tensor:
    tokens = [count * length for count, length in packing.spans]
    stretches = zip(*(tensor[0].split(tokens, dim=1) for tensor in tensors), strict=True)
    attended = []
    for span, stretch in zip(packing.spans, stretches, strict=True):
        rows = [part.unflatten(1, span).transpose(0, 1) for part in stretch]
        mask = how.near(span[1], rows[0].device)
        if how.dropout:
            y = _attention_with_dropout(*rows, mask, how.dropout, how.scaling)
        else:
            y = F.scaled_dot_product_attention(*rows, attn_mask=mask, scale=how.scaling)
        attended.append(y.transpose(1, 2).flatten(0, 1))
    return torch.cat(attended).transpose(0, 1)[None]


def _padded(tensors: tuple[Tensor, Tensor, Tensor], packing: Packing, how: _How) -> Tensor:
    longest = packing.longest
    real = packing.real(longest)
    places = packing.firsts[:, None] + torch.arange(longest, device=real.device)
    places = places.clamp(max=len(packing.places) - 1)
    rows = [tensor[0].transpose(0, 1)[places].transpose(1, 2) for tensor in tensors]
    mask, near = real[:, None, None], how.near(longest, real.device)
    if near is not None:
        # A padding place sees the text's tokens, too, so that it is never without any.
        mask = mask & (near | ~real[:, None, :, None])
    y = F.scaled_dot_product_attention(*rows, attn_mask=mask, dropout_p=how.dropout, scale=how.scaling)
    return y.transpose(1, 2)[real].transpose(0, 1)[None]


def _attention_with_dropout(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None
) -> Tensor:
    """The definition, written out: torch has no fused kernel with dropout on a CPU."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query * scaling @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return dropped(scores.softmax(-1), dropout) @ value


@torch.compiler.disable  # the spans of each pack are others
def _for_transformers(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that a Hugging Face encoder calls; gives ``[1, tokens, heads, width]``."""
    del module, attention_mask
    y = packed_attention(
        query,
        key,
        value,
        options["packing"],
        dropout=options.get("dropout", 0.0),
        scaling=options.get("scaling"),
        window=options.get("sliding_window"),
    )
    return y.transpose(1, 2), None


AttentionInterface.register(_NAME, _for_transformers)


@contextmanager
def _attending_within_texts(backbone: PreTrainedModel) -> Iterator[None]:
    config = backbone.config
    usual = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = usual


def first_states(backbone: PreTrainedModel, words: Tensor, positions: Tensor, packing: Packing) -> Tensor:
    """The last layer's state of each text's first token.

    Args:
        backbone: a Hugging Face text encoder.
        words: word embeddings ``[tokens, h]``.
        positions: int64 ``[tokens]``.
        packing: where the texts lie.

    Returns:
        ``[texts, h]``.
    """
    packings: list[Packing] = []
    hooks = [
        # An adapter may have lengthened the texts on the way in: this hook comes behind its own.
        backbone.register_forward_pre_hook(
            lambda _, __, arguments: packings.append(arguments["packing"]), with_kwargs=True
        )
    ]
    layout, last = LAYOUTS[backbone.config.model_type], layers_of(backbone)[-1]
    alone = not layout.pre_norm and not last._forward_hooks
    if alone:
        # Nothing behind the last attention reads another token, unless something reads the whole output.
        entry = last.get_submodule(layout.attention.entry)
        hooks.append(
            entry.register_forward_pre_hook(
                lambda _, arguments: tuple(tokens[:, packings[0].firsts] for tokens in arguments),
                prepend=True,
            )
        )
    with _attending_within_texts(backbone):
        try:
            output = backbone(inputs_embeds=words[None], position_ids=positions[None], packing=packing)
        finally:
            for hook in hooks:
                hook.remove()
    states = output.last_hidden_state[0]
    return states if alone else states[packings[0].firsts]
