"""The settings of all stages and modalities, each option declared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.data.interactions import ATTRIBUTES
from adapter4rec.models.losses import Objective
from adapter4rec.models.parts import ADAPTER_PARTS, PARTS
from adapter4rec.utils.precision import PRECISIONS
from adapter4rec.utils.settings import FolderName, Option, Settings, Values, option, options_of

T = TypeVar("T", bound="TargetSettings")


@dataclass(frozen=True)
class RunSettings(Settings):
    """What every run needs, whatever its stage and modality."""

    users: Path = option(
        help="users.tsv: a user name, a tab, item names separated by spaces, oldest first", runtime=True
    )
    items: Path = option(
        help="items.tsv: an item name and, where items are texts, after tabs its texts", runtime=True
    )

    objective: Objective = option(Objective.SASREC, "what is trained to be predicted: sasrec or cpc")
    embedding_dim: int = option(64, "d, width of item embeddings and user encoder", least=1)
    user_heads: int = option(2, "attention heads of the user encoder", least=1)
    user_blocks: int = option(2, "transformer blocks of the user encoder", least=1)
    dropout: float = option(0.1, "dropout of the user encoder", least=0, most=0.99)
    min_seq_len: int = option(5, "users with fewer clicks are dropped", least=4)
    max_seq_len: int = option(20, "L, places of the user encoder", least=1)

    user_share: float = option(
        1.0,
        "share of the users that are trained on, drawn by the seed; validation and test rank for all users",
        above=0,
        most=1,
    )
    epochs: int = option(
        60, "passes over all users; may be raised when a run is resumed", least=0, runtime=True
    )
    batch_size: int = option(64, "users in a step, all processes together", least=1)
    accumulation_steps: int = option(1, "parts in which a process computes its share of a step", least=1)
    lr_backbone: float = option(5e-5, "learning rate of the pretrained backbone", above=0, most=10)
    lr_item_head: float = option(
        1e-4, "learning rate of the item head (DTL, or the id table)", above=0, most=10
    )
    lr_user_encoder: float = option(1e-4, "learning rate of the user encoder", above=0, most=10)
    precision: str = option("auto", "number format of training", choices=PRECISIONS)
    evaluation_precision: str = option(
        "fp32",
        "number format in which items are encoded for validation and test; bf16 is faster where the device "
        "has it",
        choices=PRECISIONS,
    )
    seed: int = option(123456, "of initial weights, shuffles, negatives and dropout", least=0, most=2**63 - 1)

    k: tuple[int, ...] = option(
        (10,), "lengths of lists: HR@k, NDCG@k and coverage@k are told for these", least=1, runtime=True
    )
    tensorboard: bool = option(False, "write the scalars of metrics.jsonl for TensorBoard, too", runtime=True)
    mode: str = option(
        "train", "train, or test a finished run again", choices=("train", "test"), runtime=True
    )
    resume: bool = option(
        False, "go on with a run that was stopped; a finished one is reported", runtime=True
    )
    run_folder: Path | None = option(
        None, "where the run lies; by default runs/ and a name that tells", runtime=True
    )
    ledger: Path | None = option(
        None,
        "where a line is left about the run; by default ledger.jsonl beside the run's folder",
        runtime=True,
    )
    device: str = option("auto", "auto, cpu, cuda, or cuda:N", runtime=True)
    threads: int = option(0, "CPU threads of a process; 0 leaves the choice to torch", least=0, runtime=True)
    workers: int | None = option(
        None, "processes that prepare batches; by default 2 with a GPU, else 0", least=0, runtime=True
    )
    prefetch: int = option(4, "batches that each of these keeps ready", least=1, runtime=True)
    pin_memory: bool | None = option(
        None, "batches lie in page-locked memory; by default with a GPU", runtime=True
    )
    recompute: bool = option(
        False,
        "compute the backbone's activations again for the backward pass: one more forward pass, and the "
        "memory of one pack of texts or group of images",
        runtime=True,
    )
    shard: bool = option(
        False,
        "divide the backbone's weights over the processes, where all of it is trained and no GPU holds it",
        runtime=True,
    )
    compile: bool = option(
        False, "compile the backbone's layers: minutes at the start, for long runs", runtime=True
    )
    save_minutes: float = option(
        10.0, "the run is saved so often, and after each epoch", above=0, runtime=True
    )
    cache_folder: Path = option(Path("cache"), "where token and state caches lie", runtime=True)

    embedding_memory: float = option(
        4.0, "GiB; embeddings of a catalogue that are larger are kept in a file", above=0, runtime=True
    )

    def workers_on(self, device: torch.device) -> int:
        """How many processes prepare data."""
        return (2 if device.type == "cuda" else 0) if self.workers is None else self.workers

    def pins_memory_on(self, device: torch.device) -> bool:
        """Whether data lies in page-locked memory."""
        return device.type == "cuda" if self.pin_memory is None else self.pin_memory

    @property
    def ks(self) -> tuple[int, ...]:
        """Lengths of lists that metrics are computed for; with 10, by which the best epoch is chosen."""
        return tuple(sorted({10, *self.k}))

    @property
    def uses_content(self) -> bool:
        """Whether items are encoded from their content; else they are bare ids."""
        return True

    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each part of the model."""
        return {
            "backbone": self.lr_backbone,
            "item_head": self.lr_item_head,
            "user_encoder": self.lr_user_encoder,
        }


@dataclass(frozen=True)
class TextSettings(RunSettings):
    """What runs on text need besides."""

    modality: ClassVar[str] = "text"

    backbone: FolderName = option(
        FolderName("bert/bert_base_uncased"),
        "a Hugging Face folder: a name under pretrained_models/, or a path",
    )
    layers: int | None = option(None, "keep the first so many layers of the backbone", least=1)
    attributes: tuple[str, ...] = option(
        ("title",), "texts of an item: title,abstract,body", choices=ATTRIBUTES
    )
    title_tokens: int = option(30, "most tokens of a title, special tokens included", least=3, most=100_000)
    abstract_tokens: int = option(50, "most tokens of an abstract", least=3, most=100_000)
    body_tokens: int = option(50, "most tokens of a body", least=3, most=100_000)
    allow_empty_titles: bool = option(False, "let items without a title through")
    tokens_at_once: int = option(4096, "most tokens that the backbone reads at once", least=1, runtime=True)

    def most_tokens(self, attribute: str) -> int:
        """Where an attribute's text is cut."""
        return getattr(self, f"{attribute}_tokens")


@dataclass(frozen=True)
class ImageSettings(RunSettings):
    """What runs on images need besides."""

    modality: ClassVar[str] = "image"

    # Histories are half as long as with text, as in the paper.
    max_seq_len: int = option(10, "L, places of the user encoder", least=1)
    images: Path | None = option(
        None, "the items' images: an LMDB that build_lmdb_hm.py made; the id tower needs none", runtime=True
    )
    backbone: FolderName = option(
        FolderName("vit-base-patch16-224"),
        "a Hugging Face folder: a name under pretrained_models/, or a path",
    )
    layers: int | None = option(None, "keep the first so many layers of the backbone", least=1)
    image_size: int | None = option(
        None,
        "height and width of the images; by default the backbone's, and only DINOv2 takes others",
        least=1,
    )
    release_masking: bool = option(
        False, "ViTMAE drops 75 % of the patches at random, in evaluation too, as the released code does"
    )
    images_at_once: int | None = option(
        None,
        "most images that the backbone reads at once; by default 8 of 224 x 224 on a CPU, 64 on a GPU",
        least=1,
        runtime=True,
    )


SOURCE_METHODS: dict[str, tuple[str, ...]] = {
    "all": PARTS,
    "head": ("item_head", "user_encoder"),
    "id": ("item_head", "user_encoder"),
}
"""Which parts of the model each way of training a source trains."""


@dataclass(frozen=True)
class SourceSettings(RunSettings):
    """What training on a source domain needs besides."""

    stage: ClassVar[str] = "source"

    method: str = option(
        "all",
        "what is trained: all, the head (backbone frozen), or an id tower (items without content)",
        choices=tuple(SOURCE_METHODS),
    )
    start_from: Path | None = option(
        None, "a source checkpoint to start from, instead of new weights", runtime=True
    )
    export: Path | None = option(
        None, "where the best model is put for target domains to start from", runtime=True
    )
    overwrite: bool = option(False, "let --export replace the model of another run", runtime=True)

    @property
    def uses_content(self) -> bool:
        """Whether items are encoded from their content; else they are bare ids."""
        return self.method != "id"

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """The parts of the model that are trained."""
        return SOURCE_METHODS[self.method]


METHODS: dict[str, tuple[str, ...]] = {
    "finetune": ("backbone", "item_head", "user_encoder"),
    "head": ("item_head", "user_encoder"),
    "frozen": (),
    "scratch": ("backbone", "item_head", "user_encoder"),
    "id": ("item_head", "user_encoder"),
    "popularity": (),
}
"""Which parts each way of adapting trains; adapter families train the adapter."""

_WITHOUT_CONTENT = ("id", "popularity")
WITHOUT_SOURCE = ("scratch", *_WITHOUT_CONTENT)


@dataclass(frozen=True)
class TargetSettings(RunSettings):
    """What adapting to a target domain needs besides. ``adapter`` is the config of the method's family."""

    stage: ClassVar[str] = "target"

    method: str = option("finetune", "how the source model is adapted", choices=(*METHODS, *FAMILIES))
    source_checkpoint: Path | None = option(
        None, "the source model: a checkpoint that source training exported, or a released .pt", runtime=True
    )
    cache_frozen: bool = option(
        False,
        "compute what lies before the first trained layer once for the catalogue, without dropout, and train "
        "from there",
    )
    cache_format: str = option(
        "fp16",
        "number format of the cached outputs of layers: fp16, bf16 or fp32",
        choices=("fp16", "bf16", "fp32"),
    )
    lr_adapter: float = option(1.5e-4, "learning rate of the adapters", above=0, most=10)
    lr_item_layer_norms: float = option(
        5e-5, "learning rate of the item encoder's layer norms, where adapters train them", above=0, most=10
    )
    lr_user_layer_norms: float = option(1e-4, "the same for the user encoder's", above=0, most=10)
    adapter: AdapterConfig | None = None

    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each part of the model."""
        return (
            super().learning_rates()
            | {
                "adapter": self.lr_adapter,
                "shared": self.lr_adapter,
                "adapted_head": self.lr_item_head,
                "item_layer_norms": self.lr_item_layer_norms,
                "user_layer_norms": self.lr_user_layer_norms,
            }
            | (self.adapter.learning_rates() if self.adapter else {})
        )

    @property
    def uses_content(self) -> bool:
        """Whether items are encoded from their content; else they are bare ids."""
        return self.method not in _WITHOUT_CONTENT

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """The parts of the model that the method trains."""
        if self.adapter is None:
            return METHODS[self.method]
        return tuple(dict.fromkeys((*ADAPTER_PARTS, *self.adapter.learning_rates())))

    @property
    def needs_source(self) -> bool:
        """Whether the method starts from a source model."""
        return self.method not in WITHOUT_SOURCE

    def plain(self, *, runtime: bool = True) -> Values:
        """As in :meth:`Settings.plain`, the adapter's options among the others."""
        return super().plain(runtime=runtime) | (self.adapter.plain() if self.adapter else {})

    @classmethod
    def options(cls, values: Mapping[str, Any]) -> dict[str, Option]:
        """The stage's options and those of the method's adapter family."""
        own = super().options(values)
        if "method" not in values:
            return own
        family = FAMILIES.get(own["method"].value_of(values["method"]))
        return own | (options_of(family) if family else {})

    @classmethod
    def _build(cls: type[T], values: Values) -> T:
        family = FAMILIES.get(values.get("method", ""))
        if family is None:
            return cls(**values)
        names = options_of(family)
        own = {name: value for name, value in values.items() if name in names}
        rest = {name: value for name, value in values.items() if name not in names}
        return cls(**rest, adapter=family(**own))


@dataclass(frozen=True)
class TextSourceSettings(TextSettings, SourceSettings):
    """Train a TransRec model on a source domain with text."""


@dataclass(frozen=True)
class ImageSourceSettings(ImageSettings, SourceSettings):
    """Train a TransRec model on a source domain with images."""


@dataclass(frozen=True)
class TextTargetSettings(TextSettings, TargetSettings):
    """Adapt a source model to a target domain with text."""


@dataclass(frozen=True)
class ImageTargetSettings(ImageSettings, TargetSettings):
    """Adapt a source model to a target domain with images."""
