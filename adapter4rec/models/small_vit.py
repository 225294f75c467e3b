"""A small ViT with random weights for the image quickstart, which needs no download."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import ViTConfig, ViTModel

from adapter4rec.models.backbones import quiet_transformers
from adapter4rec.utils.files import atomic_folder

IMAGE_SIZE = 64
_SEED = 1


def make_small_vit(folder: Path) -> None:
    """Write a Hugging Face folder with a randomly initialised ViT, unless it exists.

    The model has 3 layers of width 64, images of 64 x 64 pixels and patches of 16 x 16 pixels.
    """
    if folder.exists():
        return
    with torch.random.fork_rng(devices=[]), quiet_transformers(), atomic_folder(folder) as aside:
        torch.manual_seed(_SEED)
        config = ViTConfig(
            image_size=IMAGE_SIZE,
            patch_size=16,
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=256,
            # Ten times the default. With small random weights all images get nearly the same embedding, and
            # the loss does not decrease for many epochs.
            initializer_range=0.2,
        )
        ViTModel(config, add_pooling_layer=False).save_pretrained(aside)
