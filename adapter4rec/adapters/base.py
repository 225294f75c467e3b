"""What all adapters share: attaching to an encoder's sites, and detaching again."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from torch import nn

from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.sites import Undo
from adapter4rec.models.parts import ADAPTER, ParameterGroups, merge_groups
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.modules import shadow


class Attached:
    """Has attached something to a model, which it can take back."""

    def __init__(self) -> None:
        super().__init__()
        self._attached = ExitStack()

    def attach(self, undo: Undo) -> None:
        """Register what takes back an attachment."""
        self._attached.callback(undo)

    def detach(self) -> None:
        """Take back all attachments, last one first. The model is then as it was before."""
        self._attached.close()


class Adapter(Attached, nn.Module):
    """The adapter of one encoder: its own modules, and what it attached to the encoder's sites.

    The constructor of a family's subclass builds the modules and attaches them. It raises errors before it
    attaches anything.

    Attributes:
        groups: parameter group of each child (a module or a parameter) that is not in the group ``adapter``,
            by its name.
        copies: parameters that the encoder computes with instead of its own: the module that has the
            original, and the original's name in it, by the copy's name in the adapter. The module need not
            have the original: a projection without bias may get one.
    """

    def __init__(self, *_: object) -> None:
        """Build nothing: a plain adapter consists of copies, whatever its config and sites are."""
        super().__init__()
        self.groups: dict[str, str] = {}
        self.copies: dict[str, tuple[nn.Module, str]] = {}

    def parameter_groups(self) -> ParameterGroups:
        """All parameters by name, in the group ``adapter`` or that given by ``groups``."""
        found: ParameterGroups = {}
        for name, parameter in self.named_parameters():
            found.setdefault(self.groups.get(name.split(".")[0], ADAPTER), {})[name] = parameter
        return found

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
        for name in names:
            copy = nn.Parameter(module.get_parameter(name).detach().clone())
            self.register(f"{field}.{name}", copy)
            path, _, last = name.rpartition(".")
            self.attach(shadow(module.get_submodule(path), last, copy))
            self.copies[f"{field}.{name}"] = (module, name)

    def register(self, name: str, parameter: nn.Parameter) -> None:
        """Register a parameter by a name with dots, in a tree of modules that is made for it."""
        parent: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.register_parameter(last, parameter)

    def save_native(self, folder: Path) -> None:
        """Save the adapter in the format of the library that computes it, if there is one, to ``folder``."""


class AdapterSet(Attached, nn.ModuleDict):
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

    @property
    def by_name(self) -> dict[str, Adapter]:
        """The adapters."""
        return {name: adapter for name, adapter in self.items() if isinstance(adapter, Adapter)}

    @property
    def base(self) -> dict[str, nn.Parameter]:
        """The parameters of the model without the adapters, by name."""
        return {name: one for parameters in self.base_groups.values() for name, one in parameters.items()}

    def parameter_groups(self) -> ParameterGroups:
        """All parameters by name, in the groups that the adapters declare."""
        return merge_groups({name: one.parameter_groups() for name, one in self.by_name.items()})

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled: hooks would refer to the original.

        Raises:
            UserError: always.
        """
        raise UserError(
            "a model with adapters cannot be copied or pickled: save_adapter and detach_adapters, copy, "
            "and load_adapter on the copy"
        )


def adapters_of(model: nn.Module) -> AdapterSet | None:
    """The adapters of a TransRec or a Hugging Face encoder; None if it has none."""
    adapters = getattr(model, "adapters", None)
    return adapters if isinstance(adapters, AdapterSet) else None
