"""This project's side: ``export`` writes adapters for AdapterHub's library, ``check`` reads what it wrote.

Run as ``python -m tests.adapterhub.ours export FOLDER``; see the Makefile's ``test-adapterhub``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)
from transformers.utils.logging import disable_progress_bar

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.registry import FAMILIES
from adapter4rec.interchange.adapterhub import export_adapterhub, import_adapterhub
from adapter4rec.utils.errors import UserError
from tests.adapterhub.cases import (
    ALL_KINDS,
    KINDS,
    ONE_KIND,
    Differences,
    away_from_start,
    case_folder,
    encoder_folder,
    kinds_of,
    states_of,
)

_WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_WORDS = {"vocab_size": 100, "max_position_embeddings": 66}
_IMAGES = {"image_size": 16, "patch_size": 4}
_ENCODERS = {
    "bert": (BertModel, BertConfig, _WORDS),
    "roberta": (RobertaModel, RobertaConfig, _WORDS),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig, _WORDS),
    "vit": (ViTModel, ViTConfig, _IMAGES),
    "clip_vision_model": (CLIPVisionModel, CLIPVisionConfig, _IMAGES),
}


def make_encoder(kind: str) -> PreTrainedModel:
    """A tiny encoder whose attention, biases and layer norms all matter."""
    torch.manual_seed(0)
    model, config, sizes = _ENCODERS[kind]
    encoder = model(config(**_WIDTHS, **sizes)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(3.0).add_(torch.randn_like(parameter) * 0.1)
    return encoder


def save_encoder(encoder: PreTrainedModel, folder: Path) -> None:
    """Save an encoder so that transformers 4 reads it, which puts a name before those of CLIP's weights."""
    encoder.save_pretrained(folder)
    if encoder.config.model_type == "clip_vision_model":
        weights = folder / "model.safetensors"
        renamed = {f"vision_model.{name}": tensor for name, tensor in load_file(weights).items()}
        save_file(renamed, weights, {"format": "pt"})


def export(root: Path) -> int:
    """Write encoders, adapters, and what is computed with them."""
    shutil.rmtree(root, ignore_errors=True)
    for kind in KINDS:
        encoder = make_encoder(kind)
        save_encoder(encoder, encoder_folder(root, kind))
        torch.save(states_of(encoder, kind), encoder_folder(root, kind) / "states.pt")
    for case, (family, options) in (ALL_KINDS | ONE_KIND).items():
        for kind in kinds_of(case):
            encoder = make_encoder(kind)
            add_adapters(encoder, FAMILIES[family](**{"item_bottleneck": 8} | options))
            away_from_start(list(encoder.adapters.parameters()))
            folder = case_folder(root, "ours", case, kind)
            export_adapterhub(encoder, folder)
            torch.save(states_of(encoder, kind), folder.with_suffix(".pt"))
    return 0


def check(root: Path) -> int:
    """Compare what the library computed with its adapters and what is computed with them here."""
    print("Saved by AdapterHub's library, imported here:")
    differences = Differences()
    for saved in sorted((root / "theirs").glob("*/*.pt")):
        kind = saved.stem
        encoder = AutoModel.from_pretrained(encoder_folder(root, kind)).eval()
        bare = states_of(encoder, kind)
        import_adapterhub(encoder, saved.with_suffix(""))
        case = f"{saved.parent.name} on {kind}"
        differences.compare(case, torch.load(saved), states_of(encoder, kind), bare)
    if not differences.largest:
        raise SystemExit(f"{root}: the library has saved nothing there")
    taken = [folder.name for folder in sorted((root / "refused").iterdir()) if not _is_refused(root, folder)]
    for name in taken:
        print(f"  {name}: imported, though it has no counterpart")
    return max(differences.exit_code("AdapterHub -> Adapter4Rec"), int(bool(taken)))


def _is_refused(root: Path, folder: Path) -> bool:
    encoder = AutoModel.from_pretrained(encoder_folder(root, "bert"))
    try:
        import_adapterhub(encoder, folder)
    except UserError as error:
        print(f"  {folder.name:28} refused: {str(error).partition(': ')[2]}")
        return True
    return False


if __name__ == "__main__":
    disable_progress_bar()
    sys.exit({"export": export, "check": check}[sys.argv[1]](Path(sys.argv[2])))
