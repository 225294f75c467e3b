"""The studies of the paper, shared by the text and image trees.

Each function builds a study for a tree, ``Text`` or ``CV``. The rows are launchers in
``Downstream/TREE/script``; the source models are trained by launchers in ``Pretraining/TREE/script``. The
study scripts pass what a user may want to change.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adapter4rec.adapters.peft import PeftConfig
from adapter4rec.checkpoints.settings import WITHOUT_CONTENT, WITHOUT_SOURCE
from adapter4rec.studies.plan import Study, StudyRow
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import REPOSITORY

_LAUNCHERS = {
    "popularity": "popularity",
    "item kNN": "item_knn",
    "id tower": "id",
    "from scratch": "scratch",
    "frozen": "frozen",
    "head": "head",
    "full fine-tuning": "finetune",
    "Houlsby": "adapter_houlsby",
    "Houlsby, parallel": "adapter_houlsby_parallel",
    "Pfeiffer": "adapter_pfeiffer",
    "K-Adapter": "adapter_kadapter",
    "LoRA": "adapter_lora",
    "Compacter": "adapter_compacter",
    "prompt": "adapter_prompt",
    "BitFit": "bitfit",
    "layer norms": "layernorm",
}
"""Launchers by row name."""


def _launchers(*names: str) -> dict[str, str]:
    return {name: _LAUNCHERS[name] for name in names}


ADAPTERS = {row: script for row, script in _LAUNCHERS.items() if row not in ("id tower", "from scratch")}
ADAPTATIONS = _launchers(
    "popularity", "item kNN", "frozen", "from scratch", "head", "Houlsby", "full fine-tuning"
)
IDS_AND_CONTENT = _launchers("popularity", "item kNN", "id tower", "head", "Houlsby", "full fine-tuning")
SCALED = _launchers("Houlsby", "full fine-tuning")
PLACEMENTS: dict[str, dict[str, Any]] = {
    "both encoders, both sublayers, all layers": {},
    "item encoder only": {"encoders": "item"},
    "user encoder only": {"encoders": "user"},
    "attention only": {"sublayers": "attention"},
    "feed-forward only": {"sublayers": "feed_forward"},
    "first layers (item encoder)": {"item_layers": "first:2"},
    "last layers (item encoder)": {"item_layers": "last:2"},
    "parallel": {"method": "houlsby_parallel"},
    "bottleneck 16": {"item_bottleneck": 16},
    "bottleneck 32": {"item_bottleneck": 32},
    "bottleneck 128": {"item_bottleneck": 128},
    "layer norms trained": {"train_layer_norms": True},
}
"""Changes to the Houlsby launcher, by row name."""

LOSSES: dict[str, dict[str, Any]] = {
    "BCE": {"loss": "bce"},
    "BCE, 4 negatives": {"loss": "bce", "negatives": 4},
    "gBCE, 64 negatives": {"loss": "gbce", "negatives": 64},
    "in-batch softmax": {"loss": "in_batch"},
    "in-batch softmax, corrected logQ": {"loss": "in_batch", "logq": "corrected"},
    "mixed, 512 negatives": {"loss": "mixed", "negatives": 512},
    "sampled softmax, 512 negatives": {"loss": "sampled_softmax", "negatives": 512},
    "full softmax": {"loss": "full"},
}
"""Changes to a launcher, by row name."""

USER_ENCODERS: dict[str, dict[str, Any]] = {
    name: {"user_encoder": name} for name in ("transformer", "ligr", "gru4rec", "hstu", "mean")
}
"""Changes to a source launcher and to the head launcher, by row name."""

_WORD = {"Text": "text", "CV": "images"}
_SOURCE = {"Text": "Pretraining/Text/script/sm_base_sasrec", "CV": "Pretraining/CV/script/sm_vit_sasrec"}


def page(script: str, **changes: Any) -> dict[str, Any]:
    """The hyperparameters of a launcher, without paths of source models.

    Args:
        script: path relative to the repository, such as ``Downstream/Text/script/adapter_houlsby``.
        changes: settings to override.

    Raises:
        UserError: there is no such launcher.
    """
    values = _hyperparameters(script)
    if values.get("method") in WITHOUT_CONTENT:  # they use no backbone
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


def _study(tree: str, name: str, title: str, about: str, table: Sequence[StudyRow], **further: Any) -> Study:
    sources = further.pop("sources", None) or {"SASRec": source(_SOURCE[tree])}
    return Study(name, tree, f"{title}, {_WORD[tree]}", about.strip(), table, sources, **further)


def _changed(
    tree: str, script: str, changes: Mapping[str, Mapping[str, Any]], section: str = ""
) -> list[StudyRow]:
    """One row per change of a launcher."""
    each = (rows(tree, {name: script}, "SASRec", section=section, **one) for name, one in changes.items())
    return [row for one in each for row in one]


def adapters(
    tree: str, about: str, scripts: Mapping[str, str], seeds: Sequence[int], peft: Sequence[str] = ()
) -> Study:
    """Compare adapter families: one row per launcher, all starting from the same source model.

    Args:
        tree: ``Text`` or ``CV``.
        about: description of the study.
        scripts: launchers by row name.
        seeds: seeds of each row.
        peft: methods of PEFT; each is a row, which says so if the method is untested here.
    """
    methods = {f"PEFT, {PeftConfig(peft=name).label}": {"peft": name} for name in peft}
    table = rows(tree, scripts, "SASRec") + _changed(tree, "adapter_peft", methods)
    return _study(tree, "study_adapters", "All adapters", about, table, seeds=seeds)


def user_encoders(
    tree: str, about: str, changes: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], loss: str = "mixed"
) -> Study:
    """Compare user encoders: one row and one source model per change, with the head on cached states.

    Args:
        tree: ``Text`` or ``CV``.
        about: description of the study.
        changes: user encoders, and what else changes the source model and the row, by row name.
        seeds: seeds of each row.
        loss: loss of the rows and of the source models.
    """
    table: list[StudyRow] = []
    models = {name: source(_SOURCE[tree], **{"loss": loss} | dict(one)) for name, one in changes.items()}
    for name, one in changes.items():
        table += rows(tree, {name: "head"}, name, **{"loss": loss} | dict(one))
    return _study(
        *(tree, "study_user_encoder", "User encoders", about, table),
        sources=models,
        seeds=seeds,
        reference="transformer",
    )


def adaptation(
    tree: str,
    about: str,
    scripts: Mapping[str, str],
    sources: Mapping[tuple[str, str], tuple[str, str]],
    seeds: Sequence[int],
) -> Study:
    """Compare adapters with full fine-tuning: one section per training objective and backbone.

    Args:
        tree: ``Text`` or ``CV``.
        about: description of the study.
        scripts: launchers by row name.
        sources: source launcher and folder of the backbone, by objective and name of the backbone.
        seeds: seeds of each row.
    """
    table, models = [], {}
    for (objective, backbone), (script, folder) in sources.items():
        name = f"{objective}, {backbone}"
        models[name] = source(f"Pretraining/{tree}/script/{script}", backbone=folder)
        table += rows(tree, scripts, name, section=name, objective=objective.lower(), backbone=folder)
    title = "Adapters against full fine-tuning"
    return _study(tree, "study_adaptation", title, about, table, sources=models, seeds=seeds)


def placement(tree: str, about: str, changes: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> Study:
    """Compare placements: the Houlsby launcher with one change per row, and full fine-tuning.

    Args:
        tree: ``Text`` or ``CV``.
        about: description of the study.
        changes: changed settings by row name.
        seeds: seeds of each row.
    """
    table = _changed(tree, "adapter_houlsby", changes) + rows(tree, _launchers("full fine-tuning"), "SASRec")
    return _study(tree, "study_placement", "Placement of adapters", about, table, seeds=seeds)


def ids(tree: str, about: str, scripts: Mapping[str, str], seeds: Sequence[int]) -> Study:
    """Compare the id tower with content-based models, with metrics by user and item group.

    Args:
        tree: ``Text`` or ``CV``.
        about: description of the study.
        scripts: launchers by row name.
        seeds: seeds of each row.
    """
    table = rows(tree, scripts, "SASRec")
    return _study(tree, "study_id", "Ids or content", about, table, seeds=seeds, groups=True)


def losses(
    tree: str,
    about: str,
    scripts: Mapping[str, str],
    changes: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
) -> Study:
    """Compare losses: one section per launcher, one row per loss.

    Args:
        tree: ``Text`` or ``CV``.
        about: description of the study.
        scripts: launchers by name of the section.
        changes: losses and their options, by row name.
        seeds: seeds of each row.
    """
    table = [row for section, script in scripts.items() for row in _changed(tree, script, changes, section)]
    return _study(tree, "study_loss", "Losses", about, table, seeds=seeds, reference="BCE")


def target_scale(
    tree: str, about: str, scripts: Mapping[str, str], shares: Sequence[float], seeds: Sequence[int]
) -> Study:
    """Vary the share of target users to train on.

    Args:
        tree: ``Text`` or ``CV``.
        about: description of the study.
        scripts: launchers by row name.
        shares: shares of users, between 0 and 1.
        seeds: seeds of each row.
    """
    table = [
        replace(row, scale=100 * share)
        for share in shares
        for row in rows(tree, scripts, "SASRec", user_share=share)
    ]
    title, label = "Fractions of the target domain", "target users trained on (%)"
    return _study(tree, "study_target_scale", title, about, table, seeds=seeds, scale_label=label)


def source_scale(
    tree: str, about: str, scripts: Mapping[str, str], shares: Sequence[float], seeds: Sequence[int]
) -> Study:
    """Vary the share of source users that the source model is trained on.

    Args:
        tree: ``Text`` or ``CV``.
        about: description of the study.
        scripts: launchers by row name.
        shares: shares of users, between 0 and 1.
        seeds: seeds of each row.
    """
    table, models = [], {}
    for share in shares:
        name = f"{100 * share:g} % of the source"
        models[name] = source(_SOURCE[tree], **({} if share == 1 else {"user_share": share}))
        table += [replace(row, scale=100 * share) for row in rows(tree, scripts, name)]
    title, label = "Fractions of the source domain", "source users trained on (%)"
    return _study(
        tree, "study_source_scale", title, about, table, sources=models, seeds=seeds, scale_label=label
    )
