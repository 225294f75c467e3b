"""The settings of the four trees, and carrying out a run of one."""

import json
from importlib import import_module
from pathlib import Path

from adapter4rec.utils.portable_paths import found_paths
from Downstream.CV.train import Settings as ImageTargetSettings
from Downstream.Text.train import Settings as TextTargetSettings
from Pretraining.CV.train import Settings as ImageSourceSettings
from Pretraining.Text.train import Settings as TextSourceSettings

__all__ = [
    "ImageSourceSettings",
    "ImageTargetSettings",
    "TextSourceSettings",
    "TextTargetSettings",
    "carry_out",
    "recorded_settings",
]


def carry_out(settings):
    """Carry out a run as its tree does."""
    return import_module(settings.module).train(settings)


def recorded_settings(folder):
    """The settings of a source run with text, as its folder records them."""
    recorded = json.loads((folder / "settings.json").read_text())
    folders = folder, Path(recorded["folder"])
    return found_paths(recorded["settings"], TextSourceSettings.options({}), folders)
