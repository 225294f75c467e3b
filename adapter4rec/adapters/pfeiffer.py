"""Pfeiffer adapters as the paper's launchers place them: Houlsby's, after attention only.

Pfeiffer et al., EACL 2021, "AdapterFusion", keep one adapter a layer instead of Houlsby's two.
"""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.houlsby import Houlsby
from adapter4rec.adapters.sites import ATTENTION, SUBLAYERS
from adapter4rec.utils.settings import option


@dataclass(frozen=True)
class PfeifferConfig(BottleneckConfig):
    """One serial adapter a layer, after attention."""

    sublayers: tuple[str, ...] = option(
        (ATTENTION,), "sublayers that are adapted: attention, or feed_forward", choices=SUBLAYERS
    )


class Pfeiffer(Houlsby):
    """y = Attention(x) becomes A(y) = y + a(y), before the residual is added."""
