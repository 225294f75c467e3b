"""The target model: a source model, and the part of it that the chosen method trains."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.checkpoints import load_into
from adapter4rec.errors import UserError
from adapter4rec.models.building import build_text_model
from adapter4rec.models.transrec import TransRec
from adapter4rec.source_models import SourceModel
from adapter4rec.stages import TargetSettings, TextSettings
from adapter4rec.training.parameters import train_only


@dataclass(frozen=True)
class TextTargetSettings(TextSettings, TargetSettings):
    """Adapt a source model to a target domain with text."""

    @property
    def uses_content(self) -> bool:
        """Whether items are encoded from their text."""
        return self.method not in ("id", "popularity")


def build_model(settings: TextTargetSettings, n_items: int, source: SourceModel | None) -> TransRec:
    """The model that the method starts from, with what it trains requiring gradients.

    Args:
        settings: of the stage.
        n_items: N, for the id tower.
        source: the source model, where the method starts from one.

    Raises:
        UserError: the source model does not fit the settings, or was trained for another objective.
    """
    model = build_text_model(settings, n_items)
    if source is not None:
        if source.objective not in (None, settings.objective):
            raise UserError(
                f"{source.path}: trained with the objective {source.objective.value}; a target is trained "
                f"with its source's (--objective {source.objective.value})"
            )
        load_into(model, source.tensors, source.path)
    if settings.adapter is not None:
        torch.manual_seed(settings.seed)
        add_adapters(model, settings.adapter)
    train_only(model, settings.trained_parts)
    return model
