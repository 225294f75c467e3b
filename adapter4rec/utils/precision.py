"""Training precision (fp32, bf16, fp16). Evaluation always uses float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from adapter4rec.utils.errors import UserError


@dataclass(frozen=True)
class Precision:
    """Autocast to ``dtype`` on a device; with float32, autocast is off."""

    name: str
    dtype: torch.dtype
    device_type: str

    def autocast(self) -> AbstractContextManager:
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
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
        shadowed = [
            (module, name)
            for module in (linear if self.dtype != torch.float32 else ())
            for name in ("weight", "bias")
            if _may_be_copied(module, name, whole)
        ]
        for module, name in shadowed:
            # An instance attribute takes precedence over a registered parameter (nn.Module.__getattr__).
            vars(module)[name] = getattr(module, name).detach().to(self.dtype)
        try:
            yield
        finally:
            for module, name in shadowed:
                del vars(module)[name]

    def scaler(self) -> torch.amp.GradScaler:
        """Gradient scaler for fp16; disabled in the other precisions."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype == torch.float16)


@contextmanager
def original_weights(model: nn.Module) -> Iterator[None]:
    """Undo :meth:`Precision.frozen_weights` inside the block: linear layers use their own weights."""
    taken = [
        (module, name, vars(module).pop(name))
        for module in model.modules()
        if isinstance(module, nn.Linear)
        for name in ("weight", "bias")
        if name in vars(module) and vars(module)[name].dtype != module._parameters[name].dtype
    ]
    try:
        yield
    finally:
        for module, name, copy in taken:
            vars(module)[name] = copy


def _may_be_copied(module: nn.Module, name: str, whole: bool) -> bool:
    parameter = module._parameters.get(name)
    frozen = parameter is not None and (whole or not parameter.requires_grad)
    return frozen and name not in vars(module)


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision ``name`` on ``device``.

    ``auto`` is bf16 if the device supports it, fp16 on older GPUs, else fp32.

    Raises:
        UserError: fp16 on a CPU.
    """
    if name == "auto":
        name = _best(device)
    if name == "fp16" and device.type == "cpu":
        raise UserError("--precision fp16: requires a GPU; use bf16 or fp32 on a CPU")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return Precision(name, dtypes[name], device.type)


def _best(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    abilities = torch.cpu.get_capabilities()
    has_bf16 = any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # "bf16" is ARM
    return "bf16" if has_bf16 else "fp32"
