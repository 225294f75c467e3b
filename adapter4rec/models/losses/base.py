"""The interface of a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from adapter4rec.data.batches import Batch, Sampling
from adapter4rec.models.losses.settings import LossSettings
from adapter4rec.models.parts import USER_ENCODER, ParameterGroups


class Loss(nn.Module, ABC):
    """Base class of losses. Parameters of a loss belong to the user encoder's group.

    Args:
        settings: the options of the losses.
        n_items: N, number of items in the catalogue.
    """

    def __init__(self, settings: LossSettings, n_items: int) -> None:
        super().__init__()
        self.settings = settings
        self.n_items = n_items

    @property
    @abstractmethod
    def sampling(self) -> Sampling:
        """The items that a batch must contain."""

    @abstractmethod
    def forward(self, users: Tensor, targets: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """The loss summed over the targets of this process.

        Args:
            users: next-item vectors ``[T, d]``, one for each target.
            targets: embeddings of the T targets ``[T, d]``.
            items: embeddings of the distinct items of the global batch ``[n + 1, d]``; row 0 (padding) is
                zero.
            batch: the batch; its indices are rows of ``items``.

        Returns:
            A scalar. It is divided by the number of targets in the global batch.
        """

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the group ``user_encoder``."""
        return {USER_ENCODER: dict(self.named_parameters())}
