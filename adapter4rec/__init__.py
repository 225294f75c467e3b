"""Adapter4Rec: recommenders trained on raw item content, and adapters that transfer them to new domains.

The public API for notebooks: ``from adapter4rec import HoulsbyConfig, add_adapters``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "adapters.attaching": ("add_adapters", "detach_adapters"),
    "adapters.files": ("load_adapter", "save_adapter"),
    "checkpoints.merging": ("merge_adapters", "save_encoder", "unmerge_adapters"),
    "adapters.registry": ("FAMILIES",),
    "adapters.houlsby": ("HoulsbyConfig", "HoulsbyParallelConfig"),
    "adapters.pfeiffer": ("PfeifferConfig", "PfeifferAfterLayerNormConfig"),
    "adapters.k_adapter": ("KAdapterConfig",),
    "adapters.lora": ("LoraConfig",),
    "adapters.compacter": ("CompacterConfig",),
    "adapters.peft": ("PeftConfig",),
    "adapters.prompt": ("PromptConfig",),
    "adapters.selective": ("BitFitConfig", "LayerNormConfig"),
    "checkpoints.loading": ("load_source",),
    "serving.recommender": ("Recommender",),
    "serving.loading": ("load",),
    "serving.domains": ("Domains",),
    "serving.hub": ("from_pretrained", "push_to_hub"),
    "models.parameters": ("count_parameters",),
    "datasets.frames": ("from_dataframes",),
    "report.results": ("results",),
    "runs.curves": ("draw_curves",),
    "utils.errors": ("UserError",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605 (the names are in _HOMES)


def __getattr__(name: str) -> Any:
    """Import public names lazily: importing torch takes seconds, and ``--help`` does not need it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
