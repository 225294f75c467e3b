"""TransRec: an item encoder, a user encoder and a training objective, optionally with adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.data.batches import Batch
from adapter4rec.data.content import Content
from adapter4rec.models.item_encoder import IdItemEncoder
from adapter4rec.models.losses import Loss
from adapter4rec.models.parts import ParameterGroups, combined
from adapter4rec.models.registry import LOSSES, USER_ENCODERS, registered
from adapter4rec.models.settings import ModelSettings
from adapter4rec.models.user_encoder import UserEncoder


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
        self.adapters = nn.ModuleDict()
        """Adapters of the encoders ``item`` and ``user`` (an ``AdapterSet``); empty for a source model."""

    def parameter_groups(self) -> ParameterGroups:
        """All parameters by name, in the groups that encoders and adapters declare (see ``parts.py``)."""
        groups = {
            "item_encoder": self.item_encoder.parameter_groups(),
            "user_encoder": self.user_encoder.parameter_groups(),
            "loss": self.loss.parameter_groups(),
        }
        if len(self.adapters):
            groups["adapters"] = self.adapters.parameter_groups()
        return combined(groups)

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
