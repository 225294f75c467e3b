"""Item encoders: from an item's content to its embedding."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from adapter4rec.data.content import Content, ItemIds
from adapter4rec.data.images.store import Pixels
from adapter4rec.data.packing import Packing
from adapter4rec.data.states import PatchStates, States, TextStates
from adapter4rec.data.text import Text
from adapter4rec.models.backbones import first_position, pixel_statistics
from adapter4rec.models.dropout import use_fast_dropout
from adapter4rec.models.layers import outputs_known, outputs_read
from adapter4rec.models.packed_attention import first_states
from adapter4rec.models.parts import BACKBONE, FIXED, ITEM_HEAD, ParameterGroups

RELEASED_MASK_RATIO = 0.75
"""Share of the patches that the released code lets ViTMAE drop, as its pretraining does."""

_PATCHES_AT_ONCE = {"cpu": 8 * 197, "cuda": 64 * 197}
"""What one call computes stays in a CPU's cache, and fills a GPU: 8 and 64 images of ViT-base."""


class ContentItemEncoder(nn.Module):
    """A pretrained backbone, its [CLS] state, a linear layer to d (the paper's DTL), GELU.

    With several attributes, one backbone and one linear layer encode each, and the vectors are averaged.

    Args:
        backbone: a Hugging Face encoder without pooler.
        dim: d, width of the embeddings.
    """

    def __init__(self, backbone: PreTrainedModel, dim: int) -> None:
        super().__init__()
        self.recompute = False
        """Whether activations of the backbone are computed again for the backward pass, part by part."""
        self.rounds: Callable[[int], int] = lambda parts: parts
        """How often the backbone is called for so many parts; on all processes equally often, where its
        weights are divided over them."""
        self.backbone = backbone
        use_fast_dropout(backbone)
        self.head = nn.Linear(backbone.config.hidden_size, dim)

    @abstractmethod
    def states(self, content: Content) -> Tensor:
        """[CLS] states of the last layer, ``[n, attributes, h]``, from content or from layers' outputs."""

    @abstractmethod
    def layer_outputs(self, content: Content, layers: Sequence[int]) -> Tensor:
        """Outputs of some layers, for each place that the backbone reads."""

    def in_parts(self, encode: Callable[..., Tensor], parts: Sequence[tuple]) -> Tensor:
        """``encode(*part)`` of each part, one behind the other."""
        rounds = self.rounds(len(parts))  # asked before: the processes call nothing else meanwhile
        encoded = [self._part(encode, *part) for part in parts]
        for _ in range(rounds - len(parts)):
            encoded[-1] = encoded[-1] + 0 * self._part(encode, *parts[-1])  # for company alone
        return torch.cat(encoded)

    def _part(self, encode: Callable[..., Tensor], *part: Any) -> Tensor:
        """``encode(*part)``, whose activations are not kept where they are to be computed again."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(encode, *part, use_reentrant=False)
        return encode(*part)

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the groups ``backbone``, ``fixed`` and ``item_head``."""
        fixed = {id(parameter) for parameter in self.fixed_parameters()}
        groups: ParameterGroups = {BACKBONE: {}, FIXED: {}}
        for name, parameter in self.backbone.named_parameters(prefix="backbone"):
            groups[FIXED if id(parameter) in fixed else BACKBONE][name] = parameter
        return groups | {ITEM_HEAD: dict(self.head.named_parameters(prefix="head"))}

    def fixed_parameters(self) -> list[nn.Parameter]:
        """Parameters of the backbone that are never trained."""
        return []

    def forward(self, content: Content) -> Tensor:
        """Embeddings ``[n, d]`` of n items, from their content or from states computed before."""
        states = content.states if isinstance(content, States) else self.states(content)
        return F.gelu(self.head(states)).mean(1)


class TextItemEncoder(ContentItemEncoder):
    """BERT, RoBERTa, XLM-RoBERTa or ModernBERT; the head has torch's default initialisation."""

    def __init__(self, backbone: PreTrainedModel, dim: int) -> None:
        super().__init__(backbone, dim)
        self._first_position = first_position(backbone.config)

    def states(self, content: Text | TextStates) -> Tensor:
        """[CLS] states of the last layer, ``[n, attributes, h]``, from texts or from layers' outputs."""
        if isinstance(content, TextStates):
            packs = [(pack.states, content.layers, pack.packing) for pack in content.packs]
            by_length = self.in_parts(self._going_on, packs)
        else:
            packings = [pack.packing for pack in content.packs]
            by_length = self.in_parts(
                self._first_states, list(zip(self._words(content), packings, strict=True))
            )
        return by_length[content.order].unflatten(0, (len(content), -1))

    def layer_outputs(self, content: Text, layers: Sequence[int]) -> Tensor:
        """Outputs of some layers, ``[tokens, layers, h]``, in the order of the packs' tokens."""
        parts = []
        with outputs_read(self.backbone, layers) as found:
            for words, pack in zip(self._words(content), content.packs, strict=True):
                self._first_states(words, pack.packing)
                parts.append(torch.stack([found[layer][0] for layer in layers], dim=1))
        return torch.cat(parts)

    def _first_states(self, words: Tensor, packing: Packing) -> Tensor:
        return first_states(self.backbone, words, self._first_position + packing.places, packing)

    def _going_on(self, states: Tensor, layers: tuple[int, ...], packing: Packing) -> Tensor:
        outputs = {layer: states[None, :, number] for number, layer in enumerate(layers)}
        unread = states.new_zeros(len(states), states.shape[-1], dtype=self.head.weight.dtype)
        with outputs_known(self.backbone, outputs):
            return self._first_states(unread, packing)

    def _words(self, content: Text) -> tuple[Tensor, ...]:
        """Word embeddings of each pack, ``[tokens, h]``.

        Looked up for all packs at once: the gradient of a look-up is as large as the whole vocabulary.
        """
        token_ids = [pack.token_ids for pack in content.packs]
        words = self.backbone.get_input_embeddings()(torch.cat(token_ids))
        return words.split([len(ids) for ids in token_ids])


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


class IdItemEncoder(nn.Module):
    """The baseline without content: an embedding for each item of one domain (Xavier-normal)."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Embedding(n_items, dim)
        nn.init.xavier_normal_(self.head.weight)

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the group ``item_head``."""
        return {ITEM_HEAD: dict(self.named_parameters())}

    def forward(self, content: ItemIds) -> Tensor:
        """Embeddings ``[n, d]``."""
        return self.head(content.ids - 1)
