"""Study rows and source models from the hyperparameters of launchers."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from adapter4rec.checkpoints.settings import WITHOUT_SOURCE
from adapter4rec.studies.plan import StudyRow, StudySource
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import REPOSITORY
from adapter4rec.utils.settings import options_of

_CHECKPOINT_PATHS = ("source_checkpoint", "export")


def page(script: str, **changes: Any) -> dict[str, Any]:
    """The hyperparameters of a launcher, without paths of source models.

    Args:
        script: path relative to the repository, such as ``Downstream/Text/script/adapter_houlsby``.
        changes: settings to override.

    Raises:
        UserError: there is no such launcher.
    """
    values = dict(_hyperparameters(script))
    if "backbone" not in values:  # the method uses none
        changes.pop("backbone", None)
    return {name: value for name, value in (values | changes).items() if name not in _CHECKPOINT_PATHS}


def rows(
    folder: str,
    scripts: Mapping[str, str],
    source: str,
    *,
    section: str = "",
    few_steps: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> list[StudyRow]:
    """One row per launcher.

    Args:
        folder: folder of the launchers, such as ``Downstream/Text/script``.
        scripts: names of launchers, by row name.
        source: name of the source model, used by the methods that start from one.
        section: section of the rows.
        few_steps: settings with ``--few_steps``, by row name; see :class:`StudyRow`.
        changes: settings to override in all rows.

    Raises:
        UserError: there is no such launcher.
    """
    made = []
    for name, script in scripts.items():
        settings = page(f"{folder}/{script}", **changes)
        start = None if settings["method"] in WITHOUT_SOURCE else source
        made.append(StudyRow(name, settings, section, start, few_steps=(few_steps or {}).get(name, {})))
    return made


def source(script: str, **changes: Any) -> StudySource:
    """The source model that a launcher trains.

    Its existing checkpoint is used if ``changes`` leave the launcher's settings as they are.

    Args:
        script: path relative to the repository, such as ``Pretraining/Text/script/sm_base_sasrec``.
        changes: settings to override.

    Raises:
        UserError: there is no such launcher.
    """
    values = page(script)
    tree = import_module(f"{'.'.join(Path(script).parts[:2])}.train")
    defaults = {name: one.default for name, one in options_of(tree.Settings).items()}
    unchanged = all(values.get(name, defaults.get(name)) == value for name, value in changes.items())
    return StudySource([values | changes], _hyperparameters(script).get("export") if unchanged else None)


def _hyperparameters(script: str) -> Mapping[str, Any]:
    path = (REPOSITORY / script).with_suffix(".py")
    if not path.is_file():
        scripts = [str(one.relative_to(REPOSITORY).with_suffix("")) for one in path.parent.glob("*.py")]
        raise UserError(f"{path}: no such launcher; {nearest(script, scripts)}")
    return runpy.run_path(str(path))["hyperparameters"]
