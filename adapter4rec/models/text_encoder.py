"""The text item encoder: a title becomes the [CLS] state of a pretrained encoder, then an embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from adapter4rec.data.packing import Packing
from adapter4rec.data.states import TextStates
from adapter4rec.data.text import Text
from adapter4rec.models.backbones import TEXT_ENCODERS, backbone_folder, first_position, load_backbone
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layers import outputs_known, outputs_read
from adapter4rec.models.packed_attention import first_states
from adapter4rec.models.settings import TextModelSettings
from adapter4rec.utils.errors import UserError


def build_text_encoder(settings: TextModelSettings) -> TextItemEncoder:
    """The text item encoder that the settings name: pretrained backbone, new head.

    Raises:
        UserError: the backbone is missing or broken, or has too few positions.
    """
    backbone = load_backbone(backbone_folder(settings.backbone), TEXT_ENCODERS, settings.layers)
    places = backbone.config.max_position_embeddings - first_position(backbone.config)
    adapter = getattr(settings, "adapter", None)
    further = adapter.further_tokens if adapter else 0
    for attribute in settings.attributes:
        if settings.max_tokens(attribute) + further > places:
            beside = f" and {further} tokens of the adapter" if further else ""
            raise UserError(
                f"--{attribute}_tokens {settings.max_tokens(attribute)}{beside}: the backbone has {places} "
                "positions"
            )
    torch.manual_seed(settings.seed)  # whatever loading the backbone has drawn
    return TextItemEncoder(backbone, settings.embedding_dim)


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
