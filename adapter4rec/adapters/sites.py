"""The sites of an encoder: where adapters attach.

``layouts.py`` lists where they are in each kind of encoder. An adapter does not replace the encoder's code:
it changes inputs and outputs of modules by hooks. Removing the hooks restores the original encoder.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapter4rec.adapters.config import ATTENTION, FEED_FORWARD
from adapter4rec.data.packing import Packing
from adapter4rec.models.layouts import UNREAD, EncoderLayout, Reads, SublayerLayout
from adapter4rec.utils.errors import UserError

Undo: TypeAlias = Callable[[], object]
"""Takes back an attachment."""
Change: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The new value of a tensor, from it and a second one, all ``[batch, positions, width]``."""
Arguments: TypeAlias = dict[str, Any]
"""Arguments of an encoder's forward pass, by name."""


@dataclass(frozen=True)
class Sublayer:
    """One residual sublayer f of a layer, at which an adapter may change y = f(x)."""

    layer: nn.Module
    layout: SublayerLayout
    pre_norm: bool

    @property
    def norm(self) -> nn.Module:
        """The layer norm of the sublayer."""
        return self.layer.get_submodule(self.layout.norm)

    def on_output(self, change: Change) -> Undo:
        """Replace y by ``change(y, x)``; x is the residual stream."""
        seen: list[Tensor] = []

        def forget(_: nn.Module, __: object) -> None:
            seen.clear()  # left over from an interrupted call

        def remember(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen[:] = [arguments[self.layout.entry_argument]]

        def replace(_: nn.Module, __: object, y: Tensor) -> Tensor | None:
            return change(y, seen.pop()) if seen else None  # else this is the output of the other sublayer

        entry, output = map(self.layer.get_submodule, (self.layout.entry, self.layout.output))
        hooks = ExitStack()
        hooks.callback(self.layer.register_forward_pre_hook(forget).remove)
        hooks.callback(entry.register_forward_pre_hook(remember).remove)
        hooks.callback(output.register_forward_hook(replace).remove)
        return hooks.close

    def on_normed_sum(self, change: Change) -> Undo:
        """Replace LN(s) by ``change(LN(s), s)``, where s = x + f(x); post-norm encoders only.

        Raises:
            UserError: the encoder is pre-norm: no layer norm follows the sum.
        """
        if self.pre_norm:
            raise UserError("the encoder is pre-norm: no layer norm follows its sublayers; use pfeiffer")

        return _on_output(self.norm, change)


def _on_output(module: nn.Module, change: Change) -> Undo:
    """Replace a module's output by ``change(output, input)``."""

    def replace(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return change(output, arguments[0])

    return module.register_forward_hook(replace).remove


@dataclass(frozen=True)
class Projection:
    """A linear layer that an adapter may replace.

    Attributes:
        owner: the layer of the encoder.
        paths: possible names of the linear layer in it.
        fused: whether the linear layer computes query, key and value, in this order.
    """

    owner: nn.Module
    paths: tuple[str, ...]
    fused: bool

    @property
    def name(self) -> str:
        """Path of the linear layer in its owner."""
        names = dict(self.owner.named_modules())
        return next(path for path in self.paths if path in names)

    @property
    def linear(self) -> nn.Linear:
        """The current layer."""
        linear = self.owner.get_submodule(self.name)
        assert isinstance(linear, nn.Linear)
        return linear

    def replace_by(self, module: nn.Module) -> Undo:
        """Replace the layer by ``module``."""
        name, original = self.name, self.linear
        self.owner.set_submodule(name, module)
        return lambda: self.owner.set_submodule(name, original)


@dataclass(frozen=True)
class Layer:
    """The sites of one layer (a block, in the user encoder).

    Attributes:
        module: the layer.
        sublayers: its sublayers, by kind; a layer need not have both kinds.
        query: its query projection.
        value: its value projection.
    """

    module: nn.Module
    sublayers: dict[str, Sublayer]
    query: Projection
    value: Projection

    def on_state(self, change: Change) -> Undo:
        """Replace the layer's output by ``change(output, input)``."""
        return _on_output(self.module, change)

    def sublayer(self, kind: str) -> Sublayer:
        """The sublayer of a kind, ``attention`` or ``feed_forward``.

        Raises:
            UserError: the layer has none.
        """
        if kind not in self.sublayers:
            raise UserError(
                f"--sublayers {kind}: {type(self.module).__name__} has no {kind} sublayer, only "
                f"{', '.join(self.sublayers)}; choose another with --sublayers, or adapt the item encoder "
                "only: --encoders item"
            )
        return self.sublayers[kind]


@dataclass(frozen=True)
class Sites:
    """All sites of one encoder.

    Attributes:
        encoder: the whole encoder.
        layers: its layers, first to last.
        width: hidden size: h of a backbone, d of the user encoder.
        role: ``item`` or ``user``.
        layout: names of its submodules; ``layout.reads`` is the kind of its inputs.
    """

    encoder: nn.Module
    layers: list[Layer]
    width: int
    role: str
    layout: EncoderLayout

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

    @property
    def vocabulary(self) -> nn.Module:
        """The word embeddings of a text encoder."""
        from transformers import PreTrainedModel  # takes seconds, and id towers do without

        assert isinstance(self.encoder, PreTrainedModel)
        return self.encoder.get_input_embeddings()

    def words_of(self, arguments: Arguments) -> Tensor:
        """The embedded words of a text encoder's arguments, ``[batch, positions, h]``."""
        given = arguments.get("inputs_embeds")
        words: Tensor = self.vocabulary(arguments["input_ids"]) if given is None else given
        return words

    def on_inputs(self, change: Callable[[Arguments], Arguments]) -> Undo:
        """Replace the arguments of the encoder's forward pass, by name, by ``change(arguments)``."""
        names = list(inspect.signature(self.encoder.forward).parameters)

        def replace(_: nn.Module, given: tuple[Any, ...], named: Arguments) -> tuple[tuple[()], Arguments]:
            return (), change(dict(zip(names, given, strict=False)) | named)

        return self.encoder.register_forward_pre_hook(replace, with_kwargs=True).remove

    def on_mask(self, remember: Callable[[Tensor | Packing | None], None]) -> Undo:
        """Call ``remember(mask)`` in each forward pass with the mask of the layers' attention.

        The mask is None; or a tensor that broadcasts to ``[batch, heads, positions, positions]``, bool (true:
        may be attended to) or additive; or the packing of texts that are concatenated into one sequence.
        """
        if self.layout.reads is Reads.ITEMS:
            first = self.layers[0].module
            return first.register_forward_pre_hook(lambda _, arguments: remember(arguments[1])).remove

        def look(arguments: Arguments) -> Arguments:
            mask = arguments.get("attention_mask")
            remember(arguments.get("packing") if mask is None else mask[:, None, None].bool())
            return arguments

        return self.on_inputs(look)

    def on_tokens(self, further: Tensor) -> Undo:
        """Add ``further`` tokens, ``[n, h]``, to the encoder's input.

        For words see :meth:`with_words`. For patches they follow the patches and have no position embedding.

        Raises:
            ValueError: the encoder reads items, not tokens.
        """
        if self.layout.reads is Reads.ITEMS:
            raise ValueError("the user encoder reads items, not tokens")
        if self.layout.tokens is None:
            return self.on_inputs(lambda arguments: arguments | self.with_words(arguments, further))

        def append(_: nn.Module, __: object, output: Any) -> Any:
            own, *rest = output if isinstance(output, tuple) else (output,)
            longer = torch.cat([own, further.to(own.dtype).expand(len(own), -1, -1)], dim=1)
            return (longer, *rest) if isinstance(output, tuple) else longer

        return self.encoder.get_submodule(self.layout.tokens).register_forward_hook(append).remove

    def with_words(self, arguments: Arguments, further: Tensor) -> Arguments:
        """The arguments of a text encoder that change if its texts have ``further`` words.

        They follow the first word, [CLS], and have positions, which shifts those of the title.
        """
        words = self.words_of(arguments)
        if (packing := arguments.get("packing")) is not None:
            longer, sources = packing.lengthened(len(further))
            words = F.embedding(sources, torch.cat([words[0], further.to(words.dtype)]))[None]
            positions = arguments["position_ids"][:, :1] + longer.places
            return {"inputs_embeds": words, "position_ids": positions, "packing": longer}
        own = further.to(words.dtype).expand(words.shape[0], -1, -1)  # len() would be a constant in a trace
        words = torch.cat([words[:, :1], own, words[:, 1:]], dim=1)
        changed: Arguments = {"input_ids": None, "inputs_embeds": words}
        for name, filling in (("attention_mask", 1), ("token_type_ids", 0)):
            if (there := arguments.get(name)) is not None:
                between = there.new_full(own.shape[:2], filling)
                changed[name] = torch.cat([there[:, :1], between, there[:, 1:]], dim=1)
        if (positions := arguments.get("position_ids")) is not None:
            places = torch.arange(words.shape[1], device=positions.device)
            changed["position_ids"] = positions[:, :1] + places
        return changed


def find_sites(encoder: nn.Module, layout: EncoderLayout, width: int, role: str) -> Sites:
    """Look up the sites of ``encoder`` in its layout.

    Raises:
        AttributeError: the encoder has another layout.
    """
    layers = []
    for module in encoder.get_submodule(layout.layers).children():
        kinds = {ATTENTION: layout.attention, FEED_FORWARD: layout.feed_forward}
        sublayers = {
            kind: Sublayer(module, one, layout.pre_norm) for kind, one in kinds.items() if one is not None
        }
        query, value = (Projection(module, paths, layout.fused) for paths in (layout.query, layout.value))
        layers.append(Layer(module, sublayers, query, value))
    return Sites(encoder, layers, width, role, layout)
