"""TransRec: an item encoder and a user encoder trained with one objective, optionally with adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.data.batches import Batch
from adapter4rec.data.content import Content
from adapter4rec.models.item_encoder import ContentItemEncoder, IdItemEncoder, VectorItemEncoder
from adapter4rec.models.losses.base import Loss
from adapter4rec.models.losses.bce import BceLoss
from adapter4rec.models.losses.settings import LossSettings
from adapter4rec.models.parts import ParameterGroups, merge_groups
from adapter4rec.models.registry import LOSSES, OBJECTIVES, USER_ENCODERS, registered
from adapter4rec.models.settings import ModelSettings
from adapter4rec.models.user_encoders.base import UserEncoder
from adapter4rec.models.weights import require_same
from adapter4rec.utils.errors import UserError

EncoderBuilder: TypeAlias = Callable[[Any], ContentItemEncoder | VectorItemEncoder]
"""Builds an item encoder from the settings of a model."""


class TransRec(nn.Module):
    """The recommender: score = user vector · item embedding.

    Args:
        item_encoder: maps :class:`~adapter4rec.data.content.Content` of n items to embeddings ``[n, d]``.
        user_encoder: maps sequences of item embeddings to next-item vectors.
        objective: name of the training objective, a key of ``OBJECTIVES``.
        loss: the loss; by default that of the paper.
        cosine: score with cosine similarity: item embeddings and next-item vectors have length 1.
    """

    def __init__(
        self,
        item_encoder: ContentItemEncoder | VectorItemEncoder | IdItemEncoder,
        user_encoder: UserEncoder,
        objective: str,
        loss: Loss | None = None,
        *,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        self.item_encoder = item_encoder
        self.user_encoder = user_encoder
        self.objective = objective
        self.cosine = cosine
        self.loss = loss or BceLoss(LossSettings(), n_items=0)
        self.adapters = nn.ModuleDict()
        """Adapters of the ``item`` and ``user`` encoders (an ``AdapterSet``); empty in a source model."""

    def parameter_groups(self) -> ParameterGroups:
        """All parameters by name, in the groups that the submodules declare (see ``parts.py``)."""
        inserted = {id(parameter) for parameter in self.adapters.parameters()}  # into the backbone, by PEFT
        of_items = {
            group: {name: one for name, one in parameters.items() if id(one) not in inserted}
            for group, parameters in self.item_encoder.parameter_groups().items()
        }
        groups: dict[str, ParameterGroups] = {
            "item_encoder": of_items,
            "user_encoder": self.user_encoder.parameter_groups(),
            "loss": self.loss.parameter_groups(),
            "adapters": getattr(self.adapters, "parameter_groups", dict)(),  # none in a source model
        }
        return merge_groups(groups)

    @property
    def positions(self) -> slice:
        """The positions of a sequence whose next item is predicted in training."""
        return OBJECTIVES[self.objective]

    def encode_items(self, content: Content) -> Tensor:
        """Item embeddings, float32 ``[n, d]``."""
        embeddings: Tensor = self.item_encoder(content).float()
        return F.normalize(embeddings, dim=-1) if self.cosine else embeddings

    def encode_users(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """Next-item vectors ``[users, L, d]`` from item embeddings ``[users, L, d]`` (see UserEncoder)."""
        vectors: Tensor = self.user_encoder(items, log_mask)
        return F.normalize(vectors, dim=-1) if self.cosine else vectors

    def loss_of(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Sum of the losses of this process's targets, divided by the number of targets in the global batch.

        Summed over processes, this is the mean loss of the global batch.

        Args:
            embeddings: embeddings of the distinct items of the global batch, float32 ``[n, d]``.
            batch: this process's share of the batch.

        Returns:
            A scalar.

        Raises:
            UserError: the user encoder or the loss returns a tensor of another shape.
        """
        # The user encoder is small and sensitive to rounding, so it stays in float32 under autocast.
        with torch.autocast(embeddings.device.type, enabled=False):
            items = torch.cat([embeddings.new_zeros(1, embeddings.shape[1]), embeddings])
            # F.embedding instead of indexing, whose backward is not deterministic on CPU.
            histories = F.embedding(batch.positives[:, :-1], items)
            vectors = self.encode_users(histories, batch.log_mask)
            _require_shape(self.user_encoder, vectors, histories.shape)
            vectors = vectors.flatten(0, 1)
            users, targets = F.embedding(batch.places, vectors), F.embedding(batch.next_rows, items)
            total: Tensor = self.loss(users, targets, items, batch)
            _require_shape(self.loss, total, torch.Size())
        return total / batch.targets_in_step

    def forward(self, batch: Batch) -> Tensor:
        """The mean loss of a batch of a single process (see :meth:`loss_of`)."""
        return self.loss_of(torch.cat([self.encode_items(content) for content in batch.contents]), batch)


def _require_shape(module: nn.Module, output: Tensor, expected: torch.Size) -> None:
    if output.shape != expected:
        raise UserError(
            f"{type(module).__name__}.forward returned a tensor of shape {list(output.shape)}; expected "
            f"{list(expected)} (docs/extending.md)"
        )


def require_sizes(
    settings: ModelSettings, tensors: Mapping[str, Tensor], source: Path, n_items: int | None = None
) -> None:
    """Compare the sizes in recorded settings with the weights, before memory is allocated for a model.

    Args:
        settings: recorded settings of a model.
        tensors: weights of the model, by name.
        source: the file of the tensors, for the error message.
        n_items: N, of an id tower.

    Raises:
        UserError: the user encoder or the id tower has other shapes; the message lists them.
    """
    with torch.device("meta"):
        parts = {"user_encoder.": registered(USER_ENCODERS, settings.user_encoder).from_settings(settings)}
        if n_items is not None:
            parts["item_encoder."] = IdItemEncoder(n_items, settings.embedding_dim)
    expected = {
        prefix + name: one for prefix, part in parts.items() for name, one in part.state_dict().items()
    }
    require_same(
        expected, {name: one for name, one in tensors.items() if name.startswith(tuple(parts))}, source
    )


def new_transrec(settings: ModelSettings, build_encoder: EncoderBuilder | None, n_items: int) -> TransRec:
    """A model with a pretrained backbone (or the id tower); all other weights are initialised from the seed.

    Args:
        settings: model settings.
        build_encoder: builds the item encoder from the settings; None for the id tower.
        n_items: N, used by the id tower and by losses.

    Raises:
        UserError: the backbone is missing or invalid, or the sizes are incompatible.
    """
    torch.manual_seed(settings.seed)
    encoder = build_encoder(settings) if build_encoder else IdItemEncoder(n_items, settings.embedding_dim)
    user_encoder = registered(USER_ENCODERS, settings.user_encoder).from_settings(settings)
    loss = registered(LOSSES, settings.loss)(settings, n_items)
    return TransRec(encoder, user_encoder, settings.objective, loss, cosine=settings.cosine)
