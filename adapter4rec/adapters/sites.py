"""The sites of an encoder: where adapters attach.

``layouts.py`` lists where they are in each kind of encoder. An adapter does not replace the encoder's code:
it changes inputs and outputs of modules by hooks. Removing the hooks restores the original encoder.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.adapters.config import ATTENTION, FEED_FORWARD
from adapter4rec.data.packing import Packing
from adapter4rec.models.layouts import UNREAD, EncoderLayout, ProjectionLayout, Reads
from adapter4rec.utils.errors import UserError

Undo = Callable[[], None]
"""Takes back an attachment."""


@dataclass(frozen=True)
class Sublayer:
    """One residual sublayer f of a layer, at which an adapter may change y = f(x)."""

    layer: nn.Module
    entry: nn.Module
    entry_argument: int
    output: nn.Module
    norm: nn.Module
    pre_norm: bool

    def on_output(self, change: Callable[[Tensor, Tensor], Tensor]) -> Undo:
        """Replace y by ``change(y, x)``, both ``[batch, positions, width]``; x is the residual stream."""
        seen: list[Tensor] = []

        def forget(_: nn.Module, __: tuple) -> None:
            seen.clear()  # left over from an interrupted call

        def remember(_: nn.Module, arguments: tuple) -> None:
            seen[:] = [arguments[self.entry_argument]]

        def replace(_: nn.Module, __: tuple, y: Tensor) -> Tensor | None:
            return change(y, seen.pop()) if seen else None  # else this is the output of the other sublayer

        hooks = ExitStack()
        hooks.callback(self.layer.register_forward_pre_hook(forget).remove)
        hooks.callback(self.entry.register_forward_pre_hook(remember).remove)
        hooks.callback(self.output.register_forward_hook(replace).remove)
        return hooks.close

    def on_normed_sum(self, change: Callable[[Tensor, Tensor], Tensor]) -> Undo:
        """Replace LN(s) by ``change(LN(s), s)``, where s = x + f(x); post-norm encoders only.

        Raises:
            UserError: the encoder is pre-norm: no layer norm follows the sum.
        """
        if self.pre_norm:
            raise UserError("the encoder is pre-norm: no layer norm follows its sublayers; use pfeiffer")

        def replace(_: nn.Module, arguments: tuple, normed: Tensor) -> Tensor:
            return change(normed, arguments[0])

        return self.norm.register_forward_hook(replace).remove


@dataclass(frozen=True)
class Projection:
    """A linear layer that an adapter may replace.

    Attributes:
        owner: the parent module of the layer.
        name: name of the layer in it.
        part: index of the projection among the equal parts of the layer's output, from 0.
        parts: number of these parts: 1, or 3 if the layer computes query, key and value.
    """

    owner: nn.Module
    name: str
    part: int = 0
    parts: int = 1

    @property
    def module(self) -> nn.Module:
        """The current layer."""
        return getattr(self.owner, self.name)

    def replace_by(self, module: nn.Module) -> Undo:
        """Replace the layer by ``module``."""
        original = self.module
        setattr(self.owner, self.name, module)
        return lambda: setattr(self.owner, self.name, original)


@dataclass(frozen=True)
class Layer:
    """The sites of one layer (a block, in the user encoder)."""

    module: nn.Module
    sublayers: dict[str, Sublayer]
    query: Projection
    value: Projection

    def on_state(self, change: Callable[[Tensor, Tensor], Tensor]) -> Undo:
        """Replace the layer's output by ``change(output, input)``, both ``[batch, positions, width]``."""

        def replace(_: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
            return change(output, arguments[0])

        return self.module.register_forward_hook(replace).remove


@dataclass(frozen=True)
class Sites:
    """All sites of one encoder.

    Attributes:
        encoder: the whole encoder.
        layers: its layers, first to last.
        width: hidden size: h of a backbone, d of the user encoder.
        role: ``item`` or ``user``.
        reads: kind of the encoder's inputs: words, patches or items.
        tokens: the module that computes the first layer's input; None unless the inputs are patches.
    """

    encoder: nn.Module
    layers: list[Layer]
    width: int
    role: str
    reads: Reads
    tokens: nn.Module | None

    def parameters_of(self, layers: Sequence[Layer]) -> list[str]:
        """Names of the parameters of some layers; of all layers, those of the whole encoder."""
        if len(layers) == len(self.layers):
            return [name for name, _ in self.encoder.named_parameters() if not name.startswith(UNREAD)]
        inside = {id(parameter) for layer in layers for parameter in layer.module.parameters()}
        return [name for name, parameter in self.encoder.named_parameters() if id(parameter) in inside]

    def layer_norms_of(self, layers: Sequence[Layer]) -> list[str]:
        """Names of the parameters of the layer norms among :meth:`parameters_of`."""
        norms = {name for name, module in self.encoder.named_modules() if isinstance(module, nn.LayerNorm)}
        return [name for name in self.parameters_of(layers) if name.rpartition(".")[0] in norms]

    def on_inputs(self, change: Callable[[dict], dict]) -> Undo:
        """Replace the arguments of the encoder's forward pass, by name, by ``change(arguments)``."""
        names = list(inspect.signature(self.encoder.forward).parameters)

        def replace(_: nn.Module, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
            return (), change(dict(zip(names, arguments, strict=False)) | keywords)

        return self.encoder.register_forward_pre_hook(replace, with_kwargs=True).remove

    def on_mask(self, remember: Callable[[Tensor | Packing | None], None]) -> Undo:
        """Call ``remember(mask)`` in each forward pass with the mask of the layers' attention.

        The mask is None; or a tensor that broadcasts to ``[batch, heads, positions, positions]``, bool (true:
        may be attended to) or additive; or the packing of texts that are concatenated into one sequence.
        """
        if self.reads is Reads.ITEMS:
            first = self.layers[0].module
            return first.register_forward_pre_hook(lambda _, arguments: remember(arguments[1])).remove

        def look(arguments: dict) -> dict:
            mask = arguments.get("attention_mask")
            remember(arguments.get("packing") if mask is None else mask[:, None, None].bool())
            return arguments

        return self.on_inputs(look)

    def on_tokens(self, further: Tensor) -> Undo:
        """Add ``further`` tokens, ``[n, h]``, to the encoder's input.

        For words they follow [CLS] and have positions, which shifts those of the title. For patches they
        follow the patches and have no position embedding.

        Raises:
            ValueError: the encoder reads items, not tokens.
        """
        if self.reads is Reads.ITEMS:
            raise ValueError("the user encoder reads items, not tokens")
        if self.tokens is None:
            words = self.encoder.get_input_embeddings()
            return self.on_inputs(lambda arguments: _with_words(arguments, further, words))

        def append(_: nn.Module, __: tuple, output: Tensor | tuple) -> Tensor | tuple:
            own, *rest = output if isinstance(output, tuple) else (output,)
            longer = torch.cat([own, further.to(own.dtype).expand(len(own), -1, -1)], dim=1)
            return (longer, *rest) if isinstance(output, tuple) else longer

        return self.tokens.register_forward_hook(append).remove


def _with_words(arguments: dict, further: Tensor, embed: nn.Module) -> dict:
    """Arguments of a text encoder with ``further`` words after the first word of each text."""
    words = arguments.get("inputs_embeds")
    if words is None:
        words = embed(arguments["input_ids"])
    if (packing := arguments.get("packing")) is not None:
        longer, sources = packing.lengthened(len(further))
        words = F.embedding(sources, torch.cat([words[0], further.to(words.dtype)]))[None]
        positions = arguments["position_ids"][:, :1] + longer.places
        return arguments | {"inputs_embeds": words, "position_ids": positions, "packing": longer}
    own = further.to(words.dtype).expand(len(words), -1, -1)
    longer = {"input_ids": None, "inputs_embeds": torch.cat([words[:, :1], own, words[:, 1:]], dim=1)}
    for name, filling in (("attention_mask", 1), ("token_type_ids", 0)):
        if (there := arguments.get(name)) is not None:
            between = there.new_full(own.shape[:2], filling)
            longer[name] = torch.cat([there[:, :1], between, there[:, 1:]], dim=1)
    if (positions := arguments.get("position_ids")) is not None:
        length = longer["inputs_embeds"].shape[1]
        longer["position_ids"] = positions[:, :1] + torch.arange(length, device=positions.device)
    return arguments | longer


def find_sites(encoder: nn.Module, layout: EncoderLayout, width: int, role: str) -> Sites:
    """Look up the sites of ``encoder`` in its layout."""
    layers = [_layer(module, layout) for module in encoder.get_submodule(layout.layers)]
    tokens = encoder.get_submodule(layout.tokens) if layout.tokens else None
    return Sites(encoder, layers, width, role, layout.reads, tokens)


def _layer(module: nn.Module, layout: EncoderLayout) -> Layer:
    sublayers = {
        kind: Sublayer(
            layer=module,
            entry=module.get_submodule(paths.entry),
            entry_argument=paths.entry_argument,
            output=module.get_submodule(paths.output),
            norm=module.get_submodule(paths.norm),
            pre_norm=layout.pre_norm,
        )
        for kind, paths in ((ATTENTION, layout.attention), (FEED_FORWARD, layout.feed_forward))
    }
    return Layer(module, sublayers, _projection(module, layout.query), _projection(module, layout.value))


def _projection(module: nn.Module, layout: ProjectionLayout) -> Projection:
    names = dict(module.named_modules())
    path = next(path for path in layout.paths if path in names)
    owner, _, name = path.rpartition(".")
    return Projection(names[owner], name, layout.part, layout.parts)
