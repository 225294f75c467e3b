"""The mean of a user's item embeddings: the floor to which learned user encoders compare."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adapter4rec.models.settings import ImageModelSettings, TextModelSettings
from adapter4rec.models.user_encoders.base import UserEncoder


class MeanUserEncoder(UserEncoder):
    """The next-item vector of a position is the mean embedding of the items up to it; no parameters."""

    @classmethod
    def from_settings(cls, settings: TextModelSettings | ImageModelSettings) -> MeanUserEncoder:
        """A user encoder of the width of the item embeddings."""
        return cls(settings.embedding_dim)

    @staticmethod
    def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
        """Nothing: there are no weights."""
        del tensors
        return {}

    def describe(self) -> str:
        """Kind and sizes in a few words."""
        return f"mean of width {self.width}"

    def forward(self, items: Tensor, log_mask: Tensor) -> Tensor:
        """See :meth:`UserEncoder.forward`."""
        real = log_mask[..., None].to(items.dtype)
        return (items * real).cumsum(1) / real.cumsum(1).clamp(min=1)
