"""The text item encoder: embeddings from the hidden states of a pretrained language model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapter4rec.data.content import Content
from adapter4rec.data.packing import Packing
from adapter4rec.data.text import Text
from adapter4rec.models.backbone_folders import backbone_folder, recorded_pooling
from adapter4rec.models.backbones import (
    TEXT_ENCODERS,
    first_position,
    load_backbone,
)
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layers import layer_outputs, replace_outputs
from adapter4rec.models.packed_attention import padded_text_states, text_states
from adapter4rec.models.settings import POOLING_FILE, TextModelSettings
from adapter4rec.utils.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def build_text_encoder(settings: TextModelSettings) -> TextItemEncoder:
    """A text item encoder with a pretrained backbone and a new head.

    Raises:
        UserError: the backbone is missing or invalid, has too few position embeddings, or records a pooling
            that is not supported.
    """
    folder = backbone_folder(settings.backbone)
    backbone = load_backbone(folder, TEXT_ENCODERS, settings.layers)
    recorded = None if settings.pooling else recorded_pooling(folder)
    origin = "--pooling" if settings.pooling else POOLING_FILE if recorded else "default"
    positions = backbone.config.max_position_embeddings - first_position(backbone.config)
    adapter = getattr(settings, "adapter", None)
    further = adapter.further_tokens if adapter else 0
    for attribute in settings.attributes:
        if settings.max_tokens(attribute) + further > positions:
            prompt = f" and {further} tokens of the adapter" if further else ""
            raise UserError(
                f"--{attribute}_tokens {settings.max_tokens(attribute)}{prompt}: exceeds the {positions} "
                "positions of the backbone"
            )
    torch.manual_seed(settings.seed)  # loading the backbone may have drawn random numbers
    return TextItemEncoder(backbone, settings.embedding_dim, settings.pooling or recorded or "cls", origin)


class TextItemEncoder(ContentItemEncoder):
    """BERT, RoBERTa, XLM-RoBERTa or ModernBERT with an item head (PyTorch's default initialisation).

    Args:
        backbone: a Hugging Face text encoder without pooler.
        dim: d, width of the embeddings.
        pooling: ``cls`` or ``mean`` (see :func:`text_states`).
        origin: where the pooling comes from, for the log.
    """

    def __init__(
        self, backbone: PreTrainedModel, dim: int, pooling: str = "cls", origin: str = "default"
    ) -> None:
        super().__init__(backbone, dim)
        self.pooling = pooling
        self._origin = origin
        self._first_position = first_position(backbone.config)

    def states(self, content: Content) -> Tensor:
        """Pooled hidden states of the last layer, ``[n, attributes, h]``, from texts or layer outputs."""
        assert isinstance(content, Text)
        if content.layers:
            resume = partial(self._resume_from, content.layers)
            by_length = self.in_parts(resume, ((pack.values, pack.packing) for pack in content.packs))
        else:
            by_length = self.in_parts(self._pooled_states, self._parts(content))
        return by_length[content.order].view(len(content), -1, by_length.shape[-1])

    def describe_input(self) -> str:
        """How the states of a text's tokens become its vector, and who says so."""
        return f"pooling of texts: {self.pooling} ({self._origin})"

    def layer_outputs(self, content: Content, layers: Sequence[int]) -> Tensor:
        """Outputs of the layers ``layers``, ``[tokens, layers, h]``, in the token order of the packs."""
        assert isinstance(content, Text)

        def outputs(*part: Any) -> Tensor:
            return layer_outputs(self.backbone, layers, lambda: self._pooled_states(*part))[0]

        return self.in_parts(outputs, self._parts(content))

    def states_of_padded(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pooled hidden states of texts that are padded on the right, for exporters.

        Args:
            token_ids: int64 ``[texts, tokens]``; any ids at padding.
            attention_mask: int64 ``[texts, tokens]``, 0 at padding, else 1.

        Returns:
            ``[texts, h]``.
        """
        places = torch.arange(token_ids.shape[1], device=token_ids.device)
        arguments = {"input_ids": token_ids, "attention_mask": attention_mask}
        arguments["position_ids"] = (self._first_position + places)[None]
        return padded_text_states(self.backbone, arguments, self.pooling)

    def _pooled_states(self, words: Tensor, packing: Packing) -> Tensor:
        positions = self._first_position + packing.places
        return text_states(self.backbone, words, positions, packing, self.pooling)

    def _resume_from(self, layers: tuple[int, ...], states: Tensor, packing: Packing) -> Tensor:
        unread = states.new_zeros(len(states), states.shape[-1], dtype=self.head.weight.dtype)
        with replace_outputs(self.backbone, layers, states[None]):
            return self._pooled_states(unread, packing)

    def _parts(self, content: Text) -> list[tuple[Tensor, Packing]]:
        """Word embeddings ``[tokens, h]`` and packing of each pack.

        One look-up for all packs, because the gradient of each look-up has the size of the vocabulary.
        """
        token_ids = [pack.values for pack in content.packs]
        words = self.backbone.get_input_embeddings()(torch.cat(token_ids))
        packings = [pack.packing for pack in content.packs]
        return list(zip(torch.split(words, [len(ids) for ids in token_ids]), packings, strict=True))
