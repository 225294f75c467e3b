"""Settings of the source stage (training a source model) and the target stage (adapting it)."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.models.parts import ADAPTER_PARTS, PARTS
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import Option, Settings, Values, option, options_of

if TYPE_CHECKING:
    from adapter4rec.models.transrec import EncoderBuilder

T = TypeVar("T", bound="TargetSettings")

_HEAD = ("item_head", "user_encoder")
WITHOUT_MODEL = ("popularity", "item_knn")
"""Methods of the target stage without a model (``evaluation/baselines.py``)."""
_PARTLY_TRAINED: dict[str, tuple[str, ...]] = {"head": _HEAD, "id": _HEAD} | dict.fromkeys(
    ("frozen", *WITHOUT_MODEL), ()
)
"""Parameter groups of methods that do not train all of them; for adapters see ``AdapterConfig``."""

TARGET_METHODS = dict.fromkeys(("finetune", "head", "frozen", "scratch", "id", *WITHOUT_MODEL))
_ON_VECTORS = ("head", "frozen")
"""Methods that may have item vectors in place of a backbone, beside adapters in the user encoder only."""
WITHOUT_CONTENT = ("id", *WITHOUT_MODEL)
WITHOUT_SOURCE = ("scratch", *WITHOUT_CONTENT)
"""Methods of the target stage that do not need a source model."""


@dataclass(frozen=True, kw_only=True)
class StageSettings(Settings):
    """Method."""

    stage: ClassVar[str]
    method: str
    item_vectors: Path | None = option(
        None,
        "vectors of the items (.safetensors, .npy or .parquet, with item names) in place of content and "
        "backbone",
        runtime=True,
    )

    @property
    def uses_content(self) -> bool:
        """Whether items are encoded from their content by a backbone; otherwise from ids or vectors."""
        return self.method not in WITHOUT_CONTENT and self.item_vectors is None

    def encoder_builder(self, of_content: EncoderBuilder) -> EncoderBuilder | None:
        """What builds the item encoder of the model; None for the id tower.

        Args:
            of_content: builds an item encoder with a backbone.
        """
        if self.item_vectors is not None:
            from adapter4rec.models.item_encoder import build_vector_encoder

            return partial(build_vector_encoder, self.item_vectors)
        return of_content if self.uses_content else None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.item_vectors is not None and self.method not in (*_ON_VECTORS, *FAMILIES):
            raise UserError(
                f"--item_vectors: --method {self.method} needs "
                + ("no vectors" if self.method in WITHOUT_CONTENT else "a backbone to train")
                + "; use --method head"
            )

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """Names of the parameter groups that are trained."""
        return _PARTLY_TRAINED.get(self.method, PARTS)


@dataclass(frozen=True, kw_only=True)
class SourceSettings(StageSettings):
    """Source model."""

    stage: ClassVar[str] = "source"

    method: str = option(
        "all",
        "what to train: all weights, the head (frozen backbone), or an id tower (no content)",
        choices=("all", "head", "id"),
    )
    start_from: Path | None = option(
        None, "source model to start from; default: the pretrained backbone", runtime=True
    )
    export: Path | None = option(
        None, "file for the source model of the best epoch (.safetensors)", runtime=True
    )
    overwrite: bool = option(False, "let --export overwrite the model of another run", runtime=True)


@dataclass(frozen=True, kw_only=True)
class TargetSettings(StageSettings):
    """Adaptation.

    Attributes:
        adapter: config of the adapter family; None for methods without adapters.
    """

    stage: ClassVar[str] = "target"

    method: str = option(
        "finetune", "how the source model is adapted", choices=ChainMap[str, Any](FAMILIES, TARGET_METHODS)
    )
    source_checkpoint: Path | None = option(
        None,
        "source model: an exported .safetensors file, or a released .pt file; none with --method head: the "
        "pretrained backbone",
        runtime=True,
    )
    adapter: AdapterConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.item_vectors is not None and self.adapter and "item" in self.adapter.encoders:
            raise UserError(
                f"--item_vectors: there is no backbone that --method {self.method} could adapt; use "
                "--encoders user, or --method head"
            )

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """Names of the parameter groups that are trained."""
        if self.adapter is None:
            return super().trained_parts
        return tuple(dict.fromkeys((*ADAPTER_PARTS, *self.adapter.learning_rates())))

    @property
    def needs_source(self) -> bool:
        """Whether the run starts from a source model; a head can do without."""
        return self.method not in WITHOUT_SOURCE and (self.method, self.source_checkpoint) != ("head", None)

    def plain(self, *, runtime: bool = True) -> Values:
        """See :meth:`Settings.plain`; includes the options of the adapter."""
        return super().plain(runtime=runtime) | (self.adapter.plain() if self.adapter else {})

    @classmethod
    def options(cls, values: Mapping[str, Any]) -> dict[str, Option]:
        """The options of the stage and, if ``method`` is an adapter family, of its config."""
        own = super().options(values)
        if "method" not in values:
            return own
        method = own["method"].value_of(values["method"])
        of_family = options_of(FAMILIES[method]) if method in FAMILIES else {}
        if clash := [name for name in of_family if name in own]:
            raise UserError(
                f"{FAMILIES[method].__name__}: its option {clash[0]!r} has the name of an option of the run; "
                f"rename it, for example to {method}_{clash[0]}"
            )
        return own | of_family

    @classmethod
    def _build(cls: type[T], values: Values) -> T:
        family = FAMILIES.get(values.get("method", ""))
        if family is None:
            return cls(**values)
        own = {name: values[name] for name in options_of(family) if name in values}
        rest = {name: value for name, value in values.items() if name not in own}
        return cls(**rest, adapter=family(**own))
