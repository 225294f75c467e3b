"""The image item encoder: embeddings from the [CLS] hidden state of a pretrained vision transformer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from adapter4rec.data.content import Content
from adapter4rec.data.images.store import Pixels
from adapter4rec.data.states import States
from adapter4rec.models.backbones import (
    IMAGE_ENCODERS,
    backbone_config,
    image_size,
    load_backbone,
)
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layers import layer_outputs, replace_outputs
from adapter4rec.models.pretrained import backbone_folder
from adapter4rec.models.settings import ImageModelSettings
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    from torchvision.transforms.v2 import Transform
    from transformers import PreTrainedModel

RELEASED_MASK_RATIO = 0.75
"""Fraction of patches that ViTMAE drops in the released code, as in its pretraining."""

_FIXED = {"vit_mae": ("embeddings.position_embeddings",), "dinov2": ("embeddings.mask_token",)}
"""ViTMAE's sinusoidal position embeddings and DINOv2's mask token (used in pretraining only)."""
_MEAN_AND_STD = {
    "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip_vision_model": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
_PATCHES_AT_ONCE = {"cpu": 8 * 197, "cuda": 64 * 197}
"""Micro-batch size in patches: 8 or 64 images of ViT-base, to fit the CPU's cache or to use a GPU fully."""


def expected_image_size(settings: ImageModelSettings) -> int:
    """Height and width of the backbone's input images, in pixels.

    Raises:
        UserError: the backbone is missing or invalid, or does not support ``--image_size``.
    """
    config = backbone_config(backbone_folder(settings.backbone), IMAGE_ENCODERS)
    return image_size(config, settings.image_size)


def pixel_transform(config: PretrainedConfig) -> Transform:
    """Normalise pixels in [0, 1] as in the pretraining of DINOv2 and CLIP; others as in the paper.

    It runs on the device, since uint8 pixels are a quarter of the size of normalised ones.

    Returns:
        A transform of uint8 ``[n, 3, height, width]`` to float32.
    """
    from torchvision.transforms.v2 import Compose, Normalize, ToDtype

    mean, std = _MEAN_AND_STD.get(config.model_type, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    return Compose([ToDtype(torch.float32, scale=True), Normalize(mean, std)])


def build_image_encoder(settings: ImageModelSettings) -> ImageItemEncoder:
    """An image item encoder with a pretrained backbone and a new head.

    Raises:
        UserError: the backbone is missing or invalid, or ``release_masking`` is set and it is no ViTMAE.
    """
    backbone = load_backbone(backbone_folder(settings.backbone), IMAGE_ENCODERS, settings.layers)
    image_size(backbone.config, settings.image_size)  # raises early, not at the first image
    if backbone.config.model_type == "vit_mae":
        backbone.config.mask_ratio = RELEASED_MASK_RATIO if settings.release_masking else 0.0
    elif settings.release_masking:
        raise UserError(f"--release_masking: not supported by {settings.backbone}; only by ViTMAE")
    torch.manual_seed(settings.seed)
    return ImageItemEncoder(backbone, settings.embedding_dim, settings.images_at_once)


class ImageItemEncoder(ContentItemEncoder):
    """ViT, ViTMAE, DINOv2 or the vision tower of CLIP with an item head (Xavier-normal, zero bias).

    ViTMAE reads every patch, in order. If ``mask_ratio`` in its configuration is above 0, it drops that
    fraction of the patches at random, in evaluation too, as in the released code.

    Args:
        backbone: a Hugging Face image encoder without pooler.
        dim: d, width of the embeddings.
        images_at_once: micro-batch size in images; None to choose by device.
    """

    def __init__(self, backbone: PreTrainedModel, dim: int, images_at_once: int | None) -> None:
        super().__init__(backbone, dim)
        self.images_at_once = images_at_once
        self.transform = pixel_transform(backbone.config)
        self.fixed = _FIXED.get(backbone.config.model_type, ())
        for name, parameter in backbone.named_parameters():
            if name in self.fixed:
                parameter.requires_grad_(False)  # from_pretrained resets this
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def states(self, content: Content) -> Tensor:
        """[CLS] hidden states after the last layer norm, ``[n, 1, h]``, from pixels or layer outputs."""
        if isinstance(content, States):
            return self.in_parts(partial(self._resume_from, content.layers), self._parts(content))
        return self.in_parts(self._states_of, self._parts(content))

    def layer_outputs(self, content: Content, layers: Sequence[int]) -> Tensor:
        """Outputs of the layers ``layers``, ``[n, patches, layers, h]``; the first patch is [CLS]."""

        def outputs(pixels: Tensor) -> Tensor:
            return layer_outputs(self.backbone, layers, lambda: self._states_of(pixels))

        return self.in_parts(outputs, self._parts(content))

    def _parts(self, content: Content) -> Iterable[tuple[Tensor]]:
        """Micro-batches of images, or of their hidden states."""
        assert isinstance(content, Pixels | States)
        images = content.pixels if isinstance(content, Pixels) else content.states
        patches = images.shape[1]
        if isinstance(content, Pixels):
            patches = patches * images.shape[2] // self.backbone.config.patch_size**2 + 1
        default = max(1, _PATCHES_AT_ONCE[images.device.type] // patches)
        return zip(torch.split(images, self.images_at_once or default))

    def _states_of(self, pixels: Tensor) -> Tensor:
        return self.states_of_scaled(self.transform(pixels.permute(0, 3, 1, 2)))

    def _resume_from(self, layers: tuple[int, ...], states: Tensor) -> Tensor:
        size = math.isqrt(states.shape[1] - 1) * self.backbone.config.patch_size
        unread = torch.zeros(1, 3, size, size, dtype=self.head.weight.dtype, device=states.device)
        with replace_outputs(self.backbone, layers, states):
            return self.states_of_scaled(unread.expand(len(states), -1, -1, -1))

    def states_of_scaled(self, pixels: Tensor) -> Tensor:
        """[CLS] hidden states of normalised images.

        Args:
            pixels: normalised, ``[n, 3, height, width]``.

        Returns:
            ``[n, 1, h]``.
        """
        arguments = {"pixel_values": pixels}
        if getattr(self.backbone.config, "mask_ratio", None) == 0:
            # ViTMAE sorts patches by this noise even if it drops none; ascending noise keeps their order.
            patches = pixels[0, 0].numel() // self.backbone.config.patch_size**2
            noise = torch.arange(patches, device=pixels.device, dtype=torch.float32)
            arguments["noise"] = noise.expand(len(pixels), -1)
        # On a CPU, PyTorch's fused attention is slower in bf16 than the steps that it replaces.
        fused = pixels.device.type != "cpu" or not torch.is_autocast_enabled("cpu")
        self.backbone.set_attn_implementation("sdpa" if fused else "eager")
        output = self.backbone(**arguments)
        states: Tensor = output.last_hidden_state[:, :1]
        if self.backbone.config.model_type == "clip_vision_model":
            states = output.pooler_output[:, None]  # CLIP applies the last layer norm to [CLS] only
        return states
