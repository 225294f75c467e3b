"""Training steps with PEFT's methods in the item encoder, beside this project's LoRA of the same rank.

Backbones of base width with random weights, the first ``--layers`` layers, in the number format that is the
fastest here. All methods of a backbone take their steps in turns.
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoConfig, AutoModel

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.peft import TESTED, PeftConfig
from adapter4rec.data.batches import TrainingSet
from adapter4rec.models.image_encoder import ImageItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.errors import run_main
from benchmarks.image_step import image_course
from benchmarks.measuring import Measurement, medians, options_of, report
from benchmarks.models import BACKBONES, DIM, domain_folder, read_domain
from benchmarks.steps import ProjectSteps, examples_of, taken_in_turns

_RANK = 8
_OWN = "this project's LoRA"


def _model(kind: str, layers: int, adapter: AdapterConfig) -> TransRec:
    """A model on a backbone by model type, with random weights from a fixed seed."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:layers]
    if kind == "vit_mae":
        config.mask_ratio = 0.0
    backbone = AutoModel.from_config(config, attn_implementation="sdpa")
    is_text = BACKBONES[kind] == "text"
    encoder = TextItemEncoder(backbone, DIM) if is_text else ImageItemEncoder(backbone, DIM, 8)
    users = TransformerUserEncoder(DIM, 20 if is_text else 10, 2, 2, 0.1)
    model = TransRec(encoder, users, "sasrec")
    add_adapters(model, adapter, seed=0)
    return model.train()


def _seconds(kind: str, examples: TrainingSet, options: argparse.Namespace) -> dict[str, float]:
    """Seconds a step, by method."""
    own = LoraConfig(encoders=("item",), item_rank=_RANK, lora_alpha=_RANK)
    configs: dict[str, AdapterConfig] = {_OWN: own, **{name: PeftConfig(peft=name) for name in TESTED}}
    arms = {
        name: ProjectSteps(_model(kind, options.layers, config), examples, "auto")
        for name, config in configs.items()
    }
    return medians(taken_in_turns(arms, options.rounds))


def main() -> None:
    """Run the benchmark."""
    options = options_of(__doc__, batch=4, layers=4, rounds=5)
    texts = examples_of(*read_domain(domain_folder(), 20), options.batch)
    images = image_course(options).examples
    rows = []
    for kind, modality in BACKBONES.items():
        seconds = _seconds(kind, texts if modality == "text" else images, options)
        rows += [
            Measurement(f"{kind}, {name}", taken, more={"relative to LoRA": f"{taken / seconds[_OWN]:.2f}"})
            for name, taken in seconds.items()
        ]
    report("peft_step", rows, {"users per step": options.batch, "layers": options.layers})


if __name__ == "__main__":
    run_main(main)
