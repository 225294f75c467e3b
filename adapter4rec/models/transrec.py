"""TransRec: an item encoder and a user encoder trained with one objective, optionally with adapters."""

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
from adapter4rec.models.parts import ParameterGroups, merge_groups
from adapter4rec.models.registry import LOSSES, USER_ENCODERS, registered
from adapter4rec.models.settings import ModelSettings
from adapter4rec.models.user_encoder import UserEncoder


class TransRec(nn.Module):
    """The recommender: score = user vector · item embedding.

    Args:
        item_encoder: maps :class:`~adapter4rec.data.content.Content` of n items to embeddings ``[n, d]``.
        user_encoder: maps sequences of item embeddings to next-item vectors.
        objective: name of the training objective, a key of ``LOSSES``.
    """

    def __init__(self, item_encoder: nn.Module, user_encoder: UserEncoder, objective: str) -> None:
        super().__init__()
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.objective = objective
        self.loss: Loss = registered(LOSSES, objective)()
        self.adapters = nn.ModuleDict()
        """Adapters of the ``item`` and ``user`` encoders (an ``AdapterSet``); empty in a source model."""

    def parameter_groups(self) -> ParameterGroups:
        """All parameters by name, in the groups that the submodules declare (see ``parts.py``)."""
        groups = {
            "item_encoder": self.item_encoder.parameter_groups(),
            "user_encoder": self.user_encoder.parameter_groups(),
            "loss": self.loss.parameter_groups(),
        }
        if len(self.adapters):
            groups["adapters"] = self.adapters.parameter_groups()
        return merge_groups(groups)

    def encode_items(self, content: Content) -> Tensor:
        """Item embeddings, float32 ``[n, d]``."""
        return self.item_encoder(content).float()

    def encode_users(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """Next-item vectors ``[users, L, d]`` from item embeddings ``[users, L, d]`` (see UserEncoder)."""
        return self.user_encoder(items, log_mask)

    def forward(self, batch: Batch) -> Tensor:
        """Sum of the losses in this batch, divided by the number of targets in the whole training step.

        Summed over accumulation steps and processes, this is the mean loss of the global batch.
        """
        embeddings = self.encode_items(batch.content)
        # The user encoder is small and sensitive to rounding, so it stays in float32 under autocast.
        with torch.autocast(embeddings.device.type, enabled=False):
            padding = embeddings.new_zeros(1, embeddings.shape[1])
            embeddings = torch.cat([padding, embeddings])
            # F.embedding instead of indexing, whose backward is not deterministic on CPU.
            sequences = F.embedding(batch.positives, embeddings)
            users = self.encode_users(sequences[:, :-1], batch.log_mask)
            total = self.loss(users, sequences[:, 1:], embeddings, batch)
        return total / batch.targets_in_step


def new_transrec(
    settings: ModelSettings, build_encoder: Callable[[Any], nn.Module] | None, n_items: int
) -> TransRec:
    """A model with a pretrained backbone (or the id tower); all other weights are initialised from the seed.

    Args:
        settings: model settings.
        build_encoder: builds the item encoder from the settings; None for the id tower.
        n_items: N, used by the id tower only.

    Raises:
        UserError: the backbone is missing or invalid, or the sizes are incompatible.
    """
    torch.manual_seed(settings.seed)
    encoder = build_encoder(settings) if build_encoder else IdItemEncoder(n_items, settings.embedding_dim)
    user_encoder = registered(USER_ENCODERS, settings.user_encoder).from_settings(settings)
    return TransRec(encoder, user_encoder, settings.objective)
