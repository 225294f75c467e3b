"""Training steps with PEFT's methods in the item encoder, beside this project's LoRA of rank 8.

Backbones of base width with random weights, their first layers, in the number format that is the fastest
here. All methods of a backbone take the same steps in turns; batches are read beforehand. Seconds are those
of the processor, on one thread, so that other work on the machine counts for little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from statistics import median

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.adapters.peft import TESTED, PeftConfig
from adapter4rec.data.batches import TrainingSet
from adapter4rec.models.image_encoder import ImageItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.training.step import train_step
from adapter4rec.utils.errors import UserError, nearest, run_main
from benchmarks.image_step import image_course
from benchmarks.measuring import Measurement, arguments, in_turns, parsed, report
from benchmarks.models import BACKBONES, DIM, domain_folder, read_domain
from benchmarks.steps import ProjectSteps, examples_of

_OWN = "LoRA of this project"
_RANK = 8
KINDS = [kind for kind in BACKBONES if kind != "xlm-roberta"]  # computes as roberta does


def _backbone(kind: str, layers: int) -> PreTrainedModel:
    """A backbone by model type, with random weights from a fixed seed."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:layers]
    if kind == "vit_mae":
        config.mask_ratio = 0.0
    return AutoModel.from_config(config, attn_implementation="sdpa")


def _model(backbone: PreTrainedModel, adapter: AdapterConfig) -> TransRec:
    """A model with adapters on a copy of the backbone."""
    own, is_text = deepcopy(backbone), BACKBONES[backbone.config.model_type] == "text"
    encoder = TextItemEncoder(own, DIM) if is_text else ImageItemEncoder(own, DIM, 8)
    model = TransRec(encoder, TransformerUserEncoder(DIM, 20 if is_text else 10, 2, 2, 0.1), "sasrec")
    add_adapters(model, adapter, seed=0)
    return model.train()


def _seconds(kind: str, layers: int, examples: TrainingSet, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, by method."""
    backbone, batches = _backbone(kind, layers), [examples[1, number] for number in range(rounds + 1)]
    own = LoraConfig(encoders=("item",), item_rank=_RANK, lora_alpha=_RANK)
    configs: dict[str, AdapterConfig] = {_OWN: own, **{name: PeftConfig(peft=name) for name in TESTED}}

    def steps(config: AdapterConfig) -> Callable[[], float]:
        taken, numbers = ProjectSteps(_model(backbone, config), examples, "auto"), iter(range(rounds + 1))

        def step() -> float:
            number = next(numbers)
            return train_step(taken.setup, batches[number], (1, 1, number))

        return step

    return in_turns({name: steps(config) for name, config in configs.items()}, rounds, time.process_time)


def _ratios(taken: dict[str, list[float]]) -> dict[str, float]:
    """The median of a method's time relative to that of this project's LoRA in the same turn, by method."""
    return {
        name: median(one / own for one, own in zip(seconds, taken[_OWN], strict=True))
        for name, seconds in taken.items()
        if name != _OWN
    }


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, batch=32, image_batch=2, layers=2, rounds=3)
    parser.set_defaults(threads=1)
    parser.add_argument("--backbones", nargs="+", default=KINDS, metavar="KIND", help="default: all")
    options = parsed(parser)
    for kind in options.backbones:
        if kind not in KINDS:
            raise UserError(f"--backbones {kind}: unknown; {nearest(kind, KINDS)}")
    return options


def main() -> None:
    """Run the benchmark."""
    options = _options()
    rows = []
    for kind in options.backbones:
        if BACKBONES[kind] == "text":
            examples = examples_of(*read_domain(domain_folder(), 20), options.batch)
        else:
            sizes = argparse.Namespace(batch=options.image_batch, layers=options.layers)
            examples = image_course(sizes).examples
        taken = _seconds(kind, options.layers, examples, options.rounds)
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in _ratios(taken).items())
        rows.append(Measurement(f"{kind}, {_OWN}", median(taken[_OWN]), more={"relative to it": ratios}))
        print(f"{kind}: {ratios}", flush=True)
    about = {"users (texts)": options.batch, "users (images)": options.image_batch, "layers": options.layers}
    report("peft_step", rows, about)


if __name__ == "__main__":
    run_main(main)
