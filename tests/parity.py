"""``python -m tests.parity FOLDER``: compare with reference values of the released implementation.

A case is a JSON file with a small model, its inputs and the reference outputs. For each case one line is
printed: ``NAME ok DEVIATION``, ``NAME off WHAT DEVIATION`` or ``NAME unsupported REASON``. Deviations are
relative to the tolerance.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from adapter4rec.adapters.attaching import add_adapters, copied_parameters
from adapter4rec.adapters.config import PAPER, RELEASE, AdapterConfig
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.checkpoints.released import converted, load_released_target, renamed
from adapter4rec.data.batches import IdBatch, make_batch
from adapter4rec.data.content import ContentStore
from adapter4rec.data.images.store import Pixels
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.models.image_encoder import ImageItemEncoder
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.parameters import train_only
from adapter4rec.models.parts import ADAPTER_PARTS, PARTS
from adapter4rec.models.registry import OBJECTIVES
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.errors import UserError, run_main
from adapter4rec.utils.settings import options_of

_MODEL_TYPES = {
    ("text", "bert"): "bert",
    ("text", "roberta"): "roberta",
    ("text", "xlm-roberta"): "xlm-roberta",
    ("image", "vit"): "vit",
    ("image", "mae"): "vit_mae",
}
_ITEM_ENCODERS: dict[str, Callable[[PreTrainedModel, int], ContentItemEncoder]] = {
    "text": TextItemEncoder,
    "image": partial(ImageItemEncoder, images_at_once=64),
}
_OPTIONS = {
    "item_bottleneck": "item_bottleneck",
    "user_bottleneck": "user_bottleneck",
    "item_rank": "item_bottleneck",
    "user_rank": "user_bottleneck",
    "divisions": "hypercomplex_division",
    "prompt_tokens": "n_tokens",
    "item_inner": "k_adapter_hidden",
    "item_inner_heads": "k_adapter_item_heads",
    "user_inner": "user_bottleneck",
    "user_inner_heads": "k_adapter_user_heads",
}
"""Names of adapter options in the hyperparameters of a case."""
_EMBEDDING_TOLERANCE = 2e-5
_LOSS_TOLERANCE = 1e-5
_GRADIENT_TOLERANCE = 1e-4
_NORM_FLOOR = 1e-3

Case = dict[str, Any]


@dataclass(frozen=True)
class Deviation:
    """Deviation from a reference value, relative to the tolerance; at most 1 to pass."""

    what: str
    size: float


def reference_value(name: str, shape: list[int], scale: dict[str, float]) -> Tensor:
    """The value of a released parameter, generated from a seed derived from its name.

    Args:
        name: of the parameter.
        shape: of the parameter.
        scale: factors by suffix of the name.
    """
    key = "phm_rule" if name.endswith("phm_rule") else name
    generator = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    value = (generator.standard_normal(shape) * 0.05).astype(np.float32)
    lower = name.lower()
    if name.endswith("weight") and any(part in lower for part in ("layernorm", "layer_norm", ".ln.")):
        value += np.float32(1)
    for ending, factor in scale.items():
        if name.endswith(ending):
            value *= np.float32(factor)
    return torch.from_numpy(value)


def reference_state(case: Case) -> dict[str, Tensor]:
    """The released ``model_state_dict`` of a case."""
    return {
        name: reference_value(name, shape, case.get("scale") or {}) for name, shape in case["state"].items()
    }


def build(case: Case) -> TransRec:
    """The model of a case with its weights, in eval mode; its trained parameters require gradients.

    Raises:
        UserError: the case needs what is not supported, or the weights do not match.
    """
    sizes = case["hyperparameters"]
    if case["objective"] not in OBJECTIVES:
        raise UserError(f"objective {case['objective']!r}")
    user_encoder = TransformerUserEncoder(
        sizes["embedding_dim"], sizes["max_seq_len"], sizes["user_heads"], sizes["user_layers"], dropout=0.0
    )
    backbone = _backbone(case)
    item_encoder = _ITEM_ENCODERS[case["modality"]](backbone, sizes["embedding_dim"])
    model = TransRec(item_encoder, user_encoder, case["objective"])
    if case["adapter"] not in (None, "none"):
        add_adapters(model, _adapter(case))
        if case["backbone"] == "mae":
            _mask(model.item_encoder.backbone.config, sizes)  # released variants override mask_ratio
    load_released_target(model, converted(reference_state(case)), Path("the state"))
    train_only(model, ADAPTER_PARTS if len(model.adapters) else PARTS)
    return model.eval()


def _backbone(case: Case) -> PreTrainedModel:
    kind = (case["modality"], case["backbone"].replace("_", "-"))
    if kind not in _MODEL_TYPES:
        raise UserError(f"{case['modality']} backbone {case['backbone']!r}")
    config = AutoConfig.for_model(_MODEL_TYPES[kind], **case["backbone_config"])
    if case["backbone"] == "mae":
        _mask(config, case["hyperparameters"])
        return AutoModel.from_config(config, attn_implementation="sdpa")
    return AutoModel.from_config(config, attn_implementation="sdpa", add_pooling_layer=False)


def _mask(config: PretrainedConfig, sizes: dict[str, Any]) -> None:
    config.mask_ratio = sizes.get("mask_ratio") or 0.0
    if config.mask_ratio:
        raise UserError("no reference values for patches masked at random")


def _adapter(case: Case) -> AdapterConfig:
    name, semantics = case["adapter"], case["semantics"]
    if name not in FAMILIES or semantics not in (PAPER, RELEASE):
        raise UserError(f"adapter {name!r} with the semantics of {semantics!r}")
    config, sizes = FAMILIES[name], case["hyperparameters"]
    options = {option: sizes[name] for option, name in _OPTIONS.items() if option in options_of(config)}
    if name == "k_adapter":
        options["item_layers"] = ",".join(map(str, sizes["k_adapter_layers"]))
        options["released_tokens"] = _text_width(case)
    trained = {renamed(entry) for entry in case["outputs"]["gradients"]}
    trains_head = any(entry.startswith("item_encoder.head.") for entry in trained)
    return config(**options, semantics=semantics, train_head=trains_head)


def _text_width(case: Case) -> int:
    """Number of tokens to which the case pads texts."""
    if "token_ids" not in case["inputs"]:
        return 1
    first = np.asarray([case["inputs"]["token_ids"][0], case["inputs"]["attention_mask"][0]])
    if case["semantics"] == RELEASE and first.any():
        raise UserError("a padding item that is not a masked title of zeros")
    return first.shape[1]


class PixelsInMemory(ContentStore):
    """The images of a case, upscaled from 4 x 4 pixels by nearest neighbour.

    Args:
        pixels_4x4: uint8 ``[N, 3, 4, 4]``, item i at row i - 1.
        size: height and width of the images in pixels.
    """

    def __init__(self, pixels_4x4: np.ndarray, size: int) -> None:
        large = pixels_4x4.repeat(size // 4, axis=2).repeat(size // 4, axis=3)
        self.pixels = torch.from_numpy(large.transpose(0, 2, 3, 1).copy())

    def fetch(self, items: np.ndarray) -> Pixels:
        """Pixels of ``items``."""
        return Pixels(self.pixels[torch.from_numpy(items - 1)])


def content_store(case: Case, config: PretrainedConfig) -> ContentStore:
    """The content of the items 1…n of a case; row 0 of its inputs is the padding item.

    Args:
        case: the case.
        config: of the backbone.
    """
    if "pixels_4x4" in case["inputs"]:
        pixels = np.asarray(case["inputs"]["pixels_4x4"], np.uint8)[1:]
        return PixelsInMemory(pixels, config.image_size)
    mask = np.asarray(case["inputs"]["attention_mask"])[1:].astype(bool)
    tokens = np.asarray(case["inputs"]["token_ids"], np.int32)[1:][mask]
    offsets = np.concatenate([[0], np.cumsum(mask.sum(1))])
    return TextStore([Tokens(tokens, offsets, case["case"])], tokens_at_once=4096)


def compare(case: Case) -> list[Deviation]:
    """Deviations of item embeddings, user embeddings, loss and gradients of a case.

    Raises:
        UserError: see :func:`build`.
    """
    model = build(case)
    store = content_store(case, model.item_encoder.backbone.config)
    outputs = case["outputs"]
    positives = np.asarray(case["inputs"]["positives"], np.int64)
    negatives = np.asarray(case["inputs"]["negatives"], np.int64)[:, :-1]
    log_mask = torch.tensor(case["inputs"]["log_mask"], dtype=torch.bool)
    with torch.no_grad():
        items = model.encode_items(store.fetch(np.arange(1, len(outputs["item_embeddings"]) + 1)))
        rows = torch.cat([items.new_zeros(1, items.shape[1]), items])
        users = model.encode_users(rows[torch.from_numpy(positives[:, 1:])], log_mask)
    ids = IdBatch(positives, negatives[..., None], shared=np.empty(0, np.int64))
    loss = model(make_batch(ids, store, model.positions))
    loss.backward()
    user_difference = (users - torch.tensor(outputs["user_embeddings_next"]))[log_mask]
    limit = _LOSS_TOLERANCE * max(1, abs(outputs["loss"]))
    return [
        _largest("item_embeddings", items - torch.tensor(outputs["item_embeddings"]), _EMBEDDING_TOLERANCE),
        _largest("user_embeddings_next", user_difference, _EMBEDDING_TOLERANCE),
        Deviation("loss", abs(loss.item() - outputs["loss"]) / limit),
        *_gradient_deviations(model, outputs["gradients"]),
    ]


def _largest(what: str, difference: Tensor, tolerance: float) -> Deviation:
    return Deviation(what, difference.abs().max().item() / tolerance)


def _gradient_deviations(model: TransRec, references: dict[str, list[float]]) -> list[Deviation]:
    parameters = dict(model.named_parameters())
    largest = max(norm for _, norm in references.values())
    deviations = []
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    copies = copied_parameters(model)
    for name, (total, norm) in references.items():
        new_name = renamed(name)
        new_name = copies.get(new_name, new_name)
        trained.discard(new_name)
        gradient = parameters[new_name].grad if new_name in parameters else None
        if gradient is None:
            return [Deviation(f"gradient of {name} is missing", float("inf"))]
        tolerance = _GRADIENT_TOLERANCE * max(norm, _NORM_FLOOR * largest)
        off = max(abs(gradient.sum().item() - total), abs(gradient.norm().item() - norm))
        deviations.append(Deviation(f"gradient of {name}", off / tolerance))
    if trained:
        return [Deviation(f"gradient of {min(trained)} has no reference", float("inf"))]
    return deviations


def verdict(case: Case) -> tuple[bool, str]:
    """Whether a case matches, and the line to print."""
    try:
        worst = max(compare(case), key=lambda deviation: (np.isnan(deviation.size), deviation.size))
    except UserError as why:
        return False, f"{case['case']} unsupported {' '.join(str(why).split())}"
    except Exception as error:  # an invalid case must not prevent the comparison of the others
        return False, f"{case['case']} unsupported {type(error).__name__}: {' '.join(str(error).split())}"
    if worst.size <= 1:
        return True, f"{case['case']} ok {worst.size:.3f}"
    return False, f"{case['case']} off {worst.what} {worst.size:.3g}"


def main() -> int:
    """Compare all cases of a folder. Returns 0 if all match, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="folder with the cases, one JSON file each")
    folder = parser.parse_args().folder
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError(f"{folder}: no cases (*.json) found")
    all_match = True
    for file in files:
        matches, line = verdict(_read(file))
        print(line, flush=True)
        all_match &= matches
    return 0 if all_match else 1


def _read(file: Path) -> Case:
    keys = (
        *("case", "modality", "backbone", "objective", "adapter", "semantics"),
        *("backbone_config", "hyperparameters", "state", "inputs", "outputs"),
    )
    case = json.loads(file.read_text("utf-8"))
    if missing := [key for key in keys if key not in case]:
        raise UserError(f"{file}: missing: {', '.join(missing)}")
    return case | {"state": dict(case["state"])}


if __name__ == "__main__":
    run_main(main)
