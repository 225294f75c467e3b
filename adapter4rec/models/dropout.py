"""Dropout with faster random numbers on CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16


def dropped(x: Tensor, probability: float) -> Tensor:
    """Dropout, always in training mode.

    On GPU this is ``F.dropout``. On CPU, PyTorch draws one random number per element, which costs as much as
    a small matrix product; here four elements share one 64-bit number, which rounds the probability to a
    multiple of 1 / 65536.

    Args:
        x: of any shape.
        probability: of an element to be zeroed.
    """
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    threshold = round(probability * _LEVELS)
    if threshold == 0:
        return x
    kept: Tensor = _levels(x) >= threshold - _LEVELS // 2
    scale = _LEVELS / (_LEVELS - threshold) if threshold < _LEVELS else 0.0
    return x * (kept.to(x.dtype) * scale)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # compiled code would draw one number per element
def _levels(x: Tensor) -> Tensor:
    """A random integer from -32768 to 32767 for each element of ``x``."""
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return words.view(torch.int16)[: x.numel()].view(x.shape)


class Dropout(nn.Dropout):
    """``nn.Dropout`` with :func:`dropped` in training."""

    def forward(self, x: Tensor) -> Tensor:
        """``[...]`` → ``[...]``."""
        return dropped(x, self.p) if self.training and self.p else x


def use_fast_dropout(model: nn.Module) -> None:
    """Replace every ``nn.Dropout`` in a model by :class:`Dropout`."""
    for owner in list(model.modules()):
        for name, module in owner.named_children():
            if type(module) is nn.Dropout:
                setattr(owner, name, Dropout(module.p).train(module.training))
