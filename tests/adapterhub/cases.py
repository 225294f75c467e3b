"""What both sides of the exchange with AdapterHub's library agree upon: encoders, content, and files.

The two sides run in environments of their own, since the library needs an older transformers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5
KINDS = ("bert", "roberta", "xlm-roberta", "vit", "clip_vision_model")

ALL_KINDS = {
    "houlsby": ("houlsby", {}),
    "pfeiffer": ("pfeiffer", {}),
    "houlsby_parallel": ("houlsby_parallel", {}),
}
ONE_KIND = {
    "pfeiffer_feed_forward": ("pfeiffer", {"sublayers": ("feed_forward",)}),
    "last_layer": ("houlsby", {"item_layers": "1"}),
    "odd_width": ("houlsby", {"item_bottleneck": 5}),
    "gelu": ("houlsby", {"adapter_activation": "gelu"}),
    "gelu_tanh": ("houlsby", {"adapter_activation": "gelu_tanh"}),
    "silu": ("houlsby", {"adapter_activation": "silu"}),
    "tanh": ("houlsby", {"adapter_activation": "tanh"}),
    "linear": ("houlsby", {"adapter_activation": "none"}),
}
"""Families and options of adapters that are exported here, by the case's name."""


def kinds_of(case: str) -> tuple[str, ...]:
    """The encoders that an exported case is tried on."""
    return KINDS if case in ALL_KINDS else KINDS[:1]


def content_for(kind: str) -> dict[str, Tensor]:
    """Keyword arguments of an encoder's call."""
    generator = torch.Generator().manual_seed(3)
    if kind in ("vit", "clip_vision_model"):
        return {"pixel_values": torch.randn(3, 3, 16, 16, generator=generator)}
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    words = torch.randint(5, 60, (3, 7), generator=generator) * mask + (1 - mask)  # 1 pads RoBERTa
    return {"input_ids": words, "attention_mask": mask}


def states_of(model: nn.Module, kind: str) -> Tensor:
    """Last states, ``[3, places, h]``."""
    with torch.no_grad():
        return model.eval()(**content_for(kind)).last_hidden_state


def away_from_start(parameters: list[nn.Parameter]) -> None:
    """Give an adapter parameters that do something."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


class Differences:
    """The largest difference of each case; the program fails if one is above the tolerance."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.failed = False

    def compare(self, case: str, expected: Tensor, computed: Tensor, bare: Tensor | None) -> None:
        """Print how far two states lie apart, and how far they lie from those without adapters."""
        difference = (expected - computed).abs().max().item()
        effect = None if bare is None else (expected - bare).abs().max().item()
        told = "" if effect is None else f"   effect of the adapter {effect:.2f}"
        print(f"  {case:45} {difference:.2e}{told}")
        self.largest = max(self.largest, difference)
        self.failed |= not difference <= TOLERANCE or (effect is not None and effect < 0.01)

    def exit_code(self, what: str) -> int:
        """Print the largest difference; 1 if a case failed."""
        print(f"{what}: largest difference {self.largest:.2e}, allowed is {TOLERANCE:.0e}")
        return int(self.failed)


def encoder_folder(root: Path, kind: str) -> Path:
    """Where an encoder lies."""
    return root / "encoders" / kind


def case_folder(root: Path, side: str, case: str, kind: str) -> Path:
    """Where an adapter lies; its states are beside it, ``.pt``."""
    return root / side / case / kind
