"""Item encoders: from an item's content to its embedding."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapter4rec.data.content import Content, ItemIds, States
from adapter4rec.data.images.store import Pixels
from adapter4rec.data.text import Text
from adapter4rec.models.backbones import first_position, pixel_statistics

RELEASED_MASK_RATIO = 0.75
"""Share of the patches that the released code lets ViTMAE drop, as its pretraining does."""


class ContentItemEncoder(nn.Module):
    """A pretrained backbone, its [CLS] state, a linear layer to d (the paper's DTL), GELU.

    With several attributes, one backbone and one linear layer encode each, and the vectors are averaged.

    Args:
        backbone: a Hugging Face encoder without pooler.
        dim: d, width of the embeddings.
    """

    def __init__(self, backbone: PreTrainedModel, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.config.hidden_size, dim)

    @abstractmethod
    def states(self, content: Content) -> Tensor:
        """[CLS] states of the last layer, ``[n, attributes, h]``."""

    def forward(self, content: Content) -> Tensor:
        """Embeddings ``[n, d]`` of n items, from their content or from :class:`States` computed before."""
        states = content.states if isinstance(content, States) else self.states(content)
        return F.gelu(self.head(states)).mean(1)


class TextItemEncoder(ContentItemEncoder):
    """BERT, RoBERTa, XLM-RoBERTa or ModernBERT; the head has torch's default initialisation."""

    def __init__(self, backbone: PreTrainedModel, dim: int) -> None:
        super().__init__(backbone, dim)
        self._first_position = first_position(backbone.config)

    def states(self, content: Text) -> Tensor:
        """[CLS] states of the last layer, ``[n, attributes, h]``."""
        by_length = torch.cat(
            [
                self.backbone(
                    inputs_embeds=words,
                    attention_mask=group.attention_mask,
                    position_ids=self._first_position
                    + torch.arange(words.shape[1], device=words.device)[None],
                ).last_hidden_state[:, 0]
                for words, group in zip(self._words(content), content.groups, strict=True)
            ]
        )
        return by_length[content.order].unflatten(0, (len(content), -1))

    def _words(self, content: Text) -> list[Tensor]:
        """Word embeddings of each group, ``[texts, longest, h]``.

        Looked up for all groups at once: the gradient of a look-up is as large as the whole vocabulary.
        """
        shapes = [group.token_ids.shape for group in content.groups]
        flat = torch.cat([group.token_ids.flatten() for group in content.groups])
        words = self.backbone.get_input_embeddings()(flat).split([shape.numel() for shape in shapes])
        return [part.unflatten(0, shape) for part, shape in zip(words, shapes, strict=True)]


class ImageItemEncoder(ContentItemEncoder):
    """ViT, ViTMAE, DINOv2 or CLIP's vision tower; the head is Xavier-normal with zero bias.

    A ViTMAE reads every patch, in order. With a ``mask_ratio`` above 0 in its configuration it drops that
    share of the patches at random, in evaluation too, as the released code does.

    Args:
        backbone: a Hugging Face image encoder without pooler.
        dim: d, width of the embeddings.
        images_at_once: how many images the backbone reads at once.
    """

    def __init__(self, backbone: PreTrainedModel, dim: int, images_at_once: int) -> None:
        super().__init__(backbone, dim)
        self.images_at_once = images_at_once
        mean, deviation = (torch.tensor(values) for values in pixel_statistics(backbone.config))
        self.register_buffer("_mean", mean[:, None, None], persistent=False)
        self.register_buffer("_deviation", deviation[:, None, None], persistent=False)
        if backbone.config.model_type == "vit_mae":
            # They are fixed sines, which a backbone that was loaded from a folder has forgotten.
            backbone.embeddings.position_embeddings.requires_grad_(False)
        elif getattr(getattr(backbone, "embeddings", None), "mask_token", None) is not None:
            backbone.embeddings.mask_token.requires_grad_(
                False
            )  # DINOv2's pretraining reads it, nothing here
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def states(self, content: Pixels) -> Tensor:
        """[CLS] states behind the last layer norm, ``[n, 1, h]``."""
        parts = content.pixels.split(self.images_at_once)
        return torch.cat([self.states_of_scaled(self._scaled(part)) for part in parts])

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


class IdItemEncoder(nn.Module):
    """The baseline without content: an embedding for each item of one domain (Xavier-normal)."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Embedding(n_items, dim)
        nn.init.xavier_normal_(self.head.weight)

    def forward(self, content: ItemIds) -> Tensor:
        """Embeddings ``[n, d]``."""
        return self.head(content.ids - 1)
