"""Caching the hidden states of the frozen part of a backbone, so that it runs only once per item.

If no layer of the backbone is trained or adapted, these are the pooled hidden states of each text or image.
If adapters start at a later layer, or run beside the backbone, these are the outputs of the layers that they
read, for every token or patch. Both are computed in eval mode, so the frozen part runs without dropout.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from adapter4rec.adapters.attaching import base_groups_of
from adapter4rec.data.cached_table import computed_table
from adapter4rec.data.content import ContentStore
from adapter4rec.data.domain import Domain
from adapter4rec.data.states import FORMATS, StateStore
from adapter4rec.data.text import TextStore
from adapter4rec.evaluation.catalogue import evaluating
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.layers import layers_of
from adapter4rec.models.parts import BACKBONE, FIXED
from adapter4rec.models.transrec import TransRec
from adapter4rec.training.settings import TargetTraining, TrainingSettings
from adapter4rec.utils.checkpoint_file import weights_hash
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.precision import choose_precision
from adapter4rec.utils.process_group import Process

_FORMAT_VERSION = "states-4"
_NAMES_AND_VERSIONS = ("_name_or_path", "transformers_version", "architectures", "dtype")
_ITEMS_AT_ONCE = 512


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
    form = settings.cache_format if layers and isinstance(settings, TargetTraining) else "fp32"
    rows = process.rank0_first(lambda: _cached_rows(domain, model, layers, form, settings, process))
    texts = domain.store if layers and isinstance(domain.store, TextStore) else None
    return replace(domain, store=StateStore(rows, layers, FORMATS[form], texts))


def layers_to_cache(settings: TrainingSettings, count: int) -> tuple[int, ...]:
    """Indices of the layers, of ``count``, whose outputs are cached; () for the pooled states only.

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


def _cached_rows(
    domain: Domain,
    model: TransRec,
    layers: tuple[int, ...],
    form: str,
    settings: TrainingSettings,
    process: Process,
) -> np.memmap:
    """The states of a catalogue as a table on disk, memory-mapped; missing rows are computed.

    Its rows are items; or, for outputs of layers for texts, the tokens of all items, attribute by attribute.

    Args:
        domain: the catalogue.
        model: the model, perhaps with adapters.
        layers: indices of the layers to cache; empty for the pooled states of the last layer, in float32.
        form: storage format of the states.
        settings: settings of the run.
        process: this process.
    """
    encoder, store, n_items = model.item_encoder, domain.store, domain.interactions.n_items
    assert isinstance(encoder, ContentItemEncoder)
    precision = choose_precision(settings.precision if layers else "fp32", process.device)
    stores: list[ContentStore] = [store]
    by_token = bool(layers) and isinstance(store, TextStore)
    if by_token and isinstance(store, TextStore):
        stores = [TextStore([attribute], store.tokens_at_once) for attribute in store.attributes]
    chunks = np.split(np.arange(1, n_items + 1), range(_ITEMS_AT_ONCE, n_items, _ITEMS_AT_ONCE))
    pieces = [(one, items) for one in stores for items in chunks]
    ends = list(accumulate(int(one.costs(items).sum()) if by_token else len(items) for one, items in pieces))

    def states_of(store: ContentStore, items: np.ndarray) -> Tensor:
        content = store.fetch(items).to(process.device)
        with precision.autocast():
            return encoder.layer_outputs(content, layers) if layers else encoder.states(content)

    def compute(number: int) -> Tensor:
        store, items = pieces[number]
        states = states_of(store, items)
        kept = states.to(FORMATS[form])
        if not torch.isfinite(kept).all():
            if torch.isfinite(states).all():
                raise UserError(f"--cache_format {form}: hidden states overflow; use bf16")
            raise UserError("non-finite hidden states: the weights of the backbone contain NaN or inf")
        if layers and isinstance(store, TextStore):  # computed in the order of the packs
            packs, _ = store.packed(items)
            return kept.cpu()[np.argsort(np.concatenate([at for at, _ in packs]))]
        return kept.cpu()

    with evaluating(encoder), precision.frozen_weights(encoder, whole=True):
        assert hasattr(store, "identity")  # all but stores of ids and of cached states
        pooling = "" if layers else encoder.pooling
        key = _cache_key(model, store.identity, f"{layers} {form} {precision.name} {pooling}")
        shape = (ends[-1], *states_of(stores[0], np.array([1])).shape[1:])
        place = REPOSITORY / settings.cache_folder / "states" / key
        return computed_table(place, shape, FORMATS[form], ends, compute, process.log)


def _cache_key(model: TransRec, content: str, form: str) -> str:
    """A hash of the backbone's weights and configuration, the catalogue's content, and the form of states."""
    assert isinstance(model.item_encoder, ContentItemEncoder)
    config, groups = model.item_encoder.backbone.config.to_dict().items(), base_groups_of(model)
    weights = {name: one for group in (BACKBONE, FIXED) for name, one in groups.get(group, {}).items()}
    # What affects the hidden states: heads, activation, eps, …
    relevant = {name: value for name, value in config if name not in _NAMES_AND_VERSIONS}
    computation = json.dumps(relevant, sort_keys=True, default=str)
    parts = (_FORMAT_VERSION, weights_hash(weights), computation, content, form)
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:32]
