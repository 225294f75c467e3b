"""Released checkpoints of target domains: the source model's weights and the adapters of one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adapter4rec.adapters.attaching import copied_parameters
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into


def load_released_target(model: TransRec, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load a released checkpoint into a model with the adapters that it was trained with.

    What was trained in place there (layer norms, the item head, with LoRA whole projections) is a copy that
    belongs to the adapters here. The file no longer holds what those parameters were before; the model
    without its adapters gets the trained values, too.

    Args:
        model: with adapters.
        tensors: by the names of this project (see ``read_released``).
        source: the file, for messages.

    Raises:
        UserError: they do not fit; it names the entries.
    """
    own = model.state_dict()
    state = dict(tensors)
    for original, copy in copied_parameters(model).items():
        if original in state:
            state[copy] = state[original] if original in own else state.pop(original)
    load_into(model, state, source)
