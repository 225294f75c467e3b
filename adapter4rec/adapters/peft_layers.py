"""The adapter of a PEFT method: PEFT's own layers in place of modules of the backbone."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapter4rec.adapters.base import Adapter
from adapter4rec.adapters.peft import TESTED, PeftConfig, parsed
from adapter4rec.adapters.peft_trial import fault_of
from adapter4rec.adapters.sites import Projection, Sites, Undo
from adapter4rec.utils.errors import UserError, nearest
from adapter4rec.utils.files import atomic_folder

if TYPE_CHECKING:
    import peft

_TYPES = {"dora": "LORA"}
"""Names of methods that are options of another one in PEFT."""


class PeftAdapter(Adapter):
    """The parameters that a method of PEFT adds to the backbone, under ``modules``, and its layers.

    PEFT's layers are modules of the backbone, so every way in which it is called calls them: padded, packed,
    from cached states, and with copies of frozen weights in 16 bits.
    """

    def __init__(self, config: PeftConfig, sites: Sites) -> None:
        super().__init__()
        library, self._name = _peft(), config.peft
        options = _options(library, config, sites)
        encoder, training = sites.encoder, sites.encoder.training
        own = dict(encoder.named_parameters())
        checked = config.peft not in TESTED or config.peft_options is not None
        values = {name: one.detach().clone() for name, one in own.items()} if checked else {}
        self.attach(_restoring(encoder))
        try:
            with _quiet(UserWarning if checked else None):
                # In a list, so that it is not registered a second time.
                self._wrapped = [library.get_peft_model(encoder, options, autocast_adapter_dtype=False)]
        except Exception as error:  # PEFT raises errors of any type for what it cannot adapt
            self.detach()
            raise UserError(f"{_given(config)}: PEFT cannot adapt the backbone: {error}") from None
        encoder.train(training)
        known = {id(parameter) for parameter in own.values()}
        added = {name: p for name, p in encoder.named_parameters() if id(p) not in known and p.requires_grad}
        fault = _changes(own, values) or ("" if added else "trains nothing, which is not supported")
        if checked and not fault:
            fault = fault_of(sites, added.values()) or ""
        if fault:
            self.detach()
            raise UserError(f"{_given(config)}: {fault}")
        for name, parameter in added.items():
            self.register(f"modules_of_peft.{name}", parameter)

    def save_native(self, folder: Path) -> None:
        """Save the folder that ``PeftModel.from_pretrained`` loads, in place of an older one.

        It is not written if layer norms are trained, for which it has no place.
        """
        if (folder / "adapter_config.json").is_file():
            shutil.rmtree(folder)
        if any(name.startswith("layer_norms") for name in self.copies):
            return
        with atomic_folder(folder) as aside, _quiet():
            self._wrapped[0].save_pretrained(str(aside), save_embedding_layers=False)

    @torch.no_grad()
    def merged_weights(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each weight of the backbone that merging changes, with its merged value.

        Raises:
            UserError: PEFT cannot merge the method.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        model = self._wrapped[0]
        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        own = [dict(layer.get_base_layer().named_parameters()) for layer in layers]
        before = {one: one.clone() for parameters in own for one in parameters.values()}
        try:
            model.merge_adapter()
            merged = [dict(layer.get_base_layer().named_parameters()) for layer in layers]
            new = [
                (parameter, after[name].clone())
                for parameters, after in zip(own, merged, strict=True)
                for name, parameter in parameters.items()
            ]
            model.unmerge_adapter()
        except Exception as error:  # PEFT raises errors of any type
            raise UserError(f"--peft {self._name}: PEFT cannot merge it: {error}") from None
        finally:
            for parameter, value in before.items():  # bit for bit
                parameter.copy_(value)
        yield from ((one, value) for one, value in new if not torch.equal(one, value))


def _given(config: PeftConfig) -> str:
    """The options of the command line, for a message."""
    options = f" --peft_options {','.join(config.peft_options)}" if config.peft_options else ""
    return f"--peft {config.peft}{options}"


def _changes(own: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> str:
    """What PEFT has done to parameters of the backbone, which is undone; empty if nothing.

    Args:
        own: the parameters, which were frozen.
        values: their values before.
    """
    changed = [name for name, value in values.items() if not torch.equal(own[name], value)]
    trained = [name for name, parameter in own.items() if parameter.requires_grad]
    with torch.no_grad():
        for name in changed:
            own[name].copy_(values[name])
    for name in trained:
        own[name].requires_grad_(False)
    if not changed and not trained:
        return ""
    return f"{'trains' if trained else 'changes'} weights of the backbone in place, which is not supported"


def _peft() -> Any:
    """The library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise UserError("--method peft: PEFT is not installed; install it with: pip install peft") from None
    return peft


def _options(library: Any, config: PeftConfig, sites: Sites) -> peft.PeftConfig:
    """The config of PEFT.

    Raises:
        UserError: PEFT does not know the method, or the method not an option, or it adds tokens.
    """
    kinds = {kind.value.lower(): kind for kind in library.PeftType}
    kind = _TYPES.get(config.peft, config.peft).lower()
    if kind not in kinds:
        raise UserError(
            f"--peft {config.peft}: PEFT has no such method; {nearest(config.peft, [*kinds, *_TYPES])}"
        )
    try:
        build = type(library.get_peft_config({"peft_type": kinds[kind].value}))
    except Exception as error:  # methods that cannot be configured without further options
        raise UserError(f"--peft {config.peft}: PEFT cannot configure it: {error}") from None
    if issubclass(build, library.PromptLearningConfig):
        raise UserError(
            f"--peft {config.peft}: adds tokens through PEFT's own model classes, which are not used here; "
            "use --method prompt"
        )
    known = {one.name for one in fields(build)}
    given = parsed("peft_options", config.peft_options)
    for name in given:
        if name not in known:
            raise UserError(
                f"--peft_options {name}: {config.peft} has no such option; {nearest(name, [*known])}"
            )
    values = {name: value for name, value in _targets(config, sites).items() if name in known} | given
    if config.peft == "dora":
        values["use_dora"] = True
    try:
        return build(**values)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise UserError(f"{_given(config)}: {error}") from None


def _targets(config: PeftConfig, sites: Sites) -> dict[str, list[str]]:
    """The names of the modules that a method replaces."""
    layers, layout = list(config.layers_of(sites).values()), sites.layout
    if config.peft == "ln_tuning":
        norms = [name.rpartition(".")[0] for name in sites.layer_norms_of(layers)]
        return {"target_modules": list(dict.fromkeys(norms))}
    paths = {id(module): name for name, module in sites.encoder.named_modules()}

    def names(kind: tuple[str, ...]) -> list[str]:
        return [
            f"{paths[id(layer.module)]}.{Projection(layer.module, kind, layout.fused).name}"
            for layer in layers
        ]

    if config.peft == "ia3":
        down = names(layout.down)
        attention = names(layout.key) + names(layout.value)
        return {"target_modules": list(dict.fromkeys(attention + down)), "feedforward_modules": down}
    return {"target_modules": list(dict.fromkeys(names(layout.query) + names(layout.value)))}


def _restoring(encoder: nn.Module) -> Undo:
    """What puts the modules of an encoder back in place."""
    children = [(owner, name, child) for owner in encoder.modules() for name, child in owner.named_children()]

    def restore() -> None:
        for owner, name, child in children:
            setattr(owner, name, child)
        if "peft_config" in vars(encoder):
            del encoder.peft_config

    return restore


@contextmanager
def _quiet(shown: type[Warning] | None = None) -> Iterator[None]:
    """Ignore warnings, except those of a kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if shown is not None:
            warnings.simplefilter("default", shown)
        yield
