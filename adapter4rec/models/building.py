"""Building TransRec models from settings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from adapter4rec.models.backbones import (
    IMAGE_ENCODERS,
    TEXT_ENCODERS,
    backbone_folder,
    first_position,
    image_size,
    load_backbone,
)
from adapter4rec.models.item_encoders import (
    RELEASED_MASK_RATIO,
    IdItemEncoder,
    ImageItemEncoder,
    TextItemEncoder,
)
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoder import UserEncoder
from adapter4rec.stages import ImageSettings, RunSettings, TextSettings
from adapter4rec.utils.errors import UserError


def build_model(settings: RunSettings, build_encoder: Callable[..., nn.Module], n_items: int) -> TransRec:
    """A model with a pretrained backbone (or the id tower) and new weights elsewhere, fixed by the seed.

    Args:
        settings: of the run.
        build_encoder: builds the item encoder from the settings, where items are encoded from content.
        n_items: N, for the id tower.

    Raises:
        UserError: the backbone is missing or broken, or sizes do not fit.
    """
    torch.manual_seed(settings.seed)
    if settings.uses_content:
        return assemble(build_encoder(settings), settings)
    return assemble(IdItemEncoder(n_items, settings.embedding_dim), settings)


def build_text_encoder(settings: TextSettings) -> TextItemEncoder:
    """The text encoder that the settings name, with a new head.

    Raises:
        UserError: the backbone is missing or broken, or its positions do not suffice.
    """
    backbone = load_backbone(backbone_folder(settings.backbone), TEXT_ENCODERS, settings.layers)
    places = backbone.config.max_position_embeddings - first_position(backbone.config)
    adapter = getattr(settings, "adapter", None)
    further = adapter.further_tokens if adapter else 0
    for attribute in settings.attributes:
        if settings.most_tokens(attribute) + further > places:
            besides = f" with {further} tokens of the adapter besides" if further else ""
            raise UserError(
                f"--{attribute}_tokens {settings.most_tokens(attribute)}{besides}: the backbone has "
                f"{places} places"
            )
    torch.manual_seed(settings.seed)  # whatever loading the backbone drew
    return TextItemEncoder(backbone, settings.embedding_dim)


def build_image_encoder(settings: ImageSettings) -> ImageItemEncoder:
    """The image encoder that the settings name, with a new head.

    Raises:
        UserError: the backbone is missing or broken, or masking is asked of one that never masks.
    """
    backbone = load_backbone(backbone_folder(settings.backbone), IMAGE_ENCODERS, settings.layers)
    image_size(backbone.config, settings.image_size)  # else it would fail at the first image
    if backbone.config.model_type == "vit_mae":
        backbone.config.mask_ratio = RELEASED_MASK_RATIO if settings.release_masking else 0.0
    elif settings.release_masking:
        raise UserError(f"--release_masking: {settings.backbone} masks nothing; only a ViTMAE does")
    torch.manual_seed(settings.seed)
    return ImageItemEncoder(backbone, settings.embedding_dim, settings.images_at_once)


def assemble(item_encoder: nn.Module, settings: RunSettings) -> TransRec:
    """A TransRec model around an item encoder, with a new user encoder.

    Raises:
        UserError: the width cannot be divided over the heads.
    """
    if settings.embedding_dim % settings.user_heads:
        raise UserError(
            f"--user_heads {settings.user_heads}: must divide --embedding_dim {settings.embedding_dim}"
        )
    user_encoder = UserEncoder(
        settings.embedding_dim,
        settings.max_seq_len,
        settings.user_heads,
        settings.user_blocks,
        settings.dropout,
    )
    return TransRec(item_encoder, user_encoder, settings.objective)
