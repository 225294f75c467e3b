"""Trying out a method of PEFT that the tests do not cover, before anything is trained with it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from adapter4rec.adapters.sites import Sites
from adapter4rec.data.packing import Packing
from adapter4rec.models.backbones import first_position, image_size, patch_size
from adapter4rec.models.layouts import Reads
from adapter4rec.models.packed_attention import text_states

_LENGTHS = np.array([3, 5])
_TOLERANCE = 1e-4


@torch.no_grad()
def fault_of(sites: Sites, added: Collection[nn.Parameter]) -> str | None:
    """Why a backbone cannot be used with what PEFT added to it; None if it can.

    Two random texts or images are encoded together and alone. The state of an item must not depend on others,
    since each item is encoded once for a whole batch, and in other batches for the catalogue.

    Args:
        sites: of the backbone, which has PEFT's layers. On the meta device nothing is tried.
        added: the parameters that PEFT added. They are changed for the trial, since most methods leave all
            states as they are at the start.
    """
    encoder = sites.encoder
    assert isinstance(encoder, PreTrainedModel)
    if encoder.device.type == "meta":
        return None
    training = encoder.training
    encoder.train(False)
    before = [parameter.clone() for parameter in added]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for parameter in added:
                parameter.add_(torch.randn(parameter.shape).to(parameter), alpha=0.1)
            encode = _texts if sites.layout.reads is Reads.WORDS else _images
            together, alone = encode(encoder)
    except Exception as error:  # PEFT's layers raise errors of any type
        return f"PEFT's layers cannot encode an item: {error}"
    finally:
        encoder.train(training)
        for parameter, value in zip(added, before, strict=True):
            parameter.copy_(value)
    if (together - alone).norm() > _TOLERANCE * alone.norm():
        return "the state of an item depends on the other items of its batch, which is not supported"
    return None


def _texts(encoder: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """States of two texts in one pack, and of each in its own, ``[2, h]``."""
    words = torch.randn(int(_LENGTHS.sum()), encoder.config.hidden_size).to(encoder.device, encoder.dtype)

    def states(some: Tensor, lengths: np.ndarray) -> Tensor:
        packing = Packing.of(lengths).to(encoder.device)
        return text_states(encoder, some, first_position(encoder.config) + packing.places, packing)

    parts = zip(torch.split(words, _LENGTHS.tolist()), _LENGTHS, strict=True)
    return states(words, _LENGTHS), torch.cat([states(some, np.array([length])) for some, length in parts])


def _images(encoder: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """States of two images in one batch, and of each in its own, ``[2, patches, h]``."""
    size = image_size(encoder.config)
    pixels = torch.randn(2, encoder.config.num_channels, size, size).to(encoder.device, encoder.dtype)

    def states(some: Tensor) -> Tensor:
        patches = (size // patch_size(encoder.config)) ** 2
        order = {"noise": torch.arange(patches).expand(len(some), -1).to(pixels)}  # ViTMAE masks by it
        output = encoder(pixel_values=some, **(order if encoder.config.model_type == "vit_mae" else {}))
        last: Tensor = output.last_hidden_state
        return last

    return states(pixels), torch.cat([states(one) for one in torch.split(pixels, 1)])
