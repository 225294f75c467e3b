"""The source model: a pretrained text backbone (or the id tower), everything else new."""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.checkpoints import load_into
from adapter4rec.models.building import build_text_model
from adapter4rec.models.transrec import TransRec
from adapter4rec.settings import option
from adapter4rec.source_models import SourceModel
from adapter4rec.stages import SourceSettings, TextSettings
from adapter4rec.training.parameters import train_only


@dataclass(frozen=True)
class TextSourceSettings(TextSettings, SourceSettings):
    """Train a TransRec model on a source domain with text."""

    item_encoder: str = option("text", "what items are encoded from: text, or id", choices=("text", "id"))

    @property
    def uses_content(self) -> bool:
        """Whether items are encoded from their text; else they are bare ids."""
        return self.item_encoder == "text"


def build_model(settings: TextSourceSettings, n_items: int, start: SourceModel | None) -> TransRec:
    """The model that source training starts from, with what it trains requiring gradients.

    Args:
        settings: of the stage.
        n_items: N, for the id tower.
        start: weights to start from, instead of the pretrained backbone and new ones.
    """
    model = build_text_model(settings, n_items)
    if start is not None:
        load_into(model, start.tensors, start.path)
    train_only(model, settings.trained_parts)
    return model
