"""States of a frozen backbone, computed once for a catalogue and mapped from disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from transformers import PretrainedConfig

from adapter4rec.checkpoints import weights_hash
from adapter4rec.data.cache import Arrays, cached_arrays
from adapter4rec.data.content import StateStore
from adapter4rec.distributed import Process
from adapter4rec.domains import Domain
from adapter4rec.errors import UserError
from adapter4rec.evaluation import encode_catalogue, evaluating
from adapter4rec.files import relative_to_repository
from adapter4rec.models.transrec import TransRec
from adapter4rec.stages import RunSettings

_FORM = "states-2"
_NAMES_AND_VERSIONS = ("_name_or_path", "transformers_version", "architectures", "dtype")


def with_cached_states(domain: Domain, model: TransRec, settings: RunSettings, process: Process) -> Domain:
    """The domain with the frozen backbone's [CLS] states in place of its items' content.

    The states are computed in eval mode and float32, and only where no cache has them: it is found by the
    hash of the backbone's weights and configuration and of the catalogue's content, so that all runs that
    share these use it.

    Raises:
        UserError: the backbone masks patches at random, so that its states differ from call to call.
    """
    backbone, store = model.item_encoder.backbone, domain.store
    if getattr(backbone.config, "mask_ratio", 0):
        raise UserError("--release_masking: states of images that are masked anew each time cannot be kept")
    parts = (_FORM, weights_hash(backbone.state_dict()), _computation(backbone.config), store.identity)
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    n_items = domain.interactions.n_items
    alone = Process(rank=0, count=1, device=process.device)

    def compute() -> Arrays:
        process.say(f"computing the backbone's states of {n_items:,} items, once")
        with evaluating(model.item_encoder):
            states = encode_catalogue(model.item_encoder.states, store, n_items, alone)
        return {"states": states[1:].cpu().numpy()}

    folder = relative_to_repository(settings.cache_folder) / "states"
    arrays = process.first_then_others(lambda: cached_arrays(folder, key[:32], compute, process.say))
    assert len(arrays["states"]) == n_items
    return replace(domain, store=StateStore(arrays["states"]))


def _computation(config: PretrainedConfig) -> str:
    """What a configuration says of how states are computed (heads, activation, eps, …)."""
    said = {name: value for name, value in config.to_dict().items() if name not in _NAMES_AND_VERSIONS}
    return json.dumps(said, sort_keys=True, default=str)
