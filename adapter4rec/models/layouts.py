"""One small table: under which names each kind of encoder has the places at which adapters attach.

Nothing else about an encoder is written down here: widths and numbers of layers are read from its modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reads(Enum):
    """What an encoder reads, which decides how it is masked and where further tokens go."""

    WORDS = "words"
    PATCHES = "patches"
    ITEMS = "items"


UNREAD = ("pooler.",)
"""How names of parameters begin that no state depends on; many published folders lack them, and they are then
drawn at random."""


@dataclass(frozen=True)
class SublayerLayout:
    """Where one residual sublayer lies in a layer; paths are relative to the layer.

    Attributes:
        entry: a module whose call is handed the residual stream x.
        entry_argument: which of the call's positional arguments is x.
        output: a module that gives y = f(x), dropout applied, residual not yet added. Both sublayers of a
            layer may share it: the entry that was called last says whose turn it is.
        norm: the layer norm that belongs to the sublayer: after the sum in post-norm encoders, before f
            in pre-norm ones.
    """

    entry: str
    entry_argument: int
    output: str
    norm: str


@dataclass(frozen=True)
class ProjectionLayout:
    """Where a linear projection lies in a layer.

    Attributes:
        paths: names that the linear layer has had; the first that is there counts.
        part: which of the equal parts of its output the projection is, from 0.
        parts: into how many parts its output falls; 1 where the layer gives this projection alone.
    """

    paths: tuple[str, ...]
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class EncoderLayout:
    """Where the places of one kind of encoder lie.

    Attributes:
        layers: path of the list of layers.
        attention: the attention sublayer.
        feed_forward: the feed-forward sublayer.
        query: the query projection in a layer.
        value: the value projection in a layer.
        pre_norm: x + f(LN(x)) instead of LN(x + f(x)).
        reads: words, given as ``inputs_embeds``; patches; or items.
        tokens: the module that gives the tokens which the first layer reads, where these are patches.
    """

    layers: str
    attention: SublayerLayout
    feed_forward: SublayerLayout
    query: ProjectionLayout
    value: ProjectionLayout
    pre_norm: bool
    reads: Reads
    tokens: str | None = None


_BERT = EncoderLayout(
    layers="encoder.layer",
    attention=SublayerLayout(
        entry="attention.output",
        entry_argument=1,
        output="attention.output.dropout",
        norm="attention.output.LayerNorm",
    ),
    feed_forward=SublayerLayout(
        entry="output", entry_argument=1, output="output.dropout", norm="output.LayerNorm"
    ),
    query=ProjectionLayout(("attention.self.query",)),
    value=ProjectionLayout(("attention.self.value",)),
    pre_norm=False,
    reads=Reads.WORDS,
)
_MODERNBERT = EncoderLayout(
    layers="layers",
    attention=SublayerLayout(entry="attn_norm", entry_argument=0, output="attn.out_drop", norm="attn_norm"),
    feed_forward=SublayerLayout(entry="mlp_norm", entry_argument=0, output="mlp", norm="mlp_norm"),
    query=ProjectionLayout(("attn.Wqkv",), part=0, parts=3),
    value=ProjectionLayout(("attn.Wqkv",), part=2, parts=3),
    pre_norm=True,
    reads=Reads.WORDS,
)
_VIT = EncoderLayout(
    layers="layers",
    attention=SublayerLayout(
        entry="layernorm_before", entry_argument=0, output="dropout", norm="layernorm_before"
    ),
    feed_forward=SublayerLayout(
        entry="layernorm_after", entry_argument=0, output="dropout", norm="layernorm_after"
    ),
    query=ProjectionLayout(("attention.q_proj",)),
    value=ProjectionLayout(("attention.v_proj",)),
    pre_norm=True,
    reads=Reads.PATCHES,
    tokens="embeddings",
)
_DINOV2 = EncoderLayout(
    layers="encoder.layer",
    attention=SublayerLayout(entry="norm1", entry_argument=0, output="drop_path", norm="norm1"),
    feed_forward=SublayerLayout(entry="norm2", entry_argument=0, output="drop_path", norm="norm2"),
    query=ProjectionLayout(("attention.q_proj", "attention.attention.query")),
    value=ProjectionLayout(("attention.v_proj", "attention.attention.value")),
    pre_norm=True,
    reads=Reads.PATCHES,
    tokens="embeddings",
)
_CLIP_VISION = EncoderLayout(
    layers="encoder.layers",
    attention=SublayerLayout(
        entry="layer_norm1", entry_argument=0, output="self_attn.out_proj", norm="layer_norm1"
    ),
    feed_forward=SublayerLayout(entry="layer_norm2", entry_argument=0, output="mlp", norm="layer_norm2"),
    query=ProjectionLayout(("self_attn.q_proj",)),
    value=ProjectionLayout(("self_attn.v_proj",)),
    pre_norm=True,
    reads=Reads.PATCHES,
    tokens="pre_layrnorm",
)
LAYOUTS: dict[str, EncoderLayout] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "modernbert": _MODERNBERT,
    "vit": _VIT,
    "vit_mae": _VIT,
    "dinov2": _DINOV2,
    "clip_vision_model": _CLIP_VISION,
}
"""Layouts of pretrained backbones, by the ``model_type`` of their Hugging Face configuration."""
