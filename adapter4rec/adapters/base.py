"""What all adapters share: attaching to an encoder's sites, and detaching again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from torch import Tensor, nn

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.sites import Undo
from adapter4rec.utils.errors import UserError


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
