"""The places of an encoder at which adapters attach.

One small table says, for each kind of encoder, under which names its places are found. Everything else
about an encoder (widths, number of layers) is read from its modules.

An adapter never replaces an encoder's own code: it changes what flows through a place by hooks, which
:class:`Undo` removes again, so that the encoder without its adapter is the encoder that was there before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn


class Reads(Enum):
    """What an encoder reads, which decides how it is masked and where further tokens go."""

    WORDS = "words"
    PATCHES = "patches"
    ITEMS = "items"


ATTENTION, FEED_FORWARD = "attention", "feed_forward"
SUBLAYERS = (ATTENTION, FEED_FORWARD)

Undo = Callable[[], None]
"""Takes back what attaching changed."""


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
class EncoderLayout:
    """Where the places of one kind of encoder lie.

    Attributes:
        layers: path of the list of layers.
        attention: the attention sublayer.
        feed_forward: the feed-forward sublayer.
        query: path of the query projection in a layer.
        value: path of the value projection in a layer.
        pre_norm: x + f(LN(x)) instead of LN(x + f(x)).
        reads: words, given as ``inputs_embeds``; patches, embedded by a module ``embeddings``; or items.
    """

    layers: str
    attention: SublayerLayout
    feed_forward: SublayerLayout
    query: str
    value: str
    pre_norm: bool
    reads: Reads


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
    query="attention.self.query",
    value="attention.self.value",
    pre_norm=False,
    reads=Reads.WORDS,
)
USER_ENCODER = EncoderLayout(
    layers="blocks",
    attention=SublayerLayout(
        entry="attention", entry_argument=0, output="attention.dropout", norm="attention.layer_norm"
    ),
    feed_forward=SublayerLayout(
        entry="feed_forward", entry_argument=0, output="feed_forward.dropout", norm="feed_forward.layer_norm"
    ),
    query="attention.query",
    value="attention.value",
    pre_norm=False,
    reads=Reads.ITEMS,
)
_VIT = EncoderLayout(
    layers="layers",
    attention=SublayerLayout(
        entry="layernorm_before", entry_argument=0, output="dropout", norm="layernorm_before"
    ),
    feed_forward=SublayerLayout(
        entry="layernorm_after", entry_argument=0, output="dropout", norm="layernorm_after"
    ),
    query="attention.q_proj",
    value="attention.v_proj",
    pre_norm=True,
    reads=Reads.PATCHES,
)
LAYOUTS: dict[str, EncoderLayout] = {"bert": _BERT, "roberta": _BERT, "vit": _VIT, "vit_mae": _VIT}
"""Layouts of pretrained backbones, by the ``model_type`` of their Hugging Face configuration."""


@dataclass(frozen=True)
class Sublayer:
    """One residual sublayer f of a layer, at which an adapter may change y = f(x)."""

    entry: nn.Module
    entry_argument: int
    output: nn.Module
    norm: nn.Module
    pre_norm: bool

    def on_output(self, change: Callable[[Tensor, Tensor], Tensor]) -> Undo:
        """Let y become ``change(y, x)``, both ``[batch, places, width]``; x is the residual stream."""
        seen: list[Tensor] = []

        def remember(_: nn.Module, arguments: tuple) -> None:
            seen[:] = [arguments[self.entry_argument]]

        def replace(_: nn.Module, __: tuple, y: Tensor) -> Tensor | None:
            return change(y, seen.pop()) if seen else None  # else it is the other sublayer's output

        return _undo(
            self.entry.register_forward_pre_hook(remember), self.output.register_forward_hook(replace)
        )

    def on_normed_sum(self, change: Callable[[Tensor, Tensor], Tensor]) -> Undo:
        """Let LN(s) become ``change(LN(s), s)``, where s = x + f(x); post-norm encoders only.

        Raises:
            ValueError: the encoder normalises before its sublayers, so there is no such place.
        """
        if self.pre_norm:
            raise ValueError("a pre-norm encoder has no layer norm after the sum of a sublayer")

        def replace(_: nn.Module, arguments: tuple, normed: Tensor) -> Tensor:
            return change(normed, arguments[0])

        return _undo(self.norm.register_forward_hook(replace))


@dataclass(frozen=True)
class Projection:
    """A linear layer that an adapter may replace by one which wraps it."""

    owner: nn.Module
    name: str

    @property
    def module(self) -> nn.Module:
        """The layer that is there now."""
        return getattr(self.owner, self.name)

    def replace_by(self, module: nn.Module) -> Undo:
        """Put ``module`` in its place until undone."""
        original = self.module
        setattr(self.owner, self.name, module)
        return lambda: setattr(self.owner, self.name, original)


@dataclass(frozen=True)
class Layer:
    """The places of one layer (a block, in the user encoder)."""

    module: nn.Module
    sublayers: dict[str, Sublayer]
    query: Projection
    value: Projection

    def on_state(self, change: Callable[[Tensor, Tensor], Tensor]) -> Undo:
        """Let the layer's output become ``change(output, input)``, both ``[batch, places, width]``."""

        def replace(_: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
            return change(output, arguments[0])

        return _undo(self.module.register_forward_hook(replace))


@dataclass(frozen=True)
class Sites:
    """All places of one encoder.

    Attributes:
        encoder: the whole encoder.
        layers: its layers, first to last.
        width: h of a backbone, d of the user encoder.
        role: ``item`` or ``user``.
        reads: words, patches or items.
    """

    encoder: nn.Module
    layers: list[Layer]
    width: int
    role: str
    reads: Reads

    def on_inputs(self, change: Callable[[dict], dict]) -> Undo:
        """Let the encoder's keyword arguments become ``change(arguments)``."""

        def replace(_: nn.Module, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
            return arguments, change(keywords)

        return _undo(self.encoder.register_forward_pre_hook(replace, with_kwargs=True))

    def on_mask(self, remember: Callable[[Tensor | None], None]) -> Undo:
        """Tell ``remember``, at each call, what the layers' attention is masked with.

        It is told None, or a mask that broadcasts to ``[batch, heads, places, places]``: bool, true where
        attention may go, or additive.
        """
        if self.reads is Reads.ITEMS:
            first = self.layers[0].module
            return _undo(first.register_forward_pre_hook(lambda _, arguments: remember(arguments[1])))

        def look(arguments: dict) -> dict:
            mask = arguments.get("attention_mask")
            remember(None if mask is None else mask[:, None, None].bool())
            return arguments

        return self.on_inputs(look)

    def on_tokens(self, further: Tensor) -> Undo:
        """Let the encoder read ``further`` tokens, ``[n, h]``, besides its own.

        Words: behind [CLS], where they take positions and the title's positions shift. Patches: behind the
        patches, without a position.

        Raises:
            ValueError: the encoder reads items, which are no tokens.
        """
        if self.reads is Reads.ITEMS:
            raise ValueError("the user encoder reads items, not tokens")
        if self.reads is Reads.WORDS:
            return self.on_inputs(lambda arguments: _with_words(arguments, further))

        def append(_: nn.Module, __: tuple, output: Tensor | tuple) -> Tensor | tuple:
            own, *rest = output if isinstance(output, tuple) else (output,)
            longer = torch.cat([own, further.to(own.dtype).expand(len(own), -1, -1)], dim=1)
            return (longer, *rest) if isinstance(output, tuple) else longer

        return _undo(self.encoder.get_submodule("embeddings").register_forward_hook(append))


def _with_words(arguments: dict, further: Tensor) -> dict:
    words, mask, positions = (arguments[name] for name in ("inputs_embeds", "attention_mask", "position_ids"))
    own = further.to(words.dtype).expand(len(words), -1, -1)
    if mask is not None:
        mask = torch.cat([mask[:, :1], mask.new_ones(own.shape[:2]), mask[:, 1:]], dim=1)
    length = positions.shape[1] + own.shape[1]
    return arguments | {
        "inputs_embeds": torch.cat([words[:, :1], own, words[:, 1:]], dim=1),
        "attention_mask": mask,
        "position_ids": positions[:, :1] + torch.arange(length, device=positions.device),
    }


def find_sites(encoder: nn.Module, layout: EncoderLayout, width: int, role: str) -> Sites:
    """Look up the places of ``encoder`` by its layout."""
    layers = [_layer(module, layout) for module in encoder.get_submodule(layout.layers)]
    return Sites(encoder, layers, width, role, layout.reads)


def _layer(module: nn.Module, layout: EncoderLayout) -> Layer:
    sublayers = {
        kind: Sublayer(
            entry=module.get_submodule(paths.entry),
            entry_argument=paths.entry_argument,
            output=module.get_submodule(paths.output),
            norm=module.get_submodule(paths.norm),
            pre_norm=layout.pre_norm,
        )
        for kind, paths in ((ATTENTION, layout.attention), (FEED_FORWARD, layout.feed_forward))
    }
    return Layer(module, sublayers, _projection(module, layout.query), _projection(module, layout.value))


def _projection(module: nn.Module, path: str) -> Projection:
    owner, _, name = path.rpartition(".")
    return Projection(module.get_submodule(owner), name)


def _undo(*handles) -> Undo:  # noqa: ANN002 (torch's removable handles)
    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove
