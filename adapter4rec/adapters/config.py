"""What every adapter config has: which encoders and layers are adapted, and how its adapter is built.

Configs are settings: nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, ClassVar

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import Settings, option

if TYPE_CHECKING:
    from adapter4rec.adapters.base import Adapter
    from adapter4rec.adapters.sites import Layer, Sites

ENCODERS = ("item", "user")
PAPER, RELEASE = "paper", "release"
ATTENTION, FEED_FORWARD = "attention", "feed_forward"
SUBLAYERS = (ATTENTION, FEED_FORWARD)
PROJECTIONS = ("query", "value")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh", "none")


class LayerChoice(str):
    """Some layers of an encoder, by numbers from 0.

    ``all``, ``ends`` (the first and the last), ``first:2``, ``last:2``, ``0-3``, or ``0,2,5``.
    """

    def of(self, count: int, what: str) -> list[int]:
        """The chosen layer numbers, ascending.

        Args:
            count: number of layers of the encoder.
            what: name of the option, for the error message.

        Raises:
            UserError: the value cannot be parsed, or names layers that the encoder does not have.
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
    """Adapters.

    Base of the configs; each field is an option of the launchers. A family defines a subclass, names its
    ``adapter`` or overrides :meth:`build`, and registers the class in ``registry.py``.
    """

    encoders: tuple[str, ...] = option(ENCODERS, "encoders that are adapted", choices=ENCODERS)
    item_layers: LayerChoice = option(
        LayerChoice("all"), "layers of the item encoder: all, ends, first:N, last:N, A-B, or numbers from 0"
    )
    user_layers: LayerChoice = option(LayerChoice("all"), "blocks of the user encoder, in the same form")
    train_layer_norms: bool = option(
        False, "also train the layer norms of the chosen layers; with all layers, all of the adapted encoders"
    )
    train_head: bool = option(False, "also train the item head (the paper's DTL)")
    train_user_encoder: bool = option(
        False, "also train the user encoder as a whole, if it is not adapted (--encoders item)"
    )
    semantics: str = option(
        PAPER,
        "paper: the adapter as its own paper describes it; release: as the released code computes it",
        choices=(PAPER, RELEASE),
    )

    adapter: ClassVar[str]
    """Class of the adapter of one encoder, ``module:Class``. It is imported when it is built."""

    def build(self, sites: Sites) -> Adapter:
        """Build the adapter of one encoder and attach it to its sites."""
        adapter: Adapter = resolve_name(self.adapter)(self, sites)
        return adapter

    def build_all(self, sites: Mapping[str, Sites]) -> Iterator[tuple[str, Adapter]]:
        """Build the adapters of a model and attach them, one at a time.

        A family whose adapters share parameters yields an adapter with these first, as ``shared``.

        Args:
            sites: the sites of each adapted encoder, ``item`` or ``user``.

        Yields:
            The name of the encoder and its adapter.
        """
        for role, own in sites.items():
            yield role, self.build(own)

    def check(self) -> None:
        """Raise a UserError for a combination of options that is not valid."""

    def trains_layer_norms_of(self, role: str) -> bool:
        """Whether the layer norms of an encoder, ``item`` or ``user``, are trained."""
        return self.train_layer_norms

    def only(self, encoders: Iterable[str]) -> str:
        """The options with which only some encoders are adapted, for a message."""
        return f"--encoders {','.join(encoders)}"

    @property
    def further_tokens(self) -> int:
        """Number of tokens that the adapter adds to the input of the item encoder."""
        return 0

    def frozen_outputs(self, count: int) -> tuple[int, ...]:
        """Layers of the item encoder whose outputs are the only frozen inputs of everything trained.

        Nothing that computes them is trained or adapted, so they can be cached.

        Args:
            count: number of layers of the item encoder.

        Returns:
            Layer numbers; empty if the adapter starts in the first layer.
        """
        first = self.item_layers.of(count, "item_layers")[0]
        return (first - 1,) if first else ()

    def learning_rates(self) -> dict[str, float]:
        """Learning rates of the parameter groups that only this family has, by group."""
        return {}

    def size_of(self, sites: Sites, name: str) -> int:
        """The option ``item_NAME`` or ``user_NAME``, whichever is that of the encoder; 0 if it is not set."""
        size: int = getattr(self, f"{sites.role}_{name}") or 0
        return size

    def layers_of(self, sites: Sites) -> dict[str, Layer]:
        """The chosen layers of an encoder; keys are layer numbers, usable as module names.

        Raises:
            UserError: the encoder lacks one of them.
        """
        choice = self.item_layers if sites.role == "item" else self.user_layers
        numbers = choice.of(len(sites.layers), f"{sites.role}_layers")
        return {str(number): sites.layers[number] for number in numbers}
