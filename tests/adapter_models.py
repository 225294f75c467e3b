"""Small TransRec models on every kind of backbone, and batches for them."""

import re

import numpy as np
import torch
from conftest import RandomImages, interactions_of, random_sequences
from transformers import AutoConfig, BertConfig, BertModel, ViTConfig, ViTModel

from adapter4rec.data.batches import Sampling, TrainingSet
from adapter4rec.data.text import TextStore, Tokens
from adapter4rec.models.backbones import IMAGE_ENCODERS, TEXT_ENCODERS, load_backbone
from adapter4rec.models.image_encoder import ImageItemEncoder
from adapter4rec.models.text_encoder import TextItemEncoder
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder

N_ITEMS, LENGTH, WIDTH, DIM = 30, 6, 32, 16
WORDS = ["tiny_bert_folder", "tiny_roberta_folder", "tiny_xlm_roberta_folder", "tiny_modernbert_folder"]
PATCHES = ["tiny_vit_folder", "tiny_mae_folder", "tiny_dinov2_folder", "tiny_clip_folder"]
BACKBONES = [*WORDS, *PATCHES]
"""Fixtures that give a backbone's folder."""
PRE_NORM = ["tiny_modernbert_folder", *PATCHES]
WITHOUT_SUBLAYER_DROPOUT = ["tiny_modernbert_folder", "tiny_dinov2_folder", "tiny_clip_folder"]
"""Nothing is dropped at the end of their sublayers, or whole items (DINOv2)."""


def is_image(model):
    return isinstance(model.item_encoder, ImageItemEncoder)


def model_on(folder):
    """A model on a backbone's folder, the same at each call."""
    images = AutoConfig.from_pretrained(folder).model_type in ("clip", *IMAGE_ENCODERS)
    backbone = load_backbone(folder, IMAGE_ENCODERS if images else TEXT_ENCODERS)
    if backbone.config.model_type == "vit_mae":
        backbone.config.mask_ratio = 0.0
    for name, module in backbone.named_modules():
        if images and re.fullmatch(r"layers\.\d+\.dropout", name):
            module.p = 0.1  # ViT's, which both sublayers share
    torch.manual_seed(1)
    encoder = ImageItemEncoder(backbone, DIM, 8) if images else TextItemEncoder(backbone, DIM)
    return TransRec(encoder, TransformerUserEncoder(DIM, LENGTH, 2, 2, 0.1), "sasrec")


def base_model(modality):
    """A model on BERT-base or ViT-base, without weights: what is counted costs nothing."""
    with torch.device("meta"):
        if modality == "text":
            encoder = TextItemEncoder(BertModel(BertConfig(), add_pooling_layer=False), 64)
        else:
            encoder = ImageItemEncoder(ViTModel(ViTConfig(), add_pooling_layer=False), 64, 8)
        length = 20 if modality == "text" else 10
        return TransRec(encoder, TransformerUserEncoder(64, length, 2, 2, 0.1), "sasrec")


def shaken(model, seed=0):
    """The model with adapters whose parameters are no longer those of the start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def store_for(model):
    if is_image(model):
        return RandomImages(N_ITEMS, 16)
    chance = np.random.default_rng(0)
    lengths = chance.integers(3, 9, N_ITEMS)
    flat = chance.integers(5, 60, lengths.sum()).astype(np.int32)
    return TextStore([Tokens(flat, np.concatenate([[0], lengths.cumsum()]), "test")], 64)


def batch_for(model):
    interactions = interactions_of(
        random_sequences(np.random.default_rng(0), 8, N_ITEMS, LENGTH), N_ITEMS, LENGTH
    )
    store = store_for(model)
    examples = TrainingSet(interactions, store, batch_size=8, seed=0, sampling=Sampling(per_target=1))
    return examples[1, 0]


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
