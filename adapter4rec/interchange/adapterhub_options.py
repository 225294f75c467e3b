"""Options of AdapterHub's library and the equivalent adapter configs of this project.

For a sublayer f of an encoder and a bottleneck a:

- ``original_ln_before`` false: a reads y = f(x), and y + a(y) replaces y. This is houlsby and pfeiffer. True:
  a reads the sum x + y, after the layer norm in post-norm encoders.
- ``is_parallel``: a reads x, and y + scaling · a(x) replaces y. This is houlsby_parallel.
- ``original_ln_after`` true: the residual and the layer norm of the encoder follow, as without adapters.
- ``residual_before_ln`` and ``adapter_residual_before_ln`` have no effect if ``original_ln_before``,
  ``ln_before`` and ``ln_after`` are false.
- ``mh_adapter``, ``output_adapter``: adapters after attention, after feed-forward; ``leave_out``: layers
  without adapters.
- ``reduction_factor``: h divided by the bottleneck width r, where r is rounded down.
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
"""This project's name by the library's name. On export, the first of several names is written."""

_NEEDED = {
    "original_ln_after": (True, "adapters without the encoder's residual and layer norm are not supported"),
    "ln_before": (False, "a layer norm before the bottleneck is not supported"),
    "ln_after": (False, "its layer norm has epsilon 1e-5, that of pfeiffer_after_layernorm 1e-6"),
    "use_gating": (False, "gates are not supported"),
    "inv_adapter": (None, "invertible adapters are not supported"),
    "cross_adapter": (False, "cross-attention is not supported"),
    "phm_layer": (False, "the library's PHM layers differ from those of compacter"),
    "stochastic_depth": (0.0, "stochastic depth is not supported"),
}
"""Options with a required value, which is also the library's default, and the reason."""

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
"""Options that are read, with the library's defaults; None if an option has no default."""

_NO_EFFECT = re.compile(
    r"init_weights(_seed)?|(adapter_)?residual_before_ln|inv_adapter_reduction_factor|hypercomplex_nonlinearity"
    r"|phm_.*|learn_phm|factorized_phm_.*|shared_(W_phm|phm_rule)"
)
"""Options that affect only the initialisation, or nothing if the others have their required values."""


def written_options(config: BottleneckConfig, sites: Sites) -> dict[str, Any]:
    """Options with which the library computes the same as an adapter config."""
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
    """Bottleneck width r as the library computes it."""
    return max(1, int(width // factor))


def _reduction_factor(width: int, bottleneck: int) -> float:
    """A factor from which the library computes r: h / r, adjusted if rounding would change the result."""
    exact = width / bottleneck
    return exact if _bottleneck(width, exact) == bottleneck else width / (bottleneck + 0.5)


def checked_options(options: Any, source: Path) -> dict[str, Any]:
    """Validate options and fill in defaults.

    Args:
        options: entry ``config`` of ``adapter_config.json``.
        source: path of the file, for error messages.

    Raises:
        UserError: options of another method, a missing option, or an unsupported one.
    """
    if not isinstance(options, dict) or options.get("architecture") is not None:
        method = options.get("architecture") if isinstance(options, dict) else options
        raise refusal(source, "config", method, "only bottleneck adapters can be imported from this library")
    _check_others(options, source)
    present = {name: value for name, value in options.items() if name in _READ and value is not None}
    read = _READ | present
    if missing := [name for name, value in read.items() if value is None]:
        raise UserError(f"{source}: damaged ({', '.join(missing)} missing)")
    if read["original_ln_before"] and not read["is_parallel"]:
        raise refusal(
            source,
            "original_ln_before",
            True,
            "adapters that read the sum with the residual are not supported, only those that read the output "
            "of the sublayer",
        )
    if not isinstance(read["leave_out"], list):
        raise refusal(source, "leave_out", read["leave_out"], "expected a list of layer numbers")
    if isinstance(read["scaling"], bool) or not isinstance(read["scaling"], int | float):
        raise refusal(source, "scaling", read["scaling"], "a trained factor is not supported")
    return read


def _check_others(options: Mapping[str, Any], source: Path) -> None:
    """Raise a UserError for an unsupported or unknown option."""
    for name, value in options.items():
        if name in _NEEDED:
            needed, why = _NEEDED[name]
            if value != needed and (value or needed):
                raise refusal(source, name, value, why)
        elif name not in _READ and name != "architecture" and not _NO_EFFECT.fullmatch(name):
            raise refusal(source, name, value, "unknown option")


def config_of(options: Mapping[str, Any], sites: Sites, source: Path) -> BottleneckConfig:
    """The adapter config that computes the same as the library with these options.

    Args:
        options: validated options; see :func:`checked_options`.
        sites: adapter sites of the item encoder.
        source: path of ``adapter_config.json``, for error messages.

    Raises:
        UserError: no layer or sublayer has an adapter, bottleneck widths differ between layers, or the
            activation is not supported.
    """
    sublayers = tuple(sublayer for sublayer in SUBLAYERS if options[_SWITCHES[sublayer]])
    count = len(sites.layers)
    numbers = [number for number in range(count) if number not in options["leave_out"]]
    if not sublayers or not numbers:
        raise UserError(f"{source}: no layer of this encoder has an adapter with these options")
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
    """Bottleneck width of all layers, from one reduction factor or a dict by layer with a ``default``."""
    factors = [factor]
    if isinstance(factor, dict):
        factors = [factor.get(str(number), factor.get("default")) for number in numbers]
    if not all(isinstance(one, int | float) and one > 0 for one in factors):
        raise refusal(source, "reduction_factor", factor, "expected a number above 0 for each layer")
    widths = {_bottleneck(width, one) for one in factors}
    if len(widths) > 1:
        raise refusal(source, "reduction_factor", factor, "different bottleneck widths are not supported")
    return widths.pop()
