"""TransRec: an item encoder, a user encoder and an objective, with adapters beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.adapters.base import AdapterSet
from adapter4rec.data.batches import Batch
from adapter4rec.data.content import Content
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.losses import Loss
from adapter4rec.models.registry import LOSSES, USER_ENCODERS, registered
from adapter4rec.models.settings import ModelSettings
from adapter4rec.models.user_encoder import UserEncoder

PARTS = ("backbone", "item_head", "user_encoder")
"""The parts of a source model, each with its own learning rate."""

ADAPTER_PARTS = (
    "adapter",
    "shared",
    "item_join",
    "user_join",
    "item_layer_norms",
    "user_layer_norms",
    "adapted_head",
)
"""The parts of what is trained beside a frozen model, each with its own learning rate."""


def part_of(name: str) -> str:
    """The part that a parameter of :class:`TransRec` belongs to, by its name."""
    if name.startswith("adapters."):
        return _adapter_part(name.split(".")[1:])
    if name.startswith("user_encoder."):
        return "user_encoder"
    return "item_head" if name.startswith("item_encoder.head.") else "backbone"


def _adapter_part(path: list[str]) -> str:
    owner, field = path[:2]
    if owner == "shared":
        return "shared"
    if field in ("layer_norms", "join"):
        return f"{owner}_{field}"
    return "adapted_head" if field == "head" else "adapter"


class TransRec(nn.Module):
    """The recommender: score = user vector · item embedding.

    Args:
        item_encoder: maps :class:`~adapter4rec.data.content.Content` of n items to ``[n, d]``.
        user_encoder: maps embeddings of sequences to next-item vectors.
        objective: name of the training objective, in ``LOSSES``.
    """

    def __init__(self, item_encoder: nn.Module, user_encoder: UserEncoder, objective: str) -> None:
        super().__init__()
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.objective = objective
        self.loss: Loss = registered(LOSSES, objective)()
        self.fixed = frozenset(
            f"item_encoder.{name}"
            for name, parameter in item_encoder.named_parameters()
            if not parameter.requires_grad
        )
        """Parameters that are never trained: ViTMAE's position embeddings."""
        self.adapters = AdapterSet()
        """Adapters of the encoders ``item`` and ``user``; empty for a source model."""

    def encode_items(self, content: Content) -> Tensor:
        """Embeddings of the content's items, float32 ``[n, d]``."""
        return self.item_encoder(content).float()

    def encode_users(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """Next-item vectors ``[users, L, d]`` from item embeddings ``[users, L, d]`` (see UserEncoder)."""
        return self.user_encoder(items, log_mask)

    def forward(self, batch: Batch) -> Tensor:
        """This share's part of the global batch's loss: its sum over the share, divided by all targets."""
        embeddings = self.encode_items(batch.content)
        # The user encoder is small and its sums are delicate: it stays in float32 under autocast.
        with torch.autocast(embeddings.device.type, enabled=False):
            padding = embeddings.new_zeros(1, embeddings.shape[1])
            embeddings = torch.cat([padding, embeddings])
            # A look-up, not indexing: on a CPU the gradient of indexing is summed in an order that changes.
            sequences = F.embedding(batch.positives, embeddings)
            users = self.encode_users(sequences[:, :-1], batch.log_mask)
            total = self.loss(users, sequences[:, 1:], embeddings, batch)
        return total / batch.targets_in_step


def new_transrec(
    settings: ModelSettings, build_encoder: Callable[[Any], nn.Module] | None, n_items: int
) -> TransRec:
    """A model with a pretrained backbone (or the id tower) and new weights elsewhere, fixed by the seed.

    Args:
        settings: of the model.
        build_encoder: builds the item encoder from the settings; None for the id tower.
        n_items: N, for the id tower.

    Raises:
        UserError: the backbone is missing or broken, or sizes do not fit.
    """
    torch.manual_seed(settings.seed)
    encoder = build_encoder(settings) if build_encoder else IdItemEncoder(n_items, settings.embedding_dim)
    user_encoder = registered(USER_ENCODERS, settings.user_encoder).from_settings(settings)
    return TransRec(encoder, user_encoder, settings.objective)
