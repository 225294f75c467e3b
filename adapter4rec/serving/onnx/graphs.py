"""Item encoder and user encoder of a trained model as functions of tensors, which become ONNX files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from adapter4rec.adapters.base import adapters_of
from adapter4rec.adapters.config import RELEASE
from adapter4rec.adapters.k_adapter import KAdapterConfig
from adapter4rec.adapters.prompt import PromptConfig
from adapter4rec.adapters.registry import name_of
from adapter4rec.data.content import Content
from adapter4rec.data.images.store import ImageStore, Pixels
from adapter4rec.data.interactions import read_items
from adapter4rec.data.item_vectors import VectorStore
from adapter4rec.data.settings import TextSettings
from adapter4rec.data.states import States
from adapter4rec.data.text import BODY_CHARACTERS
from adapter4rec.models.backbone_folders import backbone_folder
from adapter4rec.models.image_encoder import ImageItemEncoder
from adapter4rec.models.item_encoder import IdItemEncoder, VectorItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.serving.bundled_content import BundledImages
from adapter4rec.serving.new_items import tokenizer_of
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError

Axes = dict[str, dict[int, str]]


class Graph(nn.Module, ABC):
    """A part of a model as a function of tensors.

    Attributes:
        file: name of the ONNX file.
        axes: names of the inputs, and of those of their dimensions that may have any size.
        output: name of the output.
    """

    file: ClassVar[str]
    axes: ClassVar[Axes]
    output: ClassVar[str]

    def __init__(self, model: TransRec) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace the function with."""


class UserGraph(Graph):
    """Next-item vectors ``[users, d]`` of histories: item embeddings, and where they are not padding.

    Histories of any length are padded on the left; the last L clicks are read.
    """

    file = "user_encoder.onnx"
    axes: ClassVar[Axes] = {"items": {0: "users", 1: "clicks"}, "mask": {0: "users", 1: "clicks"}}
    output = "users"

    def __init__(self, model: TransRec, max_seq_len: int) -> None:
        super().__init__(model)
        self.max_seq_len = max_seq_len

    def example(self) -> tuple[Tensor, ...]:
        """Two histories of three clicks."""
        return torch.zeros(2, 3, self.model.user_encoder.width), torch.ones(2, 3, dtype=torch.bool)

    def forward(self, items: Tensor, mask: Tensor) -> Tensor:
        """``items [users, clicks, d]`` and bool ``mask [users, clicks]`` → ``[users, d]``."""
        users, width = items.shape[0], self.model.user_encoder.width
        before = items.new_zeros(users, self.max_seq_len, width)
        recent = torch.cat([before, items], 1)[:, -self.max_seq_len :]
        real = torch.cat([before[..., 0].bool(), mask], 1)[:, -self.max_seq_len :]
        return self.model.encode_users(recent, real)[:, -1]


class ItemGraph(Graph):
    """Embeddings ``[items, d]`` of contents.

    Args:
        run: a trained model on contents of the kind.
    """

    file = "item_encoder.onnx"
    output = "embeddings"

    def __init__(self, run: TrainedRun) -> None:
        super().__init__(run.model)
        self.run = run

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """How contents become inputs, for ``onnx.json``."""

    def write(self, folder: Path) -> None:
        """Write further files that contents become inputs with."""

    @abstractmethod
    def sample(self, numbers: np.ndarray, folder: Path) -> tuple[Sequence[Any], Content]:
        """Items of the catalogue: as the written model takes them, and as the item encoder does.

        Args:
            numbers: numbers of the items.
            folder: the folder of the written model, which has its items.
        """


class TextGraph(ItemGraph):
    """Texts: token ids and where they are not padding, both int64 ``[items, attributes, tokens]``.

    Padding is on the right.

    Raises:
        UserError: adapters that depend on padding, or a tokenizer that the tokenizers library does not have.
    """

    axes: ClassVar[Axes] = {name: {0: "items", 2: "tokens"} for name in ("input_ids", "attention_mask")}

    def __init__(self, run: TrainedRun) -> None:
        super().__init__(run)
        assert isinstance(run.settings, TextSettings)
        self.settings: TextSettings = run.settings
        adapters = adapters_of(run.model)
        config = adapters.config if adapters else None
        if isinstance(config, KAdapterConfig | PromptConfig) and config.semantics == RELEASE:
            raise UserError(
                f"{run.folder}: {name_of(config)} with --semantics release depends on how texts are padded, "
                "and an ONNX file masks padding; train it with --semantics paper"
            )
        self.tokenizer = tokenizer_of(backbone_folder(run.settings.backbone))
        if not self.tokenizer.is_fast:
            raise UserError(
                f"{run.settings.backbone}: the tokenizer has no tokenizer.json, which an ONNX export needs"
            )

    def example(self) -> tuple[Tensor, ...]:
        """Two items of three tokens."""
        shape = 2, len(self.settings.attributes), 3
        return torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.long)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """``[items, attributes, tokens]`` twice → ``[items, d]``."""
        encoder = self.model.item_encoder
        assert isinstance(encoder, TextItemEncoder)
        states = encoder.states_of_padded(input_ids.flatten(0, 1), attention_mask.flatten(0, 1))
        return self.model.encode_items(States(states.view(*input_ids.shape[:2], states.shape[-1])))

    def describe(self) -> dict[str, Any]:
        """Attributes, and how their texts are cut off."""
        attributes = [
            {
                "name": name,
                "characters": BODY_CHARACTERS if name == "body" else None,
                "tokens": self.settings.max_tokens(name),
            }
            for name in self.settings.attributes
        ]
        side = self.tokenizer.truncation_side
        return {"kind": "text", "lower_case": True, "attributes": attributes, "truncation": side}

    def write(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        tokenizer.no_truncation()  # a fast tokenizer stores the lengths of the last call
        tokenizer.no_padding()
        tokenizer.save(str(folder / "tokenizer.json"))

    def sample(self, numbers: np.ndarray, folder: Path) -> tuple[Sequence[Any], Content]:
        """The texts of the written items."""
        attributes = self.settings.attributes
        texts = read_items(folder / "items.tsv", attributes, allow_empty_titles=True).texts
        rows = [tuple(texts[name][number - 1] for name in attributes) for number in numbers]
        return rows, self.run.domain.store.fetch(numbers)


class ImageGraph(ItemGraph):
    """Images: RGB pixels, uint8 ``[items, size, size, 3]``.

    Raises:
        UserError: patches are dropped at random.
    """

    axes: ClassVar[Axes] = {"pixels": {0: "items"}}

    def __init__(self, run: TrainedRun) -> None:
        super().__init__(run)
        assert isinstance(run.model.item_encoder, ImageItemEncoder)
        if getattr(run.model.item_encoder.backbone.config, "mask_ratio", 0):
            raise UserError(
                f"{run.folder}: as released, ViTMAE drops patches at random, and an ONNX file would drop the "
                "same ones each time; train without --release_masking and with --semantics paper"
            )
        assert isinstance(run.domain.store, ImageStore)
        self.store = run.domain.store

    def example(self) -> tuple[Tensor, ...]:
        """Two black images."""
        return (torch.zeros(2, self.store.size, self.store.size, 3, dtype=torch.uint8),)

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 ``[items, size, size, 3]`` → ``[items, d]``."""
        encoder = self.model.item_encoder
        assert isinstance(encoder, ImageItemEncoder)
        return self.model.encode_items(
            States(encoder.states_of_scaled(encoder.transform(pixels.permute(0, 3, 1, 2))))
        )

    def describe(self) -> dict[str, Any]:
        """How images are resized."""
        return {"kind": "image"} | asdict(self.store.resizing)

    def sample(self, numbers: np.ndarray, folder: Path) -> tuple[Sequence[Any], Content]:
        """Pixels of images of the catalogue; random ones with a bundle, which has no images."""
        if isinstance(self.store, BundledImages):
            shape = (len(numbers), self.store.size, self.store.size, 3)
            content = Pixels(torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8)))
        else:
            content = self.store.fetch(numbers)
        return list(content.pixels.numpy()), content


class VectorGraph(ItemGraph):
    """Item vectors from elsewhere, float32 ``[items, h]``."""

    axes: ClassVar[Axes] = {"vectors": {0: "items"}}

    def __init__(self, run: TrainedRun) -> None:
        super().__init__(run)
        assert isinstance(run.domain.store, VectorStore)
        self.store = run.domain.store

    def example(self) -> tuple[Tensor, ...]:
        """Two vectors."""
        return (torch.zeros(2, self.store.rows.shape[-1]),)

    def forward(self, vectors: Tensor) -> Tensor:
        """``[items, h]`` → ``[items, d]``."""
        return self.model.encode_items(States(vectors[:, None]))

    def describe(self) -> dict[str, Any]:
        """The length of a vector."""
        return {"kind": "vector", "width": self.store.rows.shape[-1]}

    def sample(self, numbers: np.ndarray, folder: Path) -> tuple[Sequence[Any], Content]:
        """Vectors of the catalogue."""
        content = self.store.fetch(numbers)
        assert isinstance(content, States)
        return list(content.states[:, 0].numpy()), content


_GRAPHS: dict[type[nn.Module], type[ItemGraph]] = {
    TextItemEncoder: TextGraph,
    ImageItemEncoder: ImageGraph,
    VectorItemEncoder: VectorGraph,
}


def graphs_of(run: TrainedRun) -> tuple[UserGraph, ItemGraph | None]:
    """The user encoder and the item encoder of a trained model; an id tower has no item encoder.

    Raises:
        UserError: the item encoder computes what an ONNX file cannot.
    """
    users = UserGraph(run.model, run.settings.max_seq_len)
    encoder = run.model.item_encoder
    return users, None if isinstance(encoder, IdItemEncoder) else _GRAPHS[type(encoder)](run)
