"""Floating-point operations (FLOPs) of a backbone."""

from __future__ import annotations

import numpy as np
from transformers import PretrainedConfig


def forward_operations(config: PretrainedConfig, lengths: np.ndarray) -> float:
    """FLOPs of a forward pass through the layers of a backbone, for texts or images of the given lengths.

    Counts the matrix products only; a multiply-add is two operations. Multiply-adds per token and layer:
    attention projections 4h², feed-forward 2hf, scores and weighted values 2lh for a text of l tokens.
    """
    h, f = config.hidden_size, config.intermediate_size
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    return config.num_hidden_layers * 2 * (tokens * (4 * h * h + 2 * h * f) + 2 * pairs * h)
