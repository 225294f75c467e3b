"""Caching the hidden states of the frozen part of a backbone, so that it runs only once per item.

If no layer of the backbone is trained or adapted, these are the [CLS] hidden states of each text or image. If
adapters start at a later layer, or run beside the backbone, these are the outputs of the layers that they
read, for every token or patch. Both are computed in eval mode, so the frozen part runs without dropout.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from adapter4rec.data.cached_table import computed_table
from adapter4rec.data.content import Content, ContentStore
from adapter4rec.data.domain import Domain
from adapter4rec.data.states import FORMATS, StateStore
from adapter4rec.data.text import TextStore
from adapter4rec.evaluation.catalogue import evaluating
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layers import layers_of
from adapter4rec.models.transrec import TransRec
from adapter4rec.training.settings import TargetTraining, TrainingSettings
from adapter4rec.utils.checkpoint_file import weights_hash
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.precision import choose_precision
from adapter4rec.utils.process_group import Process

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FORMAT_VERSION = "states-3"
_NAMES_AND_VERSIONS = ("_name_or_path", "transformers_version", "architectures", "dtype")
_ITEMS_AT_ONCE = 512
_MOST_BLOCKS = 1000


def cache_hidden_states(
    domain: Domain, model: TransRec, settings: TrainingSettings, process: Process
) -> Domain:
    """The domain with cached hidden states instead of the content of its items.

    The cache key is a hash of the backbone's weights and configuration and of the catalogue's content, so
    runs that share these share the cache. Missing states are computed on rank 0.

    Raises:
        UserError: no layer of the backbone is frozen, or it masks patches at random, so that its hidden
            states differ from call to call.
    """
    encoder = model.item_encoder
    if not isinstance(encoder, ContentItemEncoder):
        raise UserError(f"--cache_frozen true: {settings.method} does not encode content")
    backbone = encoder.backbone
    if getattr(backbone.config, "mask_ratio", 0):
        raise UserError(
            "--cache_frozen true: this ViTMAE masks patches at random (--release_masking, or --semantics "
            "release), so its hidden states cannot be cached"
        )
    layers = layers_to_cache(settings, len(layers_of(backbone)))
    cache = _StateCache(domain, encoder, layers, settings, process)
    rows = process.rank0_first(cache.computed)
    texts = domain.store if layers and isinstance(domain.store, TextStore) else None
    return replace(domain, store=StateStore(rows, layers, FORMATS[cache.form], texts))


def layers_to_cache(settings: TrainingSettings, count: int) -> tuple[int, ...]:
    """Indices of the layers, of ``count``, whose outputs are cached; () for [CLS] of the last layer only.

    Raises:
        UserError: the run trains or adapts the first layer.
    """
    adapter = settings.adapter if isinstance(settings, TargetTraining) else None
    if adapter is not None:
        if "item" not in adapter.encoders:
            return ()
        if layers := adapter.frozen_outputs(count):
            return layers
    elif "backbone" not in settings.trained_parts:
        return ()
    raise UserError(
        f"--cache_frozen true: {settings.method} changes the item encoder from its first layer, so there is "
        "nothing to cache (for adapters in the last layers only: --item_layers last:2)"
    )


@runtime_checkable
class _Identified(Protocol):
    """A store of the content of a catalogue, as read from files; ``identity`` is a hash of it."""

    identity: str


class _StateCache:
    """The cached hidden states of a catalogue, as a table on disk.

    Args:
        domain: the catalogue.
        encoder: the item encoder with the backbone.
        layers: indices of the layers to cache; empty for [CLS] of the last layer, in float32.
        settings: settings of the run.
        process: this process.
    """

    def __init__(
        self,
        domain: Domain,
        encoder: ContentItemEncoder,
        layers: tuple[int, ...],
        settings: TrainingSettings,
        process: Process,
    ) -> None:
        self.encoder = encoder
        self.layers = layers
        self.process = process
        self.store = domain.store
        self.n_items = domain.interactions.n_items
        self.form = settings.cache_format if layers and isinstance(settings, TargetTraining) else "fp32"
        self.precision = choose_precision(settings.precision if layers else "fp32", process.device)
        self.folder = REPOSITORY / settings.cache_folder / "states"
        self.pieces = self._pieces()

    def computed(self) -> np.memmap:
        """The table, memory-mapped."""
        ends = list(accumulate(piece.rows for piece in self.pieces))
        shape, dtype = (ends[-1], *self._row_shape()), FORMATS[self.form]
        with evaluating(self.encoder), self.precision.frozen_weights(self.encoder, whole=True):
            place = self.folder / self._key()
            return computed_table(place, shape, dtype, ends, self._compute, self.process.log)

    def _key(self) -> str:
        backbone = self.encoder.backbone
        assert isinstance(self.store, _Identified)
        parts = (
            _FORMAT_VERSION,
            weights_hash(backbone.state_dict()),
            _computation(backbone.config),
            self.store.identity,
            f"{self.layers} {self.form} {self.precision.name}",
        )
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]

    def _pieces(self) -> list[_Piece]:
        """Batches of consecutive items; token outputs of text are computed per attribute."""
        at_once = max(_ITEMS_AT_ONCE, -(-self.n_items // _MOST_BLOCKS))
        chunks = [
            np.arange(first, min(first + at_once, self.n_items + 1))
            for first in range(1, self.n_items + 1, at_once)
        ]
        if not self.layers or not isinstance(self.store, TextStore):
            return [_Piece(items, self.store, len(items), by_token=False) for items in chunks]
        pieces = []
        for attribute in self.store.attributes:
            alone = TextStore([attribute], self.store.tokens_at_once)
            for items in chunks:
                rows = int(attribute.offsets[items[-1]] - attribute.offsets[items[0] - 1])
                pieces.append(_Piece(items, alone, rows, by_token=True))
        return pieces

    def _row_shape(self) -> tuple[int, ...]:
        with torch.inference_mode():
            content = self.pieces[0].store.fetch(np.array([1])).to(self.process.device)
            return tuple(self._states(content).shape[1:])

    def _states(self, content: Content) -> Tensor:
        with self.precision.autocast():
            if self.layers:
                return self.encoder.layer_outputs(content, self.layers)
            return self.encoder.states(content)

    def _compute(self, number: int) -> Tensor:
        piece = self.pieces[number]
        states = self._states(piece.store.fetch(piece.items).to(self.process.device))
        kept = states.to(FORMATS[self.form])
        if not torch.isfinite(kept).all():
            if torch.isfinite(states).all():
                raise UserError(f"--cache_format {self.form}: hidden states overflow; use bf16")
            raise UserError("non-finite hidden states: the weights of the backbone contain NaN or inf")
        return kept.cpu()[piece.order()]


@dataclass(frozen=True)
class _Piece:
    """A batch of items with consecutive rows in the table.

    Attributes:
        items: ids of consecutive items.
        store: the store of their content.
        rows: number of rows in the table.
        by_token: whether each row is a token. Tokens are computed in the order of the packs.
    """

    items: np.ndarray
    store: ContentStore
    rows: int
    by_token: bool

    def order(self) -> np.ndarray | slice:
        """For each row of the table, its index in the computed batch."""
        if not self.by_token:
            return slice(None)
        assert isinstance(self.store, TextStore)
        packs, _ = self.store.packed(self.items)
        return np.argsort(np.concatenate([at for at, _ in packs]))


def _computation(config: PretrainedConfig) -> str:
    """The part of a configuration that affects the hidden states (heads, activation, eps, …), as JSON."""
    relevant = {name: value for name, value in config.to_dict().items() if name not in _NAMES_AND_VERSIONS}
    return json.dumps(relevant, sort_keys=True, default=str)
