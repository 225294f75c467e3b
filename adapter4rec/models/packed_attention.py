"""Attention within each text of a pack, in which texts are concatenated without padding (see ``Packing``)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.data.packing import Packing
from adapter4rec.models.dropout import dropped
from adapter4rec.models.layers import has_forward_hooks, layers_of
from adapter4rec.models.layouts import LAYOUTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "adapter4rec_packed"

Heads: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Query, key and value."""


def packed_attention(
    heads: Heads, packing: Packing, *, dropout: float, scaling: float | None = None, window: int | None = None
) -> Tensor:
    """Scaled dot-product attention within each text.

    On CPU, each group of equally long texts is one call without a mask. On GPU, where a kernel launch costs
    more than some padded scores, texts are padded for this operation only.

    Args:
        heads: query, key and value, each ``[1, heads, tokens, width]``.
        packing: the lengths of the texts.
        dropout: probability of dropout on the attention weights.
        scaling: of the scores; by default 1 / √width.
        window: sliding window; tokens attend to positions at a distance below it. None for all positions.

    Returns:
        ``[1, heads, tokens, width]``.
    """
    query, key, value = heads
    attend = _padded if query.is_cuda else _by_spans
    return attend((query[0], key[0], value[0]), packing, dropout, scaling, window).transpose(0, 1)[None]


def _window_mask(window: int | None, length: int, device: torch.device) -> Tensor | None:
    """Bool ``[length, length]``, true within the sliding window; None if all positions are."""
    if window is None or length <= window:
        return None
    positions = torch.arange(length, device=device)
    return (positions[:, None] - positions).abs() < window


def _by_spans(
    heads: Heads, packing: Packing, dropout: float, scaling: float | None, window: int | None
) -> Tensor:
    tokens = [count * length for count, length in packing.spans]
    spans = zip(*(torch.split(tensor, tokens, dim=1) for tensor in heads), strict=True)
    attended = []
    for shape, span in zip(packing.spans, spans, strict=True):
        query, key, value = (part.unflatten(1, shape).transpose(0, 1) for part in span)
        mask = _window_mask(window, shape[1], query.device)
        if dropout:  # by the definition of attention: PyTorch has no fused kernel with dropout on CPU
            scores = query * (query.shape[-1] ** -0.5 if scaling is None else scaling) @ key.transpose(-1, -2)
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            y = dropped(scores.softmax(-1), dropout) @ value
        else:
            y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        attended.append(y.transpose(1, 2).flatten(0, 1))
    return torch.cat(attended)


def _padded(
    heads: Heads, packing: Packing, dropout: float, scaling: float | None, window: int | None
) -> Tensor:
    real = packing.real(packing.longest)
    tokens = packing.firsts[:, None] + torch.arange(packing.longest, device=real.device)
    tokens = tokens.clamp(max=len(packing.places) - 1)
    query, key, value = (tensor.transpose(0, 1)[tokens].transpose(1, 2) for tensor in heads)
    mask, within = real[:, None, None], _window_mask(window, packing.longest, real.device)
    if within is not None:
        # Padding queries attend to all tokens of the text, so that no row is fully masked (NaN).
        mask = mask & (within | ~real[:, None, :, None])
    y = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    # By index: selecting with a mask would wait for the GPU in each layer.
    return y.transpose(1, 2)[packing.texts, packing.places]


@torch.compiler.disable  # type: ignore[untyped-decorator]  # spans differ from pack to pack
def _for_transformers(
    _: nn.Module, query: Tensor, key: Tensor, value: Tensor, *__: object, **options: Any
) -> tuple[Tensor, None]:
    """The attention function registered with transformers; returns ``[1, tokens, heads, width]``."""
    heads, dropout = (query, key, value), options.get("dropout", 0.0)
    scaling, window = options.get("scaling"), options.get("sliding_window")
    y = packed_attention(heads, options["packing"], dropout=dropout, scaling=scaling, window=window)
    return y.transpose(1, 2), None


def text_states(
    backbone: PreTrainedModel, words: Tensor, positions: Tensor, packing: Packing, pooling: str = "cls"
) -> Tensor:
    """The vector of each text: the last hidden state of its first token, or the mean over its tokens.

    Args:
        backbone: a Hugging Face text encoder.
        words: word embeddings ``[tokens, h]``.
        positions: position ids, int64 ``[tokens]``.
        packing: the lengths of the texts.
        pooling: ``cls`` or ``mean``; the mean includes special tokens, and those of a prompt.

    Returns:
        ``[texts, h]``.
    """
    from transformers import AttentionInterface  # takes seconds, and user encoders do without

    AttentionInterface.register(_NAME, _for_transformers)
    packings: list[Packing] = []
    layout, last = LAYOUTS[backbone.config.model_type], layers_of(backbone)[-1]
    # After the last attention only first tokens are needed, unless a hook reads the whole output.
    first_only = pooling == "cls" and not layout.pre_norm and not has_forward_hooks(last)
    with ExitStack() as undo:
        # Prompt tuning may lengthen the texts in a hook of its own, which runs before this one.
        undo.callback(
            backbone.register_forward_pre_hook(
                lambda _, __, arguments: packings.append(arguments["packing"]), with_kwargs=True
            ).remove
        )
        if first_only:
            entry = last.get_submodule(layout.attention.entry)
            undo.callback(
                entry.register_forward_pre_hook(
                    lambda _, arguments: tuple(tokens[:, packings[0].firsts] for tokens in arguments),
                    prepend=True,
                ).remove
            )
        undo.callback(backbone.set_attn_implementation, "sdpa")
        backbone.set_attn_implementation(_NAME)
        output = backbone(inputs_embeds=words[None], position_ids=positions[None], packing=packing)
    states: Tensor = output.last_hidden_state[0]
    if pooling == "mean":
        shapes = packings[0].spans
        spans = torch.split(states, [count * length for count, length in shapes])
        means = [span.view(*shape, -1).mean(1) for span, shape in zip(spans, shapes, strict=True)]
        return torch.cat(means)
    return states if first_only else states[packings[0].firsts]


def padded_text_states(
    backbone: PreTrainedModel, arguments: dict[str, Tensor], pooling: str = "cls"
) -> Tensor:
    """The same vectors as those of :func:`text_states`, from texts that are padded on the right.

    Attention is computed by its definition, whose scores at padding are large negative numbers, so that the
    window of local attention may consist of padding alone.

    Args:
        backbone: a Hugging Face text encoder.
        arguments: its ``input_ids``, ``attention_mask`` and ``position_ids``.
        pooling: ``cls`` or ``mean``.

    Returns:
        ``[texts, h]``.
    """
    masks: list[Tensor] = []  # prompt tuning may lengthen the texts
    with ExitStack() as undo:
        undo.callback(
            backbone.register_forward_pre_hook(
                lambda _, __, given: masks.append(given["attention_mask"]), with_kwargs=True
            ).remove
        )
        undo.callback(backbone.set_attn_implementation, "sdpa")
        backbone.set_attn_implementation("eager")
        states: Tensor = backbone(**arguments).last_hidden_state
    if pooling == "cls":
        return states[:, 0]
    real = masks[0][..., None].to(states.dtype)
    return (states * real).sum(1) / real.sum(1)
