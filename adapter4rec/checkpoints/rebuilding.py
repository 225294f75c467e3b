"""Rebuilding a model and its domain from the settings recorded in a run folder or checkpoint.

The recorded settings are complete, so the training scripts are not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.checkpoints.settings import SourceSettings, StageSettings, TargetSettings
from adapter4rec.checkpoints.source_models import load_source_weights, read_source_model, require_source
from adapter4rec.data.domain import (
    Domain,
    TextDomainSettings,
    read_image_domain,
    read_text_domain,
    read_vector_domain,
)
from adapter4rec.data.settings import LoaderSettings
from adapter4rec.models.backbone_folders import backbone_folder
from adapter4rec.models.backbones import load_tokenizer
from adapter4rec.models.image_encoder import build_image_encoder, expected_image_size
from adapter4rec.models.parameters import train_only
from adapter4rec.models.settings import ImageModelSettings, TextModelSettings
from adapter4rec.models.text_encoder import build_text_encoder
from adapter4rec.models.transrec import TransRec, new_transrec
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import CACHES
from adapter4rec.utils.portable_paths import found_paths
from adapter4rec.utils.process_group import Process


@dataclass(frozen=True, kw_only=True)
class RebuiltText(TextModelSettings, TextDomainSettings, LoaderSettings, StageSettings):
    """Settings that define a model of text items and its domain."""

    modality: ClassVar[str] = "text"
    build_encoder = build_text_encoder

    def read_domain(self, process: Process) -> Domain:
        """Read the domain."""
        if self.item_vectors is not None:
            return read_vector_domain(self, self.item_vectors)
        tokenizer = load_tokenizer(backbone_folder(self.backbone)) if self.uses_content else None
        return read_text_domain(self, tokenizer, process)


@dataclass(frozen=True, kw_only=True)
class RebuiltImages(ImageModelSettings, LoaderSettings, StageSettings):
    """Settings that define a model of image items and its domain."""

    modality: ClassVar[str] = "image"
    build_encoder = build_image_encoder

    def read_domain(self, process: Process) -> Domain:
        """Read the domain."""
        del process
        if self.item_vectors is not None:
            return read_vector_domain(self, self.item_vectors)
        return read_image_domain(self, expected_image_size(self) if self.uses_content else None)


RebuiltSettings: TypeAlias = RebuiltText | RebuiltImages
KINDS: dict[str, type[RebuiltSettings]] = {
    f"{items.modality} {stage.stage}": dataclass(frozen=True, kw_only=True)(
        type("RecordedSettings", (stage, items), {})
    )
    for items in (RebuiltText, RebuiltImages)
    for stage in (SourceSettings, TargetSettings)
}
"""Settings by kind of run: modality and stage, as ``text source``."""


def rebuilt_settings(
    file: Path, kind: str, recorded: Mapping[str, Any], changed: Mapping[str, Any], folder: str | None = None
) -> RebuiltSettings:
    """Settings from a description; recorded settings that do not affect the model are ignored.

    Caches are not where the run had them, but in the folder in ``changed``, or in the default one.

    Args:
        file: the description, or the checkpoint that has it.
        kind: one of ``KINDS``.
        recorded: the settings in it.
        changed: values that override the recorded ones, None for unchanged ones; unknown names are an error.
        folder: the folder of the run when it wrote the description.

    Raises:
        UserError: the kind or a setting in ``changed`` is unknown, or a value is invalid.
    """
    if kind not in KINDS:
        raise UserError(f"{file}: does not describe a model of this project, but {kind!r}")
    changed = {name: value for name, value in changed.items() if value is not None}
    values = {**recorded, "cache_folder": str(CACHES / "cache"), **changed}
    try:
        known = KINDS[kind].options({"method": values["method"]} if "method" in values else {})
        folders = file.parent, Path(folder or file.parent)
        values |= found_paths(
            {name: values[name] for name in known if name not in changed and name in values}, known, folders
        )
        return KINDS[kind].from_values(
            {name: value for name, value in values.items() if name in known or name in changed}
        )
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def rebuilt_model(settings: RebuiltSettings, n_items: int, *, adapters: bool = True) -> TransRec:
    """The initial model of a run.

    Args:
        settings: settings of the run.
        n_items: N, used by the id tower and by losses.
        adapters: whether to add the adapters of a target model.

    Raises:
        UserError: the backbone or the source model is missing, invalid or incompatible.
    """
    model = new_transrec(settings, settings.encoder_builder(type(settings).build_encoder), n_items)
    if isinstance(settings, SourceSettings) and settings.start_from is not None:
        load_source_weights(model, read_source_model(settings.start_from))
    if isinstance(settings, TargetSettings) and settings.needs_source:
        source = require_source(settings.source_checkpoint, settings.method)
        load_source_weights(model, read_source_model(source), settings.plain())
    if isinstance(settings, TargetSettings) and settings.adapter is not None and adapters:
        add_adapters(model, settings.adapter, seed=settings.seed)
    train_only(model, settings.trained_parts)
    return model
