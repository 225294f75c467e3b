"""The image item encoder: embeddings from the [CLS] hidden state of a pretrained vision transformer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from adapter4rec.data.content import Content
from adapter4rec.data.images.store import Pixels
from adapter4rec.data.states import States
from adapter4rec.models.backbone_folders import backbone_folder
from adapter4rec.models.backbones import (
    IMAGE_ENCODERS,
    backbone_config,
    image_size,
    load_backbone,
    patch_size,
)
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layers import layer_outputs, replace_outputs
from adapter4rec.models.settings import ImageModelSettings
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import write_json
from adapter4rec.utils.records import Object, checked, read_record

if TYPE_CHECKING:
    from torchvision.transforms.v2 import Transform
    from transformers import PreTrainedModel

RELEASED_MASK_RATIO = 0.75
"""Fraction of patches that ViTMAE drops in the released code, as in its pretraining."""

_FIXED = {"vit_mae": ("embeddings.position_embeddings",), "dinov2": ("embeddings.mask_token",)}
"""ViTMAE's sinusoidal position embeddings and DINOv2's mask token (used in pretraining only)."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of each channel of pixels in [0, 1], and where they come from."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    origin: str

    def transform(self) -> Transform:
        """A transform of uint8 ``[n, 3, height, width]`` to float32.

        It runs on the device, since uint8 pixels are a quarter of the size of normalised ones.
        """
        from torchvision.transforms.v2 import Compose, Normalize, ToDtype

        return Compose([ToDtype(torch.float32, scale=True), Normalize(list(self.mean), list(self.deviation))])

    def describe(self) -> str:
        """A line for the log."""
        mean, deviation = (", ".join(f"{one:g}" for one in three) for three in (self.mean, self.deviation))
        return f"pixels are normalised with mean {mean} and deviation {deviation} ({self.origin})"


_PREPROCESSOR_FILE = "preprocessor_config.json"
_Mean = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Deviation = Annotated[float, msgspec.Meta(gt=0, le=1)]


@dataclass(frozen=True)
class _Preprocessor:
    """Whether a ``preprocessor_config.json`` asks for a normalisation."""

    do_normalize: bool = True


@dataclass(frozen=True)
class _Values:
    """The normalisation in a ``preprocessor_config.json``, one value per channel."""

    image_mean: tuple[_Mean, _Mean, _Mean]
    image_std: tuple[_Deviation, _Deviation, _Deviation]


PAPER = Normalisation((0.5,) * 3, (0.5,) * 3, "as in the paper")
_PRETRAINING = {
    "dinov2": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "of DINOv2's pretraining"),
    "clip_vision_model": Normalisation(
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "of CLIP's pretraining"
    ),
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


def read_normalisation(folder: Path, config: PretrainedConfig, choice: str) -> Normalisation:
    """The mean and deviation of pixels for a backbone.

    Args:
        folder: of the backbone.
        config: of the backbone.
        choice: ``paper``, or ``backbone``: as its ``preprocessor_config.json`` records; without this file as
            in the pretraining of DINOv2 and CLIP, and as in the paper for others.

    Raises:
        UserError: the file cannot be read, or has other values than three means and deviations.
    """
    if choice == "paper":
        return PAPER
    file = folder / _PREPROCESSOR_FILE
    if not file.exists():
        return _PRETRAINING.get(config.model_type, PAPER)
    recorded = read_record(file, Object)
    try:
        if not checked(recorded, _Preprocessor).do_normalize:
            return Normalisation((0.0,) * 3, (1.0,) * 3, file.name)
        values = checked(recorded, _Values)
    except ValueError as error:
        raise UserError(
            f"{file}: expected image_mean and image_std with three numbers each, for pixels in [0, 1] "
            f"({error}); correct the file, or use --normalisation paper"
        ) from None
    return Normalisation(values.image_mean, values.image_std, file.name)


def record_normalisation(folder: Path, normalisation: Normalisation) -> None:
    """Write to the folder of a backbone what :func:`read_normalisation` reads, as transformers does."""
    file = folder / _PREPROCESSOR_FILE
    recorded = read_record(file, Object) if file.exists() else {}
    mean, deviation = list(normalisation.mean), list(normalisation.deviation)
    write_json(file, recorded | {"do_normalize": True, "image_mean": mean, "image_std": deviation})


def build_image_encoder(settings: ImageModelSettings) -> ImageItemEncoder:
    """An image item encoder with a pretrained backbone and a new head.

    Raises:
        UserError: the backbone or its ``preprocessor_config.json`` is missing or invalid, or
            ``release_masking`` is set and it is no ViTMAE.
    """
    folder = backbone_folder(settings.backbone)
    backbone = load_backbone(folder, IMAGE_ENCODERS, settings.layers)
    image_size(backbone.config, settings.image_size)  # raises early, not at the first image
    if backbone.config.model_type == "vit_mae":
        backbone.config.mask_ratio = RELEASED_MASK_RATIO if settings.release_masking else 0.0
    elif settings.release_masking:
        raise UserError(f"--release_masking: not supported by {settings.backbone}; only by ViTMAE")
    normalisation = read_normalisation(folder, backbone.config, settings.normalisation)
    torch.manual_seed(settings.seed)
    return ImageItemEncoder(backbone, settings.embedding_dim, settings.images_at_once, normalisation)


class ImageItemEncoder(ContentItemEncoder):
    """ViT, ViTMAE, DINOv2 or the vision tower of CLIP with an item head (Xavier-normal, zero bias).

    ViTMAE reads every patch, in order. If ``mask_ratio`` in its configuration is above 0, it drops that
    fraction of the patches at random, in evaluation too, as in the released code.

    Args:
        backbone: a Hugging Face image encoder without pooler.
        dim: d, width of the embeddings.
        images_at_once: micro-batch size in images; None to choose by device.
        normalisation: of pixels.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        dim: int,
        images_at_once: int | None,
        normalisation: Normalisation | None = None,
    ) -> None:
        super().__init__(backbone, dim)
        self.images_at_once = images_at_once
        self.normalisation = normalisation or _PRETRAINING.get(backbone.config.model_type, PAPER)
        self.transform = self.normalisation.transform()
        # Part of what the backbone computes, hence of the key of cached hidden states.
        backbone.config.image_mean = list(self.normalisation.mean)
        backbone.config.image_std = list(self.normalisation.deviation)
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

    def describe_input(self) -> str:
        """How pixels are normalised."""
        return self.normalisation.describe()

    def _parts(self, content: Content) -> Iterable[tuple[Tensor]]:
        """Micro-batches of images, or of their hidden states."""
        assert isinstance(content, Pixels | States)
        images = content.pixels if isinstance(content, Pixels) else content.states
        patches = images.shape[1]
        if isinstance(content, Pixels):
            patches = patches * images.shape[2] // patch_size(self.backbone.config) ** 2 + 1
        default = max(1, _PATCHES_AT_ONCE[images.device.type] // patches)
        return zip(torch.split(images, self.images_at_once or default))

    def _states_of(self, pixels: Tensor) -> Tensor:
        return self.states_of_scaled(self.transform(pixels.permute(0, 3, 1, 2)))

    def _resume_from(self, layers: tuple[int, ...], states: Tensor) -> Tensor:
        size = math.isqrt(states.shape[1] - 1) * patch_size(self.backbone.config)
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
        arguments: dict[str, Any] = {"pixel_values": pixels}
        config = self.backbone.config
        if pixels.shape[-1] != image_size(config) and config.model_type != "dinov2":  # which always does
            arguments["interpolate_pos_encoding"] = True
        if getattr(self.backbone.config, "mask_ratio", None) == 0:
            # ViTMAE sorts patches by this noise even if it drops none; ascending noise keeps their order.
            patches = pixels[0, 0].numel() // patch_size(self.backbone.config) ** 2
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
