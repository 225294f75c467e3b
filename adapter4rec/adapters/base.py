"""What all adapters share: attaching to an encoder's sites, and detaching again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from torch import Tensor, nn

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.sites import Undo
from adapter4rec.models.parts import ADAPTER, SHARED, ParameterGroups, merge_groups
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.modules import shadow


class Adapter(nn.Module):
    """The adapter of one encoder: its own modules, and what it attached to the encoder's sites.

    The constructor of a family's subclass builds the modules and attaches them.

    Attributes:
        groups: parameter group of each child module whose parameters are not in the group ``adapter``, by
            the child's name.
        copies: parameters that the encoder computes with instead of its own: the module that has the
            original, and the original's name in it, by the copy's name in the adapter. The module need not
            have the original: a projection without bias may get one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._undo: list[Undo] = []
        self.groups: dict[str, str] = {}
        self.copies: dict[str, tuple[nn.Module, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Make a constructor that fails take back what it has attached."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _detaching_on_failure(cls.__init__)

    def attach(self, undo: Undo) -> None:
        """Register what takes back an attachment."""
        self._undo.append(undo)

    def detach(self) -> None:
        """Take back all attachments, last one first. The encoder is then as it was before."""
        while self._undo:
            self._undo.pop()()

    def parameter_groups(self) -> ParameterGroups:
        """All parameters by name, in the groups given by ``groups``."""
        groups: ParameterGroups = {ADAPTER: dict(self.named_parameters(recurse=False))}
        for name, child in self.named_children():
            group = groups.setdefault(self.groups.get(name, ADAPTER), {})
            group.update(child.named_parameters(prefix=name))
        return groups

    def train_copies(self, field: str, module: nn.Module, names: Iterable[str], group: str = ADAPTER) -> None:
        """Make ``module`` compute with copies of some of its parameters, which the adapter trains.

        The parameters themselves do not change, and are used again after detaching.

        Args:
            field: name of the child module of the adapter that holds the copies.
            module: a whole encoder, or a part of one.
            names: names of its parameters.
            group: parameter group of the copies.
        """
        self.groups[field] = group
        originals = {name: module.get_parameter(name) for name in names}
        copies = ParameterTree(originals)
        self.add_module(field, copies)
        for name in originals:
            owner, _, last = name.rpartition(".")
            self.attach(shadow(module.get_submodule(owner), last, copies.get_parameter(name)))
            self.copies[f"{field}.{name}"] = (module, name)


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
    """The adapters of a model, by the encoder that they adapt, and what these share, ``shared``.

    Attributes:
        config: the config they were built from.
        base_groups: the parameter groups of the model without them, even of parameters that an adapter has
            replaced.
    """

    def __init__(self, config: AdapterConfig, base_groups: ParameterGroups) -> None:
        super().__init__()
        self.config = config
        self.base_groups = base_groups
        self._undo: list[Undo] = []

    @property
    def base(self) -> dict[str, nn.Parameter]:
        """The parameters of the model without the adapters, by name."""
        return {name: one for parameters in self.base_groups.values() for name, one in parameters.items()}

    def parameter_groups(self) -> ParameterGroups:
        """All parameters by name, in the groups that the adapters declare."""
        return merge_groups(
            {
                name: module.parameter_groups()
                if isinstance(module, Adapter)
                else {SHARED: dict(module.named_parameters())}
                for name, module in self.items()
            }
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be copied or pickled: hooks would refer to the original.

        Raises:
            UserError: always.
        """
        raise UserError(
            "a model with adapters cannot be copied or pickled: save_adapter and detach_adapters, copy, "
            "and load_adapter on the copy"
        )

    def attach(self, undo: Undo) -> None:
        """Register what takes back a change to the whole model."""
        self._undo.append(undo)

    def detach(self) -> None:
        """Take back everything that attaching the adapters changed, last change first."""
        for adapter in reversed(list(self.values())):
            if isinstance(adapter, Adapter):
                adapter.detach()
        while self._undo:
            self._undo.pop()()


def adapters_of(model: nn.Module) -> AdapterSet | None:
    """The adapters of a TransRec or a Hugging Face encoder; None if it has none."""
    adapters = getattr(model, "adapters", None)
    return adapters if isinstance(adapters, AdapterSet) else None


class ParameterTree(nn.Module):
    """Copies of parameters, under the same dotted names."""

    def __init__(self, originals: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, original in originals.items():
            *path, field = name.split(".")
            parent: nn.Module = self
            for part in path:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.register_parameter(field, nn.Parameter(original.detach().clone()))
