"""Item encoders map the content of an item to its embedding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adapter4rec.data.content import Content, ItemIds
from adapter4rec.data.item_vectors import read_item_vectors
from adapter4rec.data.states import States
from adapter4rec.models.dropout import use_fast_dropout
from adapter4rec.models.parts import BACKBONE, FIXED, ITEM_HEAD, ParameterGroups

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from adapter4rec.models.settings import ModelSettings


class ContentItemEncoder(nn.Module):
    """A pretrained backbone with an item head: GELU(W h + b), the paper's domain transformation layer.

    h is the [CLS] state of the last layer, or for texts the mean over their tokens.

    Several attributes are encoded by the same backbone and head, and the embeddings are averaged.

    Args:
        backbone: a Hugging Face encoder without pooler.
        dim: d, width of the embeddings.
    """

    fixed: tuple[str, ...] = ()
    """Names of parameters of the backbone that are never trained."""
    pooling: str = "cls"
    """What of the last layer the head reads: ``cls`` or, with texts, ``mean``."""

    def __init__(self, backbone: PreTrainedModel, dim: int) -> None:
        super().__init__()
        self.recompute = False
        """Whether activations are recomputed in the backward pass (activation checkpointing)."""
        self.backbone = backbone
        use_fast_dropout(backbone)
        self.head = nn.Linear(backbone.config.hidden_size, dim)

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the groups ``backbone``, ``fixed`` and ``item_head``."""
        groups: ParameterGroups = {BACKBONE: {}, FIXED: {}}
        for name, parameter in self.backbone.named_parameters():
            groups[FIXED if name in self.fixed else BACKBONE][f"backbone.{name}"] = parameter
        return groups | {ITEM_HEAD: dict(self.head.named_parameters(prefix="head"))}

    def describe_input(self) -> str | None:
        """A line for the log about the input of the backbone; None if there is nothing to say."""
        return None

    def describe(self) -> str:
        """Architecture of the backbone, and the pooling if it is not ``cls``."""
        from adapter4rec.models.backbones import describe_config  # takes seconds, and id towers do without

        pooled = "" if self.pooling == "cls" else f", {self.pooling} pooling"
        return describe_config(self.backbone.config) + pooled

    @abstractmethod
    def states(self, content: Content) -> Tensor:
        """Pooled hidden states of the last layer, ``[n, attributes, h]``, from content or layer outputs."""

    @abstractmethod
    def layer_outputs(self, content: Content, layers: Sequence[int]) -> Tensor:
        """Outputs of the layers ``layers`` for each token or patch."""

    def in_parts(self, encode: Callable[..., Tensor], parts: Iterable[tuple[Any, ...]]) -> Tensor:
        """``encode(*part)`` of each micro-batch, concatenated; with activation checkpointing if enabled."""
        if self.recompute and torch.is_grad_enabled():
            encode = partial(checkpoint, encode, use_reentrant=False)
        return torch.cat([encode(*part) for part in parts])

    def forward(self, content: Content) -> Tensor:
        """Item embeddings ``[n, d]``, from content or from cached hidden states."""
        cached = content if isinstance(content, States) and not content.layers else None
        states = cached.states if cached is not None else self.states(content)
        embeddings: Tensor = F.gelu(self.head(states)).mean(1)
        return embeddings


class VectorItemEncoder(nn.Module):
    """An item head on vectors from elsewhere: GELU(W v + b), as on the hidden states of a backbone.

    Args:
        width: h, length of the vectors.
        dim: d, width of the embeddings.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, dim)

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the group ``item_head``."""
        return {ITEM_HEAD: dict(self.named_parameters())}

    def forward(self, content: States) -> Tensor:
        """Item embeddings ``[n, d]``."""
        embeddings: Tensor = F.gelu(self.head(content.states)).mean(1)
        return embeddings


def build_vector_encoder(path: Path, settings: ModelSettings) -> VectorItemEncoder:
    """An item encoder for the vectors of a file.

    Raises:
        UserError: the file is missing or invalid.
    """
    return VectorItemEncoder(read_item_vectors(path).width, settings.embedding_dim)


class IdItemEncoder(nn.Module):
    """The baseline without content: an embedding table over the items of one domain (Xavier-normal)."""

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Embedding(n_items, dim)
        nn.init.xavier_normal_(self.head.weight)

    def parameter_groups(self) -> ParameterGroups:
        """Parameters by name, in the group ``item_head``."""
        return {ITEM_HEAD: dict(self.named_parameters())}

    def forward(self, content: ItemIds) -> Tensor:
        """Item embeddings ``[n, d]``."""
        embeddings: Tensor = self.head(content.ids - 1)
        return embeddings
