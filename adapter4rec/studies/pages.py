"""What the launchers' pages say, for studies that sweep them."""

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

_WHERE = ("source_checkpoint", "export")


def page(script: str, **changes: Any) -> dict[str, Any]:
    """The hyperparameters of a launcher, without the places of source models.

    Args:
        script: path from the repository, as ``Downstream/Text/script/adapter_houlsby``.
        changes: settings that are others here.

    Raises:
        UserError: there is no such launcher.
    """
    said = dict(_said(script))
    if "backbone" not in said:  # what does without one
        changes.pop("backbone", None)
    return {name: value for name, value in (said | changes).items() if name not in _WHERE}


def rows(
    folder: str,
    scripts: Mapping[str, str],
    source: str,
    *,
    section: str = "",
    few_steps: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> list[StudyRow]:
    """A row for each of a folder's launchers.

    Args:
        folder: of the launchers, as ``Downstream/Text/script``.
        scripts: names of launchers by the name of the row.
        source: name of the source model, for the methods that start from one.
        section: of the rows.
        few_steps: by name of the row, see :class:`StudyRow`.
        changes: settings that are others in all of these rows.
    """
    made = []
    for name, script in scripts.items():
        settings = page(f"{folder}/{script}", **changes)
        start = None if settings["method"] in WITHOUT_SOURCE else source
        made.append(StudyRow(name, settings, section, start, few_steps=(few_steps or {}).get(name, {})))
    return made


def source(script: str, **changes: Any) -> StudySource:
    """The source model that a launcher trains, or has trained already where nothing is changed.

    Args:
        script: path from the repository, as ``Pretraining/Text/script/sm_base_sasrec``.
        changes: settings that are others here.

    Raises:
        UserError: there is no such launcher.
    """
    said = page(script)
    tree = import_module(f"{'.'.join(Path(script).parts[:2])}.train")
    defaults = {name: one.default for name, one in options_of(tree.Settings).items()}
    as_it_is = all(said.get(name, defaults.get(name)) == value for name, value in changes.items())
    return StudySource([said | changes], _said(script).get("export") if as_it_is else None)


def _said(script: str) -> Mapping[str, Any]:
    path = (REPOSITORY / script).with_suffix(".py")
    if not path.is_file():
        there = [str(one.relative_to(REPOSITORY).with_suffix("")) for one in path.parent.glob("*.py")]
        raise UserError(f"{path}: no such launcher; {nearest(script, there)}")
    return runpy.run_path(str(path))["hyperparameters"]
