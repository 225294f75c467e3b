"""The target model: the source model with adapters, or adapted by another method."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapter4rec.models.transrec import TransRec
    from Downstream.Text.train import Settings


def build_model(settings: Settings, n_items: int) -> TransRec:
    """The initial model; its trained parameters require gradients.

    Raises:
        UserError: the backbone or the source model is missing, invalid or incompatible.
    """
    from adapter4rec.adapters.attaching import add_adapters
    from adapter4rec.checkpoints.source_models import load_source_weights, read_source_model
    from adapter4rec.models.parameters import train_only
    from adapter4rec.models.text_encoder import build_text_encoder
    from adapter4rec.models.transrec import new_transrec

    model = new_transrec(settings, settings.encoder_builder(build_text_encoder), n_items)
    if settings.needs_source:
        load_source_weights(model, read_source_model(settings.source_checkpoint), settings.plain())
    if settings.adapter is not None:
        add_adapters(model, settings.adapter, seed=settings.seed)
    train_only(model, settings.trained_parts)
    return model
