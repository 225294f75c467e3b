"""The optimizer and the learning rates of its parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from adapter4rec.models.transrec import TransRec


def make_optimizer(
    model: TransRec, learning_rates: Mapping[str, float], weight_decay: float = 0.0
) -> torch.optim.AdamW:
    """Adam as in the paper: betas (0.9, 0.999), eps 1e-8; with decoupled weight decay if it is not 0.

    Each parameter group of the model is one of the optimizer, with its name as ``part``; or two with weight
    decay, as biases and layer norms, the parameters with one axis, have none.

    Args:
        model: trained parameters are those that require gradients.
        learning_rates: by name of the model's parameter group.
        weight_decay: of the parameters with several axes.
    """
    groups = []
    for part, parameters in model.parameter_groups().items():
        trained = [(name, parameter) for name, parameter in parameters.items() if parameter.requires_grad]
        for decay in dict.fromkeys((weight_decay, 0.0)):
            chosen = [one for one in trained if not weight_decay or (one[1].ndim > 1) == (decay > 0)]
            if chosen:
                rates = dict.fromkeys(("lr", "initial_lr"), learning_rates[part])
                groups.append({"part": part, "params": chosen, "weight_decay": decay, **rates})
    return torch.optim.AdamW(groups, fused=True)
