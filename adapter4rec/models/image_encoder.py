"""The image item encoder: a picture becomes the [CLS] state of a pretrained encoder, then an embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapter4rec.data.images.store import Pixels
from adapter4rec.data.states import PatchStates
from adapter4rec.models.backbones import (
    IMAGE_ENCODERS,
    backbone_config,
    backbone_folder,
    image_size,
    load_backbone,
    pixel_statistics,
)
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layers import outputs_known, outputs_read
from adapter4rec.models.settings import ImageModelSettings
from adapter4rec.utils.errors import UserError

RELEASED_MASK_RATIO = 0.75
"""Share of the patches that the released code lets ViTMAE drop, as its pretraining does."""

_PATCHES_AT_ONCE = {"cpu": 8 * 197, "cuda": 64 * 197}
"""What one call computes stays in a CPU's cache, and fills a GPU: 8 and 64 images of ViT-base."""


def expected_image_size(settings: ImageModelSettings) -> int:
    """Height and width of the images that the backbone takes.

    Raises:
        UserError: the backbone is missing or broken, or does not take the size that is asked for.
    """
    return image_size(
        backbone_config(backbone_folder(settings.backbone), IMAGE_ENCODERS), settings.image_size
    )


def build_image_encoder(settings: ImageModelSettings) -> ImageItemEncoder:
    """The image item encoder that the settings name: pretrained backbone, new head.

    Raises:
        UserError: the backbone is missing or broken, or masking is asked of one that never masks.
    """
    backbone = load_backbone(backbone_folder(settings.backbone), IMAGE_ENCODERS, settings.layers)
    image_size(backbone.config, settings.image_size)  # else it would fail at the first image
    if backbone.config.model_type == "vit_mae":
        backbone.config.mask_ratio = RELEASED_MASK_RATIO if settings.release_masking else 0.0
    elif settings.release_masking:
        raise UserError(f"--release_masking: {settings.backbone} has no masking; only ViTMAE does")
    torch.manual_seed(settings.seed)
    return ImageItemEncoder(backbone, settings.embedding_dim, settings.images_at_once)


class ImageItemEncoder(ContentItemEncoder):
    """ViT, ViTMAE, DINOv2 or CLIP's vision tower; the head is Xavier-normal with zero bias.

    A ViTMAE reads every patch, in order. With a ``mask_ratio`` above 0 in its configuration it drops that
    share of the patches at random, in evaluation too, as the released code does.

    Args:
        backbone: a Hugging Face image encoder without pooler.
        dim: d, width of the embeddings.
        images_at_once: how many images the backbone reads at once; None for what suits the device.
    """

    def __init__(self, backbone: PreTrainedModel, dim: int, images_at_once: int | None) -> None:
        super().__init__(backbone, dim)
        self.images_at_once = images_at_once
        mean, deviation = (torch.tensor(values) for values in pixel_statistics(backbone.config))
        self.register_buffer("_mean", mean[:, None, None], persistent=False)
        self.register_buffer("_deviation", deviation[:, None, None], persistent=False)
        for parameter in self.fixed_parameters():
            parameter.requires_grad_(False)  # loading a backbone from a folder resets this
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def fixed_parameters(self) -> list[nn.Parameter]:
        """ViTMAE's position embeddings, which are sines, and DINOv2's mask token, for pretraining only."""
        embeddings = getattr(self.backbone, "embeddings", None)
        if self.backbone.config.model_type == "vit_mae":
            return [embeddings.position_embeddings]
        mask_token = getattr(embeddings, "mask_token", None)
        return [] if mask_token is None else [mask_token]

    def states(self, content: Pixels | PatchStates) -> Tensor:
        """[CLS] states behind the last layer norm, ``[n, 1, h]``, from pixels or from layers' outputs."""
        if isinstance(content, PatchStates):
            parts = [(part, content.layers) for part in self._split(content.states, content.states.shape[1])]
            return self.in_parts(self._going_on, parts)
        return self.in_parts(self._states_of, [(part,) for part in self._split_pixels(content.pixels)])

    def _split(self, images: Tensor, patches: int) -> tuple[Tensor, ...]:
        """Images of so many patches each, or their states, in the parts that the backbone reads at once."""
        suits = max(1, _PATCHES_AT_ONCE[images.device.type] // patches)
        return images.split(self.images_at_once or suits)

    def _split_pixels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        patches = pixels.shape[1] * pixels.shape[2] // self.backbone.config.patch_size**2
        return self._split(pixels, patches + 1)

    def _states_of(self, pixels: Tensor) -> Tensor:
        return self.states_of_scaled(self._scaled(pixels))

    def layer_outputs(self, content: Pixels, layers: Sequence[int]) -> Tensor:
        """Outputs of some layers, ``[n, patches, layers, h]``; [CLS] is the first patch."""
        parts = []
        with outputs_read(self.backbone, layers) as found:
            for part in self._split_pixels(content.pixels):
                self._states_of(part)
                parts.append(torch.stack([found[layer] for layer in layers], dim=2))
        return torch.cat(parts)

    def _going_on(self, states: Tensor, layers: tuple[int, ...]) -> Tensor:
        outputs = {layer: states[:, :, number] for number, layer in enumerate(layers)}
        size = math.isqrt(states.shape[1] - 1) * self.backbone.config.patch_size
        unread = torch.zeros(1, 3, size, size, dtype=self.head.weight.dtype, device=states.device)
        with outputs_known(self.backbone, outputs):
            return self.states_of_scaled(unread.expand(len(states), -1, -1, -1))

    def _scaled(self, pixels: Tensor) -> Tensor:
        """``uint8 [n, height, width, 3]`` → ``[n, 3, height, width]``."""
        return (pixels.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._deviation

    def states_of_scaled(self, pixels: Tensor) -> Tensor:
        """[CLS] states of images whose pixels are scaled as the backbone takes them.

        Args:
            pixels: ``[n, 3, height, width]``.

        Returns:
            ``[n, 1, h]``.
        """
        arguments = {"pixel_values": pixels}
        if getattr(self.backbone.config, "mask_ratio", None) == 0:
            # ViTMAE puts patches in the order of this noise, whatever share of them it drops.
            patches = self.backbone.embeddings.patch_embeddings.num_patches
            noise = torch.arange(patches, device=pixels.device, dtype=torch.float32)
            arguments["noise"] = noise.expand(len(pixels), -1)
        output = self.backbone(**arguments)
        if self.backbone.config.model_type == "clip_vision_model":
            return output.pooler_output[:, None]  # CLIP's last layer norm reads [CLS] alone
        return output.last_hidden_state[:, :1]
