"""Building TransRec models from settings."""

from __future__ import annotations

import torch
from torch import nn

from adapter4rec.errors import UserError
from adapter4rec.models.backbones import backbone_folder, first_position, load_text_backbone
from adapter4rec.models.item_encoders import IdItemEncoder, TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoder import UserEncoder
from adapter4rec.stages import RunSettings, TextSettings


def build_text_model(settings: TextSettings, n_items: int) -> TransRec:
    """A model with a pretrained backbone (or the id tower) and new weights elsewhere, fixed by the seed.

    Raises:
        UserError: the backbone is missing or broken, its positions do not suffice, or sizes do not fit.
    """
    torch.manual_seed(settings.seed)
    if not settings.uses_content:
        return assemble(IdItemEncoder(n_items, settings.embedding_dim), settings)
    backbone = load_text_backbone(backbone_folder(settings.backbone), settings.layers)
    places = backbone.config.max_position_embeddings - first_position(backbone.config)
    for attribute in settings.attributes:
        if settings.most_tokens(attribute) > places:
            raise UserError(
                f"--{attribute}_tokens {settings.most_tokens(attribute)}: the backbone has {places} places"
            )
    torch.manual_seed(settings.seed)  # whatever loading the backbone drew
    return assemble(TextItemEncoder(backbone, settings.embedding_dim), settings)


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
