"""Number formats of training and evaluation: fp32, bf16, fp16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from adapter4rec.utils.errors import UserError
from adapter4rec.utils.modules import shadow


@dataclass(frozen=True)
class Precision:
    """Autocast to ``dtype`` on a device; with float32, autocast is off."""

    name: str
    dtype: torch.dtype
    device_type: str

    def autocast(self) -> AbstractContextManager[object]:
        """Context manager for the forward pass."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    @contextmanager
    def frozen_weights(self, model: nn.Module, *, whole: bool = False) -> Iterator[None]:
        """Let linear layers use cached copies of their frozen weights in this precision.

        Autocast would cast the weights at each call and keep all casts for the backward pass. The
        parameters themselves are not changed.

        Args:
            model: the model.
            whole: also copy trainable weights.
        """
        undo = []
        for module in model.modules() if self.dtype != torch.float32 else ():
            for name, parameter in _linear_parameters(module).items():
                # What an adapter has replaced already stays.
                if name not in vars(module) and (whole or not parameter.requires_grad):
                    undo.append(shadow(module, name, parameter.detach().to(self.dtype)))
        try:
            yield
        finally:
            for restore in undo:
                restore()

    def scaler(self) -> torch.amp.GradScaler:
        """Gradient scaler for fp16; disabled in the other precisions."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype == torch.float16)


@contextmanager
def original_weights(model: nn.Module) -> Iterator[None]:
    """Undo :meth:`Precision.frozen_weights` inside the block: linear layers use their own weights."""
    copies = [
        (module, name, vars(module)[name])
        for module in model.modules()
        for name, parameter in _linear_parameters(module).items()
        if name in vars(module) and vars(module)[name].dtype != parameter.dtype
    ]
    for module, name, _ in copies:
        vars(module).pop(name)
    try:
        yield
    finally:
        for module, name, copy in copies:
            shadow(module, name, copy)


def _linear_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Weight and bias of a linear layer, by name; none of other modules."""
    if not isinstance(module, nn.Linear):
        return {}
    own = dict(module.named_parameters(recurse=False))
    return {name: own[name] for name in ("weight", "bias") if name in own}


def choose_precision(name: str, device: torch.device, option: str = "precision") -> Precision:
    """The precision ``name`` on ``device``.

    ``auto`` is bf16 if the device supports it, fp16 on older GPUs, else fp32.

    Args:
        name: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: the device.
        option: the setting that has the name, for messages.

    Raises:
        UserError: fp16 on a CPU.
    """
    if name == "auto":
        name = _best(device)
    if name == "fp16" and device.type == "cpu":
        raise UserError(f"--{option} fp16: requires a GPU; use bf16 or fp32 on a CPU")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return Precision(name, dtypes[name], device.type)


def _best(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    abilities = torch.cpu.get_capabilities()
    has_bf16 = any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # "bf16" is ARM
    return "bf16" if has_bf16 else "fp32"
