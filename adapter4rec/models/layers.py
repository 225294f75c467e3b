"""Reading the outputs of a backbone's layers, and resuming a forward pass from cached outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapter4rec.models.layouts import LAYOUTS
from adapter4rec.utils.modules import shadow

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def layers_of(backbone: PreTrainedModel) -> nn.ModuleList:
    """The layers of a Hugging Face encoder, first to last."""
    return backbone.get_submodule(LAYOUTS[backbone.config.model_type].layers)


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether forward hooks read or change the output of a module. PyTorch has no public query for this."""
    return bool(module._forward_hooks)


def compile_layers(
    backbone: PreTrainedModel, *, after: Sequence[int] = (), backend: str | Callable = "inductor"
) -> None:
    """Compile each layer with ``torch.compile`` and dynamic shapes.

    Args:
        backbone: a Hugging Face encoder.
        after: layers whose outputs are cached; layers up to the last of them are not compiled.
        backend: of ``torch.compile``.
    """
    # All layers share one code object, but differ in their hooks: those of adapters, and that which selects
    # first tokens. So each is compiled for itself.
    for layer in list(layers_of(backbone))[max(after, default=-1) + 1 :]:
        layer.compile(dynamic=True, backend=backend, isolate_recompiles=True)


@contextmanager
def record_outputs(backbone: PreTrainedModel, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Record the outputs of some layers, before adapters change them.

    Yields:
        A dictionary from layer index to output, updated by each call of the backbone.
    """
    found: dict[int, Tensor] = {}
    handles = [
        layers_of(backbone)[number].register_forward_hook(
            lambda _, __, output, number=number: found.__setitem__(number, output), prepend=True
        )
        for number in layers
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replace_outputs(backbone: PreTrainedModel, outputs: Mapping[int, Tensor]) -> Iterator[None]:
    """Replace the outputs of some layers by cached ones; layers up to the last of them are skipped.

    Args:
        backbone: a Hugging Face encoder.
        outputs: by layer index, ``[batch, positions, h]``, in the number format of the cache.
    """
    skipped = list(layers_of(backbone))[: max(outputs) + 1]
    undo = [
        shadow(layer, "forward", _forward_returning(outputs.get(number)))  # hooks still run
        for number, layer in enumerate(skipped)
    ]
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _forward_returning(output: Tensor | None) -> Callable[..., Tensor]:
    def forward(hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        if output is None:
            return hidden_states
        device = output.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        return output.to(dtype)

    return forward
