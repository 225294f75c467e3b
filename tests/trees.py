"""The settings of the four trees, and carrying out a run of one."""

from importlib import import_module

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
]


def carry_out(settings):
    """Carry out a run as its tree does."""
    return import_module(settings.module).train(settings)
