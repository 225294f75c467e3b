"""Item encoders: from an item's content to its embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapter4rec.data.content import ItemIds, States
from adapter4rec.data.text import Text
from adapter4rec.models.backbones import first_position


class TextItemEncoder(nn.Module):
    """BERT or RoBERTa, the [CLS] state, a linear layer to d (the paper's DTL), GELU.

    With several attributes, one backbone and one linear layer encode each, and the vectors are averaged.

    Args:
        backbone: a Hugging Face text encoder without pooler.
        dim: d, width of the embeddings.
    """

    def __init__(self, backbone: PreTrainedModel, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.config.hidden_size, dim)
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

    def forward(self, content: Text | States) -> Tensor:
        """Embeddings ``[n, d]`` of n items, from their texts or from states computed before."""
        states = content.states if isinstance(content, States) else self.states(content)
        return F.gelu(self.head(states)).mean(1)


class IdItemEncoder(nn.Module):
    """The baseline without content: an embedding for each item of one domain (Xavier-normal)."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Embedding(n_items, dim)
        nn.init.xavier_normal_(self.head.weight)

    def forward(self, content: ItemIds) -> Tensor:
        """Embeddings ``[n, d]``."""
        return self.head(content.ids - 1)
