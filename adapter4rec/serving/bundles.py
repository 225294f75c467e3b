"""Bundles: a trained model as one self-contained folder, which loads anywhere.

::

    manifest.json              kind, settings, results, SHA-256 of each file
    README.md                  model card
    backbone/                  Hugging Face folder: the backbone of the base model, and its tokenizer
    base.safetensors           the other weights of the base model: item head, user encoder
    adapter.safetensors        what was trained on the target; only of a run with adapters
    adapter_peft/              the same, as PEFT loads it; only with a method of PEFT
    items.tsv                  name and texts of each item of the catalogue
    item_vectors.safetensors   ``items``: the embeddings of these items, float32 ``[N, d]``

The base model is the source model of a run with adapters, and the trained model of any other run. Bundles of
several domains with the same source model have the same base.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapter4rec.adapters.attaching import detach_adapters
from adapter4rec.adapters.base import adapters_of
from adapter4rec.adapters.files import OtherModelError, load_adapter, save_adapter
from adapter4rec.checkpoints.merging import save_encoder
from adapter4rec.checkpoints.rebuilding import RebuiltSettings, rebuilt_settings
from adapter4rec.checkpoints.settings import TargetSettings
from adapter4rec.data.domain import Domain
from adapter4rec.data.images.decoding import Resizing
from adapter4rec.data.images.store import ImageStore
from adapter4rec.data.interactions import Interactions, read_items
from adapter4rec.data.settings import ATTRIBUTES, TextSettings
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec, new_transrec, require_sizes
from adapter4rec.models.weights import load_into, read_tensors
from adapter4rec.serving.bundled_content import BundledImages, BundledTexts
from adapter4rec.serving.candidates import Candidates, catalogue_of
from adapter4rec.serving.model_card import Training, model_card, training_of
from adapter4rec.serving.recommender import Recommender
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.checkpoint_file import save_tensors
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_folder, file_hash, write_json
from adapter4rec.utils.process_group import Process
from adapter4rec.utils.records import Count, Object, checked_in, read_record
from adapter4rec.utils.versions import versions

MANIFEST, ADAPTER = "manifest.json", "adapter.safetensors"
_WHAT = "adapter4rec bundle 1"
_BACKBONE, _BASE = "backbone", "base.safetensors"
_ITEMS, _VECTORS = "items.tsv", "item_vectors.safetensors"
_OF_BACKBONE = "item_encoder.backbone."


@dataclass(frozen=True)
class Manifest:
    """Content of ``manifest.json``.

    Attributes:
        what: kind and version of the format.
        kind: modality and stage, as ``text target``.
        settings: settings of the run that determine the model.
        items: number of items.
        files: SHA-256 of each file, by its path in the folder.
        training: what the model was trained on, with what result.
        resizing: how images become pixels; empty for texts.
        versions: of the libraries that wrote the bundle.
    """

    what: str
    kind: str
    settings: Object
    items: Count
    files: dict[str, str]
    training: Training
    resizing: Object = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle."""
    return (folder / MANIFEST).is_file()


def write_bundle(recommender: Recommender, folder: Path, *, with_base: bool = True) -> Manifest:
    """Write the bundle of a trained model.

    Args:
        recommender: the model of a run.
        folder: the folder to write, which must not exist.
        with_base: whether the bundle has the base model. One without is small, and is loaded with the base
            model of another bundle.

    Raises:
        UserError: the folder exists, or the model is a bundle itself, has new items or item vectors from
            elsewhere, or has no adapters and ``with_base`` is false.
    """
    run, settings = recommender.run, recommender.run.settings
    if is_bundle(run.folder) or recommender.candidates.n_new or settings.item_vectors is not None:
        raise UserError(
            f"{run.folder}: cannot be bundled: expected a run on texts, images or ids, without new items"
        )
    if not with_base and adapters_of(run.model) is None:
        raise UserError(
            f"{run.folder}: trained without adapters; a bundle without its base would have no model"
        )
    if folder.exists():
        raise UserError(f"{folder}: already exists")
    vectors = recommender.items.rows[1:]
    store = run.domain.store
    resizing = asdict(store.resizing) if isinstance(store, ImageStore) else {}
    training = training_of(run)
    with atomic_folder(folder) as aside:
        _write_model(run.model, aside, training, with_base=with_base)
        write_items(run, recommender.candidates, aside / _ITEMS)
        save_tensors(aside / _VECTORS, {"items": vectors}, {"what": "item vectors"})
        of_model = _settings_of(settings, run.model)
        manifest = Manifest(
            what=_WHAT,
            kind=f"{settings.modality} {settings.stage}",
            settings=of_model,
            items=len(vectors),
            files={},
            training=training,
            resizing=resizing,
            versions=versions(),
        )
        card = model_card(folder.name, manifest.kind, of_model, len(vectors), training)
        (aside / "README.md").write_text(card, encoding="utf-8")
        for path in sorted(path for path in aside.rglob("*") if path.is_file()):
            manifest.files[path.relative_to(aside).as_posix()] = file_hash(path)
        write_json(aside / MANIFEST, asdict(manifest))
    return manifest


def _settings_of(settings: RebuiltSettings, model: TransRec) -> dict[str, Any]:
    """The settings without paths; what the backbone's folder records is made explicit."""
    plain = settings.plain(runtime=False)
    plain.pop("backbone", None)
    if isinstance(model.item_encoder, TextItemEncoder):
        plain["pooling"] = model.item_encoder.pooling
    return plain | {"encoding": "utf-8"}


def _write_model(model: TransRec, folder: Path, training: Training, *, with_base: bool) -> None:
    """Write adapters and base model; the model is left as it was."""
    adapted = adapters_of(model) is not None
    if adapted:
        save_adapter(model, folder / ADAPTER, {"trained_on": training.domain})
        detach_adapters(model)
    try:
        if with_base and isinstance(model.item_encoder, ContentItemEncoder):
            save_encoder(model, folder / _BACKBONE)
            (folder / _BACKBONE / "item_head.safetensors").unlink()  # it is in the base
        if with_base:
            save_tensors(folder / _BASE, _beside_backbone(model), {"what": "base model without backbone"})
    finally:
        if adapted:
            load_adapter(model, folder / ADAPTER)


def _beside_backbone(model: TransRec) -> dict[str, Tensor]:
    return {name: one for name, one in model.state_dict().items() if not name.startswith(_OF_BACKBONE)}


def write_items(run: TrainedRun, candidates: Candidates, path: Path) -> None:
    """Write name and texts of the catalogue, in the format of ``items.tsv``."""
    settings, rows = run.settings, run.domain.interactions.item_rows
    columns: dict[str, list[str]] = {"title": candidates.titles} if any(candidates.titles) else {}
    if isinstance(settings, TextSettings) and settings.uses_content:
        table = read_items(
            settings.items, settings.attributes, allow_empty_titles=True, encoding=settings.encoding
        )
        columns |= {name: [column[row] for row in rows] for name, column in table.texts.items()}
    last = max((ATTRIBUTES.index(name) + 1 for name in columns), default=0)
    blank = [""] * len(candidates.names)
    texts = [columns.get(name, blank) for name in ATTRIBUTES[:last]]
    lines = ("\t".join(line) for line in zip(candidates.names, *texts, strict=True))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle, and verify all its files.

    Raises:
        UserError: not a bundle, or a file is missing or has changed.
    """
    if not is_bundle(folder):
        raise UserError(f"{folder}: not a bundle ({MANIFEST} not found)")
    manifest = read_record(folder / MANIFEST, Manifest)
    if manifest.what != _WHAT:
        raise UserError(f"{folder / MANIFEST}: describes {manifest.what!r}, expected {_WHAT!r}")
    if missing := {_ITEMS, _VECTORS} - manifest.files.keys():
        raise UserError(f"{folder / MANIFEST}: does not list {', '.join(sorted(missing))}")
    for name, digest in manifest.files.items():
        path = folder / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"{folder / MANIFEST}: names a file outside of the bundle: {name!r}")
        if not path.is_file():
            raise UserError(f"{path}: missing; copy or download the bundle again")
        if file_hash(path) != digest:
            raise UserError(f"{path}: SHA-256 does not match {MANIFEST}; copy or download the bundle again")
    return manifest


def read_bundle(
    folder: Path, process: Process, precision: str = "fp32", *, base: Path | None = None
) -> Recommender:
    """Load a bundle.

    Args:
        folder: the bundle.
        process: this process.
        precision: number format in which items are encoded.
        base: a bundle with the base model, if this one has none.

    Raises:
        UserError: not a bundle, a file is missing or has changed, or ``base`` is another base model, or not
            needed.
    """
    manifest = read_manifest(folder)
    if _BASE in manifest.files and base is not None:
        raise UserError(f"{folder}: has its own base model; leave out {base}")
    if _BASE not in manifest.files and base is None:
        raise UserError(
            f"{folder}: has no base model; name a bundle that has it: from_pretrained(…, base=…) in Python, "
            "--base at the command line"
        )
    model = read_base(folder if base is None else base, manifest)
    return recommender_of(folder, manifest, base or folder, model, process, precision)


def same_base(one: Manifest, other: Manifest) -> bool:
    """Whether two bundles without adapters have the same weights."""

    def weights(manifest: Manifest) -> dict[str, str]:
        of_base = (_BASE, f"{_BACKBONE}/")
        return {name: digest for name, digest in manifest.files.items() if name.startswith(of_base)}

    return weights(one) == weights(other)


def read_base(folder: Path, manifest: Manifest) -> TransRec:
    """The base model in a bundle, on the CPU.

    Args:
        folder: the bundle that has the base model.
        manifest: of the bundle whose settings determine the model.

    Raises:
        UserError: the bundle has no base model, or one that does not fit the settings.
    """
    if _BASE not in read_manifest(folder).files:
        raise UserError(f"{folder}: has no base model; name a bundle that has it")
    settings = _rebuilt(folder, manifest, folder)
    builder = settings.encoder_builder(type(settings).build_encoder)
    tensors = read_tensors(folder / _BASE)
    tensors = {name: one for name, one in tensors.items() if not name.startswith("loss.")}
    require_sizes(settings, tensors, folder / _BASE, None if builder else manifest.items)
    model = new_transrec(settings, builder, manifest.items)
    own = {name: one for name, one in _beside_backbone(model).items() if not name.startswith("loss.")}
    load_into(model, tensors, folder / _BASE, own)
    return model.eval()


def _rebuilt(folder: Path, manifest: Manifest, base: Path) -> RebuiltSettings:
    """The settings of a bundle, with the backbone in the bundle ``base``."""
    files: dict[str, Any] = {"users": folder / _ITEMS, "items": folder / _ITEMS}
    if (base / _BACKBONE).is_dir():
        files["backbone"] = str((base / _BACKBONE).absolute())
    return rebuilt_settings(folder / MANIFEST, manifest.kind, manifest.settings, files)


def recommender_of(
    folder: Path, manifest: Manifest, base: Path, model: TransRec, process: Process, precision: str
) -> Recommender:
    """The recommender of a bundle.

    Args:
        folder: the bundle.
        manifest: its manifest.
        base: the bundle with the base model.
        model: the base model, to which the bundle's adapters are added.
        process: this process.
        precision: number format in which items are encoded.

    Raises:
        UserError: the adapters, the items or their vectors do not fit.
    """
    settings = _rebuilt(folder, manifest, base)
    adapted = isinstance(settings, TargetSettings) and settings.adapter is not None
    if ADAPTER in manifest.files:
        try:
            load_adapter(model, folder / ADAPTER)
        except OtherModelError as error:
            listed = "\n  ".join([f"{base}: another base model than that of {folder}:", *error.differences])
            raise UserError(listed) from None
    elif adapted:
        raise UserError(
            f"{folder / MANIFEST}: does not list {ADAPTER}, but the model is {settings.method}; "
            "copy or download the bundle again"
        )
    names = [name.decode() for name in read_items(folder / _ITEMS, allow_empty_titles=True).names]
    interactions = Interactions(
        clicks=np.zeros(0, np.int32),
        offsets=np.zeros(1, np.int64),
        user_names=[],
        item_names=names,
        item_rows=np.arange(len(names)),
        max_seq_len=settings.max_seq_len,
        dropped_users=0,
        identity=manifest.files[_ITEMS],
    )
    store = (
        BundledImages(names, checked_in(folder / MANIFEST, manifest.resizing, Resizing))
        if manifest.resizing
        else BundledTexts(settings, folder / _ITEMS)
    )
    run = TrainedRun(
        folder,
        settings,
        Domain(manifest.training.domain, interactions, store, interactions.identity),
        model.to(process.device),
    )
    catalogue = catalogue_of(run)
    vectors = read_tensors(folder / _VECTORS)
    if "items" not in vectors:
        raise UserError(f"{folder / _VECTORS}: no tensor items; copy or download the bundle again")
    catalogue.rows = vectors["items"].to(process.device)
    if catalogue.rows.shape != (len(names), model.user_encoder.width):
        raise UserError(f"{folder / _VECTORS}: {list(catalogue.rows.shape)} for {len(names):,} items")
    if catalogue.rows.dtype != torch.float32:
        raise UserError(f"{folder / _VECTORS}: {catalogue.rows.dtype}, expected float32")
    return Recommender(run, process, precision, Candidates([catalogue]))
