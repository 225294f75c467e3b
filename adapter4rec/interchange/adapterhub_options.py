"""What AdapterHub's library computes by its options, and which adapters here compute the same.

Around a sublayer f of an encoder, with a bottleneck a:

- ``original_ln_before`` false: the bottleneck a reads y = f(x), and y + a(y) takes the place of y. This is
  houlsby and pfeiffer. True: it reads the sum x + y, behind the layer norm in post-norm encoders.
- ``is_parallel``: a reads x, and y + scaling · a(x) takes the place of y. This is houlsby_parallel.
- ``original_ln_after`` true: the residual is added and the encoder's own layer norm applied, as without
  adapters.
- ``residual_before_ln`` and ``adapter_residual_before_ln`` choose among sums that are one and the same where
  ``original_ln_before``, ``ln_before`` and ``ln_after`` are false.
- ``mh_adapter``, ``output_adapter``: after attention, after feed-forward; ``leave_out``: layers without.
- ``reduction_factor``: r is h divided by it, rounded down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapter4rec.adapters.bottleneck import BottleneckConfig
from adapter4rec.adapters.config import ATTENTION, FEED_FORWARD, SUBLAYERS
from adapter4rec.adapters.houlsby import HoulsbyConfig
from adapter4rec.adapters.houlsby_parallel import HoulsbyParallelConfig
from adapter4rec.adapters.pfeiffer import PfeifferConfig
from adapter4rec.adapters.sites import Sites
from adapter4rec.interchange.common import chosen_layers, refusal
from adapter4rec.utils.errors import UserError, nearest

_SWITCHES = {ATTENTION: "mh_adapter", FEED_FORWARD: "output_adapter"}
_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "swish": "silu",
    "silu": "silu",
    "tanh": "tanh",
    "linear": "none",
}
"""Ours by theirs; of several names for one function the first is written."""

_NEEDED = {
    "original_ln_after": (True, "the encoder's own residual and layer norm always follow here"),
    "ln_before": (False, "there is no layer norm in front of the bottleneck here"),
    "ln_after": (False, "it adds 1e-5 to the variance there, and that of pfeiffer_after_layernorm 1e-6 here"),
    "use_gating": (False, "there are no gates here"),
    "inv_adapter": (None, "there are no invertible adapters here"),
    "cross_adapter": (False, "the encoders here have no cross-attention"),
    "phm_layer": (False, "their hypercomplex layers are not those of compacter here"),
    "stochastic_depth": (0.0, "whole layers are never dropped here"),
}
"""What an option must be, which is also its default there, and why."""

_READ = {
    "mh_adapter": None,
    "output_adapter": None,
    "reduction_factor": None,
    "non_linearity": None,
    "original_ln_before": False,
    "is_parallel": False,
    "scaling": 1.0,
    "leave_out": [],
    "dropout": 0.0,
}
"""The options that are read, with their defaults there; None where they have none."""

_NOTHING_COMPUTED = re.compile(
    r"init_weights(_seed)?|(adapter_)?residual_before_ln|inv_adapter_reduction_factor|hypercomplex_nonlinearity"
    r"|phm_.*|learn_phm|factorized_phm_.*|shared_(W_phm|phm_rule)"
)
"""Options that say how weights begin, or that have no effect where the others are as needed."""


def written_options(config: BottleneckConfig, sites: Sites) -> dict[str, Any]:
    """The library's options by which it computes the same."""
    chosen = {int(number) for number in config.layers_of(sites)}
    theirs = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}
    return {
        **{switch: sublayer in config.sublayers for sublayer, switch in _SWITCHES.items()},
        "reduction_factor": _reduction_factor(sites.width, config.item_bottleneck),
        "non_linearity": theirs[config.adapter_activation],
        "original_ln_before": False,
        "residual_before_ln": True,
        "adapter_residual_before_ln": False,
        "is_parallel": isinstance(config, HoulsbyParallelConfig),
        "scaling": 1.0,
        "dropout": config.adapter_dropout,
        "leave_out": [number for number in range(len(sites.layers)) if number not in chosen],
        "init_weights": "houlsby",
        **{option: value for option, (value, _) in _NEEDED.items()},
    }


def _bottleneck(width: int, factor: float) -> int:
    """r by the library's rule."""
    return max(1, int(width // factor))


def _reduction_factor(width: int, bottleneck: int) -> float:
    """A factor that gives r by the library's rule: h / r, unless rounding spoils it."""
    exact = width / bottleneck
    return exact if _bottleneck(width, exact) == bottleneck else width / (bottleneck + 0.5)


def checked_options(options: Any, source: Path) -> dict[str, Any]:
    """The options that are read, with defaults for those that are not given.

    Raises:
        UserError: options of another method, one that is missing, or one that has no counterpart here.
    """
    if not isinstance(options, dict) or options.get("architecture") is not None:
        method = options.get("architecture") if isinstance(options, dict) else options
        raise refusal(source, "config", method, "only bottleneck adapters are exchanged with this library")
    _refuse_others(options, source)
    given = {name: value for name, value in options.items() if name in _READ and value is not None}
    read = _READ | given
    if missing := [name for name, value in read.items() if value is None]:
        raise UserError(f"{source}: damaged ({', '.join(missing)} not there)")
    if read["original_ln_before"] and not read["is_parallel"]:
        raise refusal(
            source,
            "original_ln_before",
            True,
            "its bottleneck reads the sum with the residual (behind the layer norm, in post-norm encoders), "
            "those here read the sublayer's output alone",
        )
    if not isinstance(read["leave_out"], list):
        raise refusal(source, "leave_out", read["leave_out"], "expected numbers of layers")
    if isinstance(read["scaling"], bool) or not isinstance(read["scaling"], int | float):
        raise refusal(source, "scaling", read["scaling"], "a trained factor has no counterpart here")
    return read


def _refuse_others(options: Mapping[str, Any], source: Path) -> None:
    """Raise a UserError for an option that has no counterpart here, or is not known."""
    for name, value in options.items():
        if name in _NEEDED:
            needed, why = _NEEDED[name]
            if value != needed and (value or needed):
                raise refusal(source, name, value, why)
        elif name not in _READ and name != "architecture" and not _NOTHING_COMPUTED.fullmatch(name):
            raise refusal(source, name, value, "this option is not known here")


def config_of(options: Mapping[str, Any], sites: Sites, source: Path) -> BottleneckConfig:
    """The config of the family that computes the same as the library by its options.

    Raises:
        UserError: no layer or sublayer has an adapter, layers differ in their width, or there is no such
            activation here.
    """
    sublayers = tuple(sublayer for sublayer in SUBLAYERS if options[_SWITCHES[sublayer]])
    count = len(sites.layers)
    numbers = [number for number in range(count) if number not in options["leave_out"]]
    if not sublayers or not numbers:
        raise UserError(f"{source}: by its options no layer of this encoder has an adapter")
    activation = str(options["non_linearity"]).lower()
    if activation not in _ACTIVATIONS:
        raise refusal(source, "non_linearity", activation, nearest(activation, list(_ACTIVATIONS)))
    if options["is_parallel"]:
        family = HoulsbyParallelConfig
    else:
        family = HoulsbyConfig if sublayers == SUBLAYERS else PfeifferConfig
    return family(
        encoders=("item",),
        item_layers=chosen_layers(numbers, count),
        sublayers=sublayers,
        item_bottleneck=_one_bottleneck(options["reduction_factor"], numbers, sites.width, source),
        adapter_activation=_ACTIVATIONS[activation],
        adapter_dropout=options["dropout"],
    )


def _one_bottleneck(factor: Any, numbers: list[int], width: int, source: Path) -> int:
    """r of all layers, from a reduction factor, or one for each layer with a ``default``."""
    factors = [factor]
    if isinstance(factor, dict):
        factors = [factor.get(str(number), factor.get("default")) for number in numbers]
    if not all(isinstance(one, int | float) and one > 0 for one in factors):
        raise refusal(source, "reduction_factor", factor, "expected a number above 0, for each layer")
    widths = {_bottleneck(width, one) for one in factors}
    if len(widths) > 1:
        raise refusal(source, "reduction_factor", factor, "all layers have bottlenecks of one width here")
    return widths.pop()
