"""The data flow of the released code, as the baseline of the benchmarks.

It uses the same model and weights, in float32. Each position of a sequence, including padding, and each
negative is padded to 30 tokens (or resized to 224 x 224) and encoded separately. Ranks are computed one user
at a time, with a sort.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.data.batches import IdBatch
from adapter4rec.data.text import TextStore
from adapter4rec.models.dropout import Dropout
from adapter4rec.models.transrec import TransRec

WIDTH = 30


def plain(model: TransRec) -> TransRec:
    """Switch a model to eager attention and PyTorch's dropout."""
    model.item_encoder.backbone.set_attn_implementation("eager")
    for module in model.modules():
        if isinstance(module, Dropout):
            module.__class__ = nn.Dropout  # in place, so that hooks of adapters are kept
    return model


def padded_titles(store: TextStore, items: np.ndarray) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, int64 ``[n, 30]``, of items; item 0 is padding only."""
    (titles,) = store.attributes
    ids = np.zeros((len(items), WIDTH), np.int64)
    mask = np.zeros((len(items), WIDTH), np.int64)
    for row, item in enumerate(items):
        if item:
            tokens = titles.tokens[titles.offsets[item - 1] : titles.offsets[item]]
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def encoded_titles(model: TransRec, store: TextStore, items: np.ndarray) -> Tensor:
    """Embeddings of items with titles, ``[n, d]``."""
    ids, mask = padded_titles(store, items)
    states = model.item_encoder.backbone(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    return F.gelu(model.item_encoder.head(states))


def encoded_images(model: TransRec, read: Callable[[int], np.ndarray], items: np.ndarray) -> Tensor:
    """Embeddings of items with images, ``[n, d]``; ``read`` returns the pixels of an item."""
    pixels = np.stack([read(item) for item in items]).transpose(0, 3, 1, 2)
    scaled = (torch.from_numpy(pixels.astype(np.float32)) / 255 - 0.5) / 0.5
    states = model.item_encoder.backbone(pixel_values=scaled).last_hidden_state[:, 0]
    return F.gelu(model.item_encoder.head(states))


def loss(model: TransRec, encode: Callable[[np.ndarray], Tensor], ids: IdBatch) -> Tensor:
    """The SASRec loss of a batch of users."""
    users, width = ids.positives.shape
    items = encode(np.concatenate([ids.positives, ids.negatives[:, :, 0]], axis=1).ravel())
    items = items.view(users, 2 * width - 1, -1)
    positives, negatives = items[:, :width], items[:, width:]
    log_mask = torch.from_numpy(ids.log_mask)
    vectors = model.encode_users(positives[:, :-1], log_mask)
    positive_scores = (vectors * positives[:, 1:]).sum(-1)[log_mask]
    negative_scores = (vectors * negatives).sum(-1)[log_mask]
    ones, zeros = torch.ones_like(positive_scores), torch.zeros_like(negative_scores)
    return F.binary_cross_entropy_with_logits(positive_scores, ones) + F.binary_cross_entropy_with_logits(
        negative_scores, zeros
    )


def ranks(users: Tensor, items: Tensor, targets: np.ndarray, masked: list[np.ndarray]) -> list[int]:
    """The rank of each user's target, with a loop over users and a sort of all items."""
    places = torch.arange(1, len(items) + 1)
    found = []
    for user, target, history in zip(users, targets.tolist(), masked, strict=True):
        scores = items @ user
        scores[torch.from_numpy(history)] = -torch.inf
        labels = torch.zeros(len(items), dtype=torch.int64)
        labels[target] = 1
        order = torch.argsort(scores, descending=True)
        found.append(int((labels[order] * places).sum()))
    return found
