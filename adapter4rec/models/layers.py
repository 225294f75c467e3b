"""Reading the outputs of a backbone's layers, and going on from outputs that are known already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapter4rec.models.layouts import LAYOUTS

_COMPILED_FORMS = 256
"""Layers are compiled one by one from the same lines of code, in training and in evaluation."""


def layers_of(backbone: PreTrainedModel) -> nn.ModuleList:
    """The layers of a Hugging Face encoder, first to last."""
    return backbone.get_submodule(LAYOUTS[backbone.config.model_type].layers)


def compile_layers(
    backbone: PreTrainedModel, *, after: Sequence[int] = (), backend: str | Callable = "inductor"
) -> None:
    """Let torch compile each layer, once for all numbers of tokens.

    Args:
        backbone: a Hugging Face encoder.
        after: layers whose outputs are known; none is compiled up to the last of them.
        backend: torch's, or one for tests.
    """
    torch._dynamo.config.recompile_limit = _COMPILED_FORMS
    # Layers differ in their hooks: those of adapters, and that which lets first tokens alone go on.
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    for layer in list(layers_of(backbone))[max(after, default=-1) + 1 :]:
        layer.compile(dynamic=True, backend=backend)


@contextmanager
def outputs_read(backbone: PreTrainedModel, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Yield a place where each call of the backbone leaves the outputs of some layers.

    Adapters that change a layer's output do so behind that.
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
def outputs_known(backbone: PreTrainedModel, outputs: Mapping[int, Tensor]) -> Iterator[None]:
    """Let layers give these outputs; up to the last of them no layer computes anything.

    Args:
        backbone: a Hugging Face encoder.
        outputs: by layer, ``[batch, places, h]``, in the number format in which they are kept.
    """
    skipped = list(layers_of(backbone))[: max(outputs) + 1]
    for number, layer in enumerate(skipped):
        # An attribute of the object itself is found before the class's; hooks of the layer stay in force.
        vars(layer)["forward"] = _giving(outputs.get(number))
    try:
        yield
    finally:
        for layer in skipped:
            del vars(layer)["forward"]


def _giving(output: Tensor | None) -> Callable[..., Tensor]:
    def give(hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        if output is None:
            return hidden_states
        device = output.device.type
        used = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        return output.to(used)

    return give
