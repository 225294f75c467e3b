"""The side of AdapterHub's library: compare what it computes with our adapters, and save some of its own.

Run as ``python -m tests.adapterhub.theirs FOLDER`` in an environment with ``requirements-adapterhub.txt``.
Nothing of this project is imported here.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import adapters
import torch
from adapters import (
    AdapterConfig,
    BnConfig,
    CompacterConfig,
    DoubleSeqBnConfig,
    LoRAConfig,
    ParBnConfig,
    SeqBnConfig,
    SeqBnInvConfig,
)
from transformers import AutoModel, PreTrainedModel

from tests.adapterhub.cases import (
    Differences,
    away_from_start,
    case_folder,
    encoder_folder,
    states_of,
)


def plain(**options: object) -> BnConfig:
    """Bottlenecks after both sublayers, with further options."""
    usual = {"mh_adapter": True, "output_adapter": True, "reduction_factor": 4, "non_linearity": "relu"}
    return BnConfig(**usual | options)


_CASES = {
    "double_seq_bn": (DoubleSeqBnConfig(reduction_factor=4), ("bert", "roberta", "xlm-roberta", "vit")),
    "relu": (plain(), ("bert", "roberta", "xlm-roberta", "vit", "clip_vision_model")),
    "seq_bn_before_the_norm": (SeqBnConfig(original_ln_before=False), ("bert", "roberta", "vit")),
    "par_bn": (ParBnConfig(), ("bert", "roberta", "vit", "clip_vision_model")),
    "left_out": (plain(leave_out=[0]), ("bert",)),
    "factors_of_layers": (plain(reduction_factor={"0": 6.4, "default": 6.5}), ("bert",)),
    "less_than_one": (plain(reduction_factor=100), ("bert",)),
    "other_sums": (plain(residual_before_ln=False, adapter_residual_before_ln=True), ("bert", "vit")),
    "scaling": (plain(scaling=0.5), ("bert",)),
    "gelu": (plain(non_linearity="gelu"), ("bert",)),
    "gelu_new": (plain(non_linearity="gelu_new"), ("bert",)),
    "gelu_fast": (plain(non_linearity="gelu_fast"), ("bert",)),
    "tanh": (plain(non_linearity="tanh"), ("bert",)),
    "linear": (plain(non_linearity="linear"), ("bert",)),
}
_REFUSED = {
    "seq_bn": SeqBnConfig(),
    "seq_bn_inv": SeqBnInvConfig(original_ln_before=False),
    "own_norm_before": plain(ln_before=True),
    "own_norm_behind": plain(ln_after=True),
    "pfeiffer_after_layernorm": plain(
        mh_adapter=False,
        original_ln_before=True,
        original_ln_after=False,
        residual_before_ln="post_add",
        adapter_residual_before_ln=True,
        ln_after=True,
    ),
    "no_residual": plain(original_ln_after=False),
    "compacter": CompacterConfig(reduction_factor=4),
    "gating": plain(use_gating=True),
    "trained_scaling": plain(scaling="learned"),
    "leaky_relu": plain(non_linearity="leakyrelu"),
    "widths_that_differ": plain(reduction_factor={"0": 4, "default": 8}),
    "lora": LoRAConfig(),
}


def encoder_of(root: Path, kind: str) -> PreTrainedModel:
    """One of the encoders, ready for adapters."""
    encoder = AutoModel.from_pretrained(encoder_folder(root, kind), attn_implementation="sdpa")
    adapters.init(encoder)
    return encoder


def check(root: Path) -> int:
    """Compare what was computed with the exported adapters and what the library computes with them."""
    print("Exported here, loaded by AdapterHub's library:")
    differences = Differences()
    for folder in sorted((root / "encoders").iterdir()):
        states = states_of(encoder_of(root, folder.name), folder.name)
        differences.compare(f"no adapter on {folder.name}", torch.load(folder / "states.pt"), states, None)
    for saved in sorted((root / "ours").glob("*/*.pt")):
        kind, told = saved.stem, {}
        encoder = encoder_of(root, kind)
        bare = states_of(encoder, kind)
        encoder.load_adapter(str(saved.with_suffix("")), loading_info=told, set_active=True)
        encoder.set_active_adapters("adapter4rec")
        if told["missing_keys"] or told["unexpected_keys"]:
            raise SystemExit(f"{saved}: {told}")
        case = f"{saved.parent.name} on {kind}"
        differences.compare(case, torch.load(saved), states_of(encoder, kind), bare)
    return differences.exit_code("Adapter4Rec -> AdapterHub")


def add(encoder: PreTrainedModel, config: AdapterConfig) -> None:
    """Add an active adapter that is away from its start."""
    torch.manual_seed(0)
    encoder.add_adapter("theirs", config=config)
    encoder.set_active_adapters("theirs")
    own = [parameter for name, parameter in encoder.named_parameters() if ".theirs." in name]
    away_from_start(own)


def save(root: Path) -> None:
    """Save adapters of the library's own, and what it computes with them."""
    for case, (config, kinds) in _CASES.items():
        for kind in kinds:
            encoder = encoder_of(root, kind)
            add(encoder, config)
            folder = case_folder(root, "theirs", case, kind)
            folder.parent.mkdir(parents=True, exist_ok=True)
            encoder.save_adapter(str(folder), "theirs", use_safetensors=case == "gelu")
            torch.save(states_of(encoder, kind), folder.with_suffix(".pt"))
    for kind in ("bert", "roberta", "vit"):
        save_from_around(root, kind)
    for case, config in _REFUSED.items():
        encoder = encoder_of(root, "bert")
        add(encoder, config)
        (root / "refused").mkdir(exist_ok=True)
        encoder.save_adapter(str(root / "refused" / case), "theirs")


def save_from_around(root: Path, kind: str) -> None:
    """Save an adapter from the library's own model around an encoder, whose name comes before all others."""
    model = adapters.AutoAdapterModel.from_pretrained(encoder_folder(root, kind))
    add(model, plain())
    folder = case_folder(root, "theirs", "from_a_model_around", kind)
    folder.parent.mkdir(parents=True, exist_ok=True)
    model.save_adapter(str(folder), "theirs")
    torch.save(states_of(model.base_model, kind), folder.with_suffix(".pt"))


if __name__ == "__main__":
    logging.getLogger("adapters").setLevel(logging.ERROR)  # it warns while no adapter is active
    failed = check(Path(sys.argv[1]))
    save(Path(sys.argv[1]))
    sys.exit(failed)
