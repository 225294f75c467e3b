"""What all adapters share: a config, and attaching to an encoder's sites and detaching again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

from torch import Tensor, nn

from adapter4rec.adapters.sites import Layer, Sites, Undo
from adapter4rec.models.layouts import UNREAD
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import Settings, option

ENCODERS = ("item", "user")
PAPER, RELEASE = "paper", "release"


class LayerChoice(str):
    """Some layers of an encoder, by numbers from 0.

    ``all``, ``ends`` (the first and the last), ``first:2``, ``last:2``, ``0-3``, or ``0,2,5``.
    """

    def of(self, count: int, what: str) -> list[int]:
        """The chosen numbers, ascending, of an encoder with ``count`` layers.

        Raises:
            UserError: no choice of layers, or one of layers that the encoder does not have.
        """
        chosen = self._numbers(count)
        if not chosen or chosen[-1] >= count:
            raise UserError(
                f"--{what} {self}: expected all, ends, first:N, last:N, A-B or numbers from 0 as 0,2; "
                f"there are {count} layers, 0 to {count - 1}"
            )
        return chosen

    def _numbers(self, count: int) -> list[int]:
        if self in ("all", "ends"):
            return list(range(count)) if self == "all" else sorted({0, count - 1})
        if end := re.fullmatch(r"(first|last):(\d+)", self):
            length = int(end[2])
            start = 0 if end[1] == "first" else count - length
            return list(range(start, start + length)) if length <= count else []
        if span := re.fullmatch(r"(\d+)-(\d+)", self):
            return list(range(int(span[1]), int(span[2]) + 1))
        return sorted(map(int, set(self.split(",")))) if re.fullmatch(r"\d+(,\d+)*", self) else []


@dataclass(frozen=True)
class AdapterConfig(Settings):
    """Base of adapter configs; each field is an option of the launchers of its family."""

    encoders: tuple[str, ...] = option(ENCODERS, "which encoders are adapted: item,user", choices=ENCODERS)
    item_layers: LayerChoice = option(
        LayerChoice("all"), "layers of the item encoder: all, ends, first:N, last:N, A-B, or numbers from 0"
    )
    user_layers: LayerChoice = option(LayerChoice("all"), "blocks of the user encoder, likewise")
    train_layer_norms: bool = option(False, "train all layer norms of the adapted encoders, too")
    train_head: bool = option(False, "train the item head (the paper's DTL), too")
    semantics: str = option(
        PAPER,
        "paper: what the adapter's own paper describes; release: what the released code does instead",
        choices=(PAPER, RELEASE),
    )

    def check(self) -> None:
        """Raise a UserError for a combination that means nothing."""

    @property
    def further_tokens(self) -> int:
        """How many tokens the item encoder reads besides a text's own."""
        return 0

    def frozen_outputs(self, count: int) -> tuple[int, ...]:
        """Layers of an item encoder with ``count`` layers whose outputs are all that its adapter reads of it.

        What computes them is neither trained nor adapted. Empty where the adapter begins in the first layer.
        """
        first = self.item_layers.of(count, "item_layers")[0]
        return (first - 1,) if first else ()

    def learning_rates(self) -> dict[str, float]:
        """Learning rates of the parts that only this family has (see ``part_of`` in models/transrec.py)."""
        return {}

    def layers_of(self, sites: Sites) -> list[tuple[str, Layer]]:
        """The chosen layers of an encoder, each with its number as a module's name.

        Raises:
            UserError: the encoder lacks one of them.
        """
        choice = self.item_layers if sites.role == "item" else self.user_layers
        numbers = choice.of(len(sites.layers), f"{sites.role}_layers")
        return [(str(number), sites.layers[number]) for number in numbers]

    def parameters_of(self, sites: Sites) -> list[str]:
        """Names of the parameters of the chosen layers; where all are chosen, of the whole encoder."""
        chosen = [layer.module for _, layer in self.layers_of(sites)]
        if len(chosen) == len(sites.layers):
            return [name for name, _ in sites.encoder.named_parameters() if not name.startswith(UNREAD)]
        inside = {id(parameter) for module in chosen for parameter in module.parameters()}
        return [name for name, parameter in sites.encoder.named_parameters() if id(parameter) in inside]

    def layer_norms_of(self, sites: Sites) -> list[str]:
        """Names of the parameters of the layer norms among :meth:`parameters_of`."""
        norms = {name for name, module in sites.encoder.named_modules() if isinstance(module, nn.LayerNorm)}
        return [name for name in self.parameters_of(sites) if name.rpartition(".")[0] in norms]


class Adapter(nn.Module):
    """The adapter of one encoder: modules of its own, and what it attached to the encoder's sites.

    A family's class is called as ``cls(config, sites)``; it builds its modules and attaches them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._undo: list[Undo] = []
        self.copies: dict[str, str] = {}
        """Entries of the adapter that stand in for parameters of the encoder, by name, with theirs.

        The encoder need not have them: a projection without bias may get one.
        """

    def __init_subclass__(cls, **options: Any) -> None:
        """Let a constructor that fails take back what it has attached."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _detaching_on_failure(cls.__init__)

    def attach(self, undo: Undo) -> None:
        """Remember how to take back an attachment."""
        self._undo.append(undo)

    def detach(self) -> None:
        """Take back all attachments, the last one first: the encoder is what it was before."""
        while self._undo:
            self._undo.pop()()

    def train_copies(self, field: str, module: nn.Module, names: Iterable[str]) -> None:
        """Let ``module`` compute with copies of some of its parameters, which are the adapter's to train.

        The parameters themselves stay where and what they are, and are used again after detaching.

        Args:
            field: where the adapter keeps the copies.
            module: a whole encoder, or a part of one.
            names: of its parameters.
        """
        originals = {name: module.get_parameter(name) for name in names}
        copies = ParameterTree(originals)
        self.add_module(field, copies)
        for name in originals:
            owner, _, last = name.rpartition(".")
            self.attach(_shadow(module.get_submodule(owner), last, copies.get_parameter(name)))
            self.copies[f"{field}.{name}"] = name


def _detaching_on_failure(construct: Callable[..., None]) -> Callable[..., None]:
    @wraps(construct)
    def constructed(self: Adapter, *arguments: Any, **options: Any) -> None:
        try:
            construct(self, *arguments, **options)
        except BaseException:
            if "_undo" in vars(self):
                self.detach()
            raise

    return constructed


class AdapterSet(nn.ModuleDict):
    """The adapters of a model: by the encoder that they change, and what these share, ``shared``.

    Attributes:
        config: that they were built by; None where there are none.
        base: the parameters of the model without them, by name, even those that an adapter has put out of
            the way.
    """

    def __init__(
        self, config: AdapterConfig | None = None, base: Mapping[str, nn.Parameter] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.base = dict(base or {})
        self._undo: list[Undo] = []

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles: hooks would go on serving the original.

        Raises:
            UserError: there are adapters.
        """
        if self.config is not None:
            raise UserError(
                "a model with adapters cannot be copied or pickled: save_adapter and detach_adapters, copy, "
                "and load_adapter on the copy"
            )
        return AdapterSet, ()

    def attach(self, undo: Undo) -> None:
        """Remember how to take back a change to the whole model."""
        self._undo.append(undo)

    def detach(self) -> None:
        """Take back all that attaching the adapters changed, the last change first."""
        for adapter in reversed(list(self.values())):
            if isinstance(adapter, Adapter):
                adapter.detach()
        while self._undo:
            self._undo.pop()()


class ParameterTree(nn.Module):
    """Copies of parameters, under the same dotted names."""

    def __init__(self, originals: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, original in originals.items():
            *path, field = name.split(".")
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place._modules[part]
            place.register_parameter(field, nn.Parameter(original.detach().clone()))


def _shadow(owner: nn.Module, field: str, parameter: nn.Parameter) -> Undo:
    """Let ``owner.field`` give ``parameter`` without registering it there.

    An attribute of the object itself is found before torch looks among the registered parameters.
    """
    if field in vars(owner):
        raise ValueError(f"{field} has been replaced before")
    vars(owner)[field] = parameter
    return lambda: vars(owner).pop(field)
