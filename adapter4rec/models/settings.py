"""Settings of the model: its backbone, its user encoder, its training objective and its loss."""

from __future__ import annotations

from dataclasses import dataclass

from adapter4rec.data.settings import DomainSettings, ImageDomainSettings, TextSettings
from adapter4rec.models.losses.settings import LossSettings
from adapter4rec.models.registry import OBJECTIVES, USER_ENCODERS
from adapter4rec.utils.settings import FolderName, Settings, option


@dataclass(frozen=True, kw_only=True)
class ModelSettings(LossSettings):
    """Model."""

    objective: str = option("sasrec", "training objective", choices=OBJECTIVES)
    user_encoder: str = option("transformer", "user encoder", choices=USER_ENCODERS)
    embedding_dim: int = option(
        64, "d, width of the item embeddings and the user encoder", least=1, most=1 << 20
    )
    user_heads: int = option(2, "attention heads of the user encoder (transformer, ligr, hstu)", least=1)
    user_blocks: int = option(2, "blocks of the user encoder; layers of gru4rec", least=1, most=1_000)
    dropout: float = option(0.1, "dropout of the user encoder", least=0, most=0.99)
    seed: int = option(
        123456, "random seed of initial weights, shuffling, negatives and dropout", least=0, most=2**63 - 1
    )


@dataclass(frozen=True, kw_only=True)
class BackboneSettings(Settings):
    """Backbone."""

    backbone: FolderName = option(
        FolderName("bert/bert_base_uncased"),
        "Hugging Face folder: a name in pretrained_models/, or a path",
        runtime=True,
    )
    layers: int | None = option(None, "number of layers to keep, from the first; default: all", least=1)
    recompute: bool = option(
        False,
        "recompute the backbone's activations in the backward pass: less memory, one more forward pass",
        runtime=True,
    )
    compile: bool = option(False, "compile the backbone's layers; takes minutes at the start", runtime=True)


POOLINGS = ("cls", "mean")
POOLING_FILE = "1_Pooling/config.json"
"""What records the pooling in a folder of sentence-transformers."""


@dataclass(frozen=True, kw_only=True)
class TextBackboneSettings(BackboneSettings):
    """Text backbone."""

    pooling: str | None = option(
        None,
        "vector of a text: the hidden state of [CLS], or the mean over all tokens; default: what "
        f"{POOLING_FILE} of a sentence-transformers folder records, else cls",
        choices=POOLINGS,
    )


@dataclass(frozen=True, kw_only=True)
class ImageBackboneSettings(BackboneSettings):
    """Image backbone."""

    backbone: FolderName = option(
        FolderName("vit-base-patch16-224"),
        "Hugging Face folder: a name in pretrained_models/, or a path",
        runtime=True,
    )
    normalisation: str = option(
        "backbone",
        "mean and deviation of pixels: those of the backbone's preprocessor_config.json "
        "where it has one, or the paper's (0.5)",
        choices=("backbone", "paper"),
    )
    release_masking: bool = option(
        False, "let ViTMAE drop 75 % of the patches at random, in evaluation too, as the released code does"
    )


@dataclass(frozen=True, kw_only=True)
class TextModelSettings(TextSettings, DomainSettings, TextBackboneSettings, ModelSettings):
    """All settings from which a text model is built."""


@dataclass(frozen=True, kw_only=True)
class ImageModelSettings(ImageDomainSettings, ImageBackboneSettings, ModelSettings):
    """All settings from which an image model is built."""
