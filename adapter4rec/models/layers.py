"""Reading the outputs of a backbone's layers, and resuming a forward pass from cached outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapter4rec.models.layouts import LAYOUTS
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.modules import shadow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Backend = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., object]]


def layers_of(backbone: PreTrainedModel) -> nn.ModuleList:
    """The layers of a Hugging Face encoder, first to last."""
    layers = backbone.get_submodule(LAYOUTS[backbone.config.model_type].layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether forward hooks read or change the output of a module."""
    handle = module.register_forward_hook(lambda *_: None)
    hooks = handle.hooks_dict_ref()  # all hooks of the module; PyTorch has no other public access to them
    handle.remove()
    return bool(hooks)


def can_compile_layers() -> bool:
    """Whether this version of PyTorch can compile the layers one by one (2.14 can)."""
    return "isolate_recompiles" in inspect.signature(torch.compile).parameters


def compile_layers(
    backbone: PreTrainedModel, *, after: Sequence[int] = (), backend: str | Backend = "inductor"
) -> None:
    """Compile each layer with ``torch.compile`` and dynamic shapes.

    Args:
        backbone: a Hugging Face encoder.
        after: layers whose outputs are cached; layers up to the last of them are not compiled.
        backend: of ``torch.compile``.

    Raises:
        UserError: this version of PyTorch cannot compile the layers one by one.
    """
    if not can_compile_layers():
        raise UserError(
            f"--compile true: PyTorch {torch.__version__} is too old; upgrade to 2.14, or omit it"
        )
    # All layers share one code object, but differ in their hooks: those of adapters, and that which selects
    # first tokens. torch.compile does not look at hooks, so each layer needs compiled code of its own.
    for layer in list(layers_of(backbone))[max(after, default=-1) + 1 :]:
        layer.compile(dynamic=True, backend=backend, isolate_recompiles=True)


def layer_outputs(backbone: PreTrainedModel, layers: Sequence[int], forward: Callable[[], object]) -> Tensor:
    """The outputs of some layers, before adapters change them.

    Args:
        backbone: a Hugging Face encoder.
        layers: indices of the layers.
        forward: calls the backbone once.

    Returns:
        ``[batch, positions, layers, h]``.
    """
    found: dict[int, Tensor] = {}

    def keep(number: int, _: nn.Module, __: object, output: Tensor) -> None:
        found[number] = output

    with ExitStack() as hooks:
        for number in layers:
            hook = partial(keep, number)
            hooks.callback(layers_of(backbone)[number].register_forward_hook(hook, prepend=True).remove)
        forward()
    return torch.stack([found[number] for number in layers], dim=2)


@contextmanager
def replace_outputs(backbone: PreTrainedModel, layers: Sequence[int], states: Tensor) -> Iterator[None]:
    """Replace the outputs of some layers by cached ones; layers up to the last of them are skipped.

    Args:
        backbone: a Hugging Face encoder.
        layers: indices of the layers.
        states: their outputs, ``[batch, positions, layers, h]``, in the number format of the cache.
    """
    outputs = dict(zip(layers, states.unbind(2), strict=True))
    with ExitStack() as undo:
        for number, layer in enumerate(list(layers_of(backbone))[: max(layers) + 1]):
            undo.callback(shadow(layer, "forward", partial(_cached, outputs.get(number))))  # hooks still run
        yield


def _cached(output: Tensor | None, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
    """The forward pass of a layer that returns a cached output, or its input if None is cached."""
    if output is None:
        return hidden_states
    device = output.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    return output.to(dtype)
