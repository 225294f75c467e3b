"""Study rows and source models from the hyperparameters of launchers."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from typing import Any

from adapter4rec.checkpoints.settings import WITHOUT_SOURCE
from adapter4rec.studies.plan import StudyRow
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import REPOSITORY


def page(script: str, **changes: Any) -> dict[str, Any]:
    """The hyperparameters of a launcher, without paths of source models.

    Args:
        script: path relative to the repository, such as ``Downstream/Text/script/adapter_houlsby``.
        changes: settings to override.

    Raises:
        UserError: there is no such launcher.
    """
    values = _hyperparameters(script)
    if "backbone" not in values:  # the method uses none
        changes.pop("backbone", None)
    without = ("source_checkpoint", "export")
    return {name: value for name, value in (values | changes).items() if name not in without}


def rows(
    tree: str, scripts: Mapping[str, str], source: str, *, section: str = "", **changes: Any
) -> list[StudyRow]:
    """One row per launcher.

    Args:
        tree: ``Text`` or ``CV``.
        scripts: names of launchers, by row name.
        source: name of the source model, used by the methods that start from one.
        section: section of the rows.
        changes: settings to override in all rows.

    Raises:
        UserError: there is no such launcher.
    """
    made = []
    for name, script in scripts.items():
        settings = page(f"Downstream/{tree}/script/{script}", **changes)
        start = None if settings["method"] in WITHOUT_SOURCE else source
        made.append(StudyRow(name, settings, section, start))
    return made


def source(script: str, **changes: Any) -> dict[str, Any]:
    """The settings of a source model: the hyperparameters of the launcher that trains it.

    They name its exported checkpoint unless ``changes`` change another one of them.

    Args:
        script: path relative to the repository, such as ``Pretraining/Text/script/sm_base_sasrec``.
        changes: settings to override.

    Raises:
        UserError: there is no such launcher.
    """
    values = _hyperparameters(script)
    return values if values == values | changes else page(script, **changes)


def _hyperparameters(script: str) -> dict[str, Any]:
    path = (REPOSITORY / script).with_suffix(".py")
    if not path.is_file():
        launchers = [one.stem for one in path.parent.glob("*.py")]
        raise UserError(f"{path}: no such launcher; {nearest(path.stem, launchers)}")
    hyperparameters: dict[str, Any] = runpy.run_path(str(path))["hyperparameters"]
    return hyperparameters
