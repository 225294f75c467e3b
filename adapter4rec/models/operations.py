"""How many floating-point operations a backbone takes."""

from __future__ import annotations

import numpy as np
from transformers import PretrainedConfig


def forward_operations(config: PretrainedConfig, lengths: np.ndarray) -> float:
    """Floating-point operations of a backbone's layers for texts or images of these lengths.

    A multiplication and an addition are two. Counted are the matrix products of every layer, for each token:
    projections of attention 4h², feed-forward 2hf, scores and weighted values 2lh for a text of l tokens.
    """
    h, f = config.hidden_size, config.intermediate_size
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    return config.num_hidden_layers * 2 * (tokens * (4 * h * h + 2 * h * f) + 2 * pairs * h)
