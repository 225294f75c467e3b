"""Layouts of encoders: names of the submodules to which adapters attach, by model type.

Widths and numbers of layers are read from the modules themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Reads(Enum):
    """Input of an encoder, which determines its attention mask and where prompt tokens are inserted."""

    WORDS = "words"
    PATCHES = "patches"
    ITEMS = "items"


UNREAD = ("pooler.",)
"""Prefixes of parameters that do not affect the hidden states. Many published checkpoints lack them, so they
are randomly initialised."""


@dataclass(frozen=True)
class SublayerLayout:
    """A residual sublayer of a layer; paths are relative to the layer.

    Attributes:
        entry: a module that is called with the residual stream x; in post-norm encoders after f has been
            computed, as BERT's ``attention.output``.
        output: a module that returns y = f(x), after dropout, before the residual is added. If both sublayers
            share it, its output belongs to the sublayer whose entry was called last.
        norm: the layer norm of the sublayer: after the residual addition in post-norm encoders, before f in
            pre-norm encoders.
        entry_argument: index of x in the positional arguments of the call of ``entry``.
    """

    entry: str
    output: str
    norm: str
    entry_argument: int = 0


@dataclass(frozen=True)
class EncoderLayout:
    """The submodules of an encoder to which adapters attach.

    Attributes:
        layers: path of the list of layers.
        attention: the attention sublayer.
        feed_forward: the feed-forward sublayer; None for an encoder without one.
        query: the query projection of a layer: names of the linear layer in different versions of
            transformers; the first that exists is used.
        value: the value projection of a layer, in the same form.
        key: the key projection of a layer, in the same form; for pretrained backbones.
        down: the second linear layer of feed-forward, in the same form; for pretrained backbones.
        reads: words (passed as ``inputs_embeds``), patches or items.
        fused: whether one linear layer (as Wqkv) computes query, key and value, in this order.
        tokens: the module whose output is the input of the first layer; for image encoders only.
        positions_from_padding: whether positions count from ``pad_token_id + 1``, as in RoBERTa, not from 0.
        optional_pooler: whether its class has ``add_pooling_layer``; most published weights lack a pooler.
    """

    layers: str
    attention: SublayerLayout
    feed_forward: SublayerLayout | None
    query: tuple[str, ...]
    value: tuple[str, ...]
    reads: Reads
    fused: bool = False
    tokens: str | None = None
    key: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    positions_from_padding: bool = False
    optional_pooler: bool = False

    @property
    def pre_norm(self) -> bool:
        """x + f(LN(x)) instead of LN(x + f(x)): the layer norm is what first reads x."""
        return self.attention.norm == self.attention.entry


_BERT = EncoderLayout(
    layers="encoder.layer",
    attention=SublayerLayout(
        entry="attention.output",
        output="attention.output.dropout",
        norm="attention.output.LayerNorm",
        entry_argument=1,
    ),
    feed_forward=SublayerLayout(
        entry="output", output="output.dropout", norm="output.LayerNorm", entry_argument=1
    ),
    query=("attention.self.query",),
    value=("attention.self.value",),
    reads=Reads.WORDS,
    key=("attention.self.key",),
    down=("output.dense",),
    optional_pooler=True,
)
_ROBERTA = replace(_BERT, positions_from_padding=True)
_MODERNBERT = EncoderLayout(
    layers="layers",
    attention=SublayerLayout(entry="attn_norm", output="attn.out_drop", norm="attn_norm"),
    feed_forward=SublayerLayout(entry="mlp_norm", output="mlp", norm="mlp_norm"),
    query=("attn.Wqkv",),
    value=("attn.Wqkv",),
    reads=Reads.WORDS,
    fused=True,
    key=("attn.Wqkv",),
    down=("mlp.Wo",),
)
_VIT = EncoderLayout(
    layers="layers",
    attention=SublayerLayout(entry="layernorm_before", output="dropout", norm="layernorm_before"),
    feed_forward=SublayerLayout(entry="layernorm_after", output="dropout", norm="layernorm_after"),
    query=("attention.q_proj",),
    value=("attention.v_proj",),
    reads=Reads.PATCHES,
    tokens="embeddings",
    key=("attention.k_proj",),
    down=("mlp.fc2",),
)
_DINOV2 = EncoderLayout(
    layers="encoder.layer",
    attention=SublayerLayout(entry="norm1", output="drop_path", norm="norm1"),
    feed_forward=SublayerLayout(entry="norm2", output="drop_path", norm="norm2"),
    query=("attention.q_proj", "attention.attention.query"),
    value=("attention.v_proj", "attention.attention.value"),
    reads=Reads.PATCHES,
    tokens="embeddings",
    key=("attention.k_proj", "attention.attention.key"),
    down=("mlp.fc2", "mlp.weights_out"),
)
_CLIP_VISION = EncoderLayout(
    layers="encoder.layers",
    attention=SublayerLayout(entry="layer_norm1", output="self_attn.out_proj", norm="layer_norm1"),
    feed_forward=SublayerLayout(entry="layer_norm2", output="mlp", norm="layer_norm2"),
    query=("self_attn.q_proj",),
    value=("self_attn.v_proj",),
    reads=Reads.PATCHES,
    tokens="pre_layrnorm",
    key=("self_attn.k_proj",),
    down=("mlp.fc2",),
)
LAYOUTS: dict[str, EncoderLayout] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "modernbert": _MODERNBERT,
    "vit": replace(_VIT, optional_pooler=True),
    "vit_mae": _VIT,
    "dinov2": _DINOV2,
    "clip_vision_model": _CLIP_VISION,
}
"""Layouts of pretrained backbones, by the ``model_type`` of their Hugging Face configuration."""
