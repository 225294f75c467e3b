"""Pfeiffer adapters as the paper's launchers place them: Houlsby's, after attention only.

Pfeiffer et al., EACL 2021, "AdapterFusion", keep one adapter per layer instead of Houlsby's two.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.adapters.config import ATTENTION, SUBLAYERS
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class PfeifferConfig(HoulsbyConfig):
    """One serial adapter per layer: y = Attention(x) becomes A(y) = y + a(y)."""

    sublayers: tuple[str, ...] = option(
        (ATTENTION,), "sublayers that are adapted: attention, or feed_forward", choices=SUBLAYERS
    )
