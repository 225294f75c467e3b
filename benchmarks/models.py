"""Base-size models with random weights, their data, and their number of operations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, PretrainedConfig, ViTConfig, ViTModel

from adapter4rec.adapters.attaching import add_adapters
from adapter4rec.adapters.config import AdapterConfig
from adapter4rec.data.interactions import Interactions, read_interactions, read_items
from adapter4rec.data.text import TextStore, tokenise
from adapter4rec.datasets.sample import SampleSettings, make_sample
from adapter4rec.models.backbone_folders import backbone_folder
from adapter4rec.models.backbones import load_tokenizer
from adapter4rec.models.image_encoder import ImageItemEncoder
from adapter4rec.models.item_encoder import ContentItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.files import REPOSITORY

DIM = 64
TITLE_TOKENS = 30
_REAL = REPOSITORY.parent / "shared" / "data" / "Instruments"
_SAMPLE = REPOSITORY / "cache" / "benchmarks" / "sample"
TOKENIZER = "minilm/all_minilm_l6_v2"
BACKBONES = dict.fromkeys(("bert", "roberta", "xlm-roberta", "modernbert"), "text") | dict.fromkeys(
    ("vit", "vit_mae", "dinov2", "clip_vision_model"), "image"
)
"""Modality by model type of the supported backbones."""


def forward_operations(config: PretrainedConfig, lengths: np.ndarray) -> float:
    """FLOPs of a forward pass through the layers of a backbone, for texts or images of the given lengths.

    Counts the matrix products only; a multiply-add is two operations. Multiply-adds per token and layer:
    attention projections 4h², feed-forward 2hf, scores and weighted values 2lh for a text of l tokens.
    """
    h, f = config.hidden_size, config.intermediate_size
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    return config.num_hidden_layers * 2 * (tokens * (4 * h * h + 2 * h * f) + 2 * pairs * h)


def domain_folder() -> Path:
    """Folder of the Instruments data set if available, otherwise of a generated domain of that size."""
    if _REAL.is_dir():
        return _REAL
    make_sample(_SAMPLE, SampleSettings(users=10_000, target_users=10_000, items=20_000))
    return _SAMPLE / "target"


def read_domain(folder: Path, max_seq_len: int, tokens_at_once: int = 4096) -> tuple[Interactions, TextStore]:
    """Interactions and titles of a domain, tokenized with MiniLM's tokenizer."""
    table = read_items(folder / "items.tsv", ("title",))
    interactions = read_interactions(folder / "users.tsv", table, min_seq_len=5, max_seq_len=max_seq_len)
    texts = [table.texts["title"][row] for row in interactions.item_rows]
    tokenizer = load_tokenizer(backbone_folder(TOKENIZER))
    tokens = tokenise(texts, tokenizer, TITLE_TOKENS, REPOSITORY / "cache", lambda _: None)
    return interactions, TextStore([tokens], tokens_at_once)


def text_model(adapter: AdapterConfig | None, layers: int = 12, max_seq_len: int = 20) -> TransRec:
    """A text model on BERT-base with random weights from a fixed seed."""
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, attn_implementation="sdpa")
    encoder = TextItemEncoder(BertModel(config, add_pooling_layer=False), DIM)
    return _whole(encoder, max_seq_len, adapter)


def image_model(adapter: AdapterConfig | None, layers: int = 12, images_at_once: int = 8) -> TransRec:
    """An image model on ViT-base with random weights from a fixed seed."""
    torch.manual_seed(0)
    config = ViTConfig(num_hidden_layers=layers, attn_implementation="sdpa")
    encoder = ImageItemEncoder(ViTModel(config, add_pooling_layer=False), DIM, images_at_once)
    return _whole(encoder, 10, adapter)


def small_model(kind: str) -> TransRec:
    """A model on a backbone of two narrow layers, by model type, with random weights from a fixed seed."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        mask_ratio=0.0,
    )
    backbone = AutoModel.from_config(config, attn_implementation="sdpa")
    if BACKBONES[kind] == "text":
        return _whole(TextItemEncoder(backbone, DIM), 20, None)
    return _whole(ImageItemEncoder(backbone, DIM, 8), 10, None)


def _whole(encoder: ContentItemEncoder, max_seq_len: int, adapter: AdapterConfig | None) -> TransRec:
    model = TransRec(encoder, TransformerUserEncoder(DIM, max_seq_len, 2, 2, 0.1), "sasrec")
    if adapter is not None:
        torch.manual_seed(0)
        add_adapters(model, adapter)
    return model


def houlsby_operations(config: PretrainedConfig, lengths: np.ndarray, bottleneck: int = 64) -> float:
    """Number of operations of a training step with Houlsby adapters in all layers, forward and backward.

    The backward pass computes gradients of the input of every layer except the first, and of the input of the
    first layer's feed-forward sublayer; frozen weights need no gradients. Adapters need gradients of weights
    and inputs, except for the input of the first adapter.
    """
    h, layers = config.hidden_size, config.num_hidden_layers
    tokens, pairs = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    attention_below = 2 * (tokens * 4 * h * h) + 2 * 2 * (2 * pairs * h)
    attention_twice = (layers - 1) * 2 * 2 * pairs * h
    adapters = (3 * layers * 2 * 2 - 1) * (2 * tokens * h * bottleneck)
    forward = forward_operations(config, lengths)
    return 2 * forward + attention_twice - (attention_below - 2 * 2 * pairs * h) + adapters
