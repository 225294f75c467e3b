"""Loading released checkpoints of target domains, which contain source model and adapters in one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from adapter4rec.adapters.attaching import copied_parameters
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.weights import load_into


def load_released_target(model: TransRec, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load a released checkpoint into a model with the same adapters.

    The released code trains some parameters in place (layer norms, the item head, with LoRA whole
    projections), of which adapters have copies here. As the file does not have the original values, the
    original parameters get the trained values, too.

    Args:
        model: with adapters.
        tensors: by the names of this project (see ``read_released``).
        source: path of the file, for error messages.

    Raises:
        UserError: the tensors do not match the model; the message lists the differences.
    """
    own = model.state_dict()
    state = dict(tensors)
    for original, copy in copied_parameters(model).items():
        if original in state:
            state[copy] = state[original] if original in own else state.pop(original)
    load_into(model, state, source)
