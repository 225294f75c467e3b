"""States of a frozen backbone, computed once for a catalogue and mapped from disk."""

from __future__ import annotations

import hashlib

from adapter4rec.checkpoints import weights_hash
from adapter4rec.data.cache import cached_arrays
from adapter4rec.data.content import StateStore
from adapter4rec.data.text import TextStore
from adapter4rec.distributed import Process
from adapter4rec.evaluation import encode_catalogue, evaluating
from adapter4rec.files import relative_to_repository
from adapter4rec.models.item_encoders import TextItemEncoder
from adapter4rec.stages import RunSettings

_FORM = "states-1"


def cached_states(
    item_encoder: TextItemEncoder, store: TextStore, settings: RunSettings, process: Process
) -> StateStore:
    """The [CLS] states of all items, in eval mode and float32, computed only where no cache has them.

    A cache is found by the hash of the backbone's weights and of the catalogue's tokens, so that it serves
    all runs that share both.
    """
    weights = weights_hash(item_encoder.backbone.state_dict())
    key = hashlib.sha256(f"{_FORM} {weights} {store.identity}".encode()).hexdigest()[:32]
    n_items = len(store.costs())
    alone = Process(rank=0, count=1, device=process.device)

    def compute() -> dict:
        process.say(f"computing the backbone's states of {n_items:,} items, once")
        with evaluating(item_encoder):
            states = encode_catalogue(item_encoder.states, store, n_items, alone)
        return {"states": states[1:].cpu().numpy()}

    folder = relative_to_repository(settings.cache_folder) / "states"
    arrays = process.first_then_others(lambda: cached_arrays(folder, key, compute, process.say))
    return StateStore(arrays["states"])
