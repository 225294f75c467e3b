"""Files of other libraries: what a library raises becomes one line, and what is valid works."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from test_backbone_folders import changed_config

from adapter4rec.checkpoints.source_models import read_source_model
from adapter4rec.models.backbone_folders import recorded_pooling
from adapter4rec.models.backbones import (
    IMAGE_ENCODERS,
    TEXT_ENCODERS,
    backbone_config,
    first_position,
    image_size,
    load_backbone,
    load_tokenizer,
    patch_size,
)
from adapter4rec.models.image_encoder import read_normalisation
from adapter4rec.utils.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 9\n"


def with_file(source: Path, target: Path, name: str, content: bytes) -> Path:
    shutil.copytree(source, target)
    (target / name).write_bytes(content)
    return target


class TestWeights:
    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "vocab.txt"])
    @pytest.mark.parametrize(("content", "cause"), [(POINTER, "Git LFS"), (b"", "empty")])
    def test_pointers_and_empty_files_are_named(self, tiny_bert_folder, tmp_path, name, content, cause):
        folder = with_file(tiny_bert_folder, tmp_path / "own", name, content)
        with pytest.raises(UserError, match=rf"{name}: .*{cause}"):
            load_backbone(folder, TEXT_ENCODERS)

    @pytest.mark.parametrize("index", [{}, [], {"weight_map": None}, {"metadata": {}, "weight_map": {}}])
    def test_an_index_that_is_none(self, tiny_bert_folder, tmp_path, index):
        name = "model.safetensors.index.json"
        folder = with_file(tiny_bert_folder, tmp_path / "own", name, json.dumps(index).encode())
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        with pytest.raises(UserError, match="own"):
            load_backbone(folder, TEXT_ENCODERS)

    @pytest.mark.parametrize("elsewhere", ["/dev/zero", "../model.safetensors", "own.fifo"])
    def test_an_index_names_files_of_its_folder(self, tiny_bert_folder, tmp_path, elsewhere):
        index = json.dumps({"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": elsewhere}})
        name = "model.safetensors.index.json"
        folder = with_file(tiny_bert_folder, tmp_path / "own", name, index.encode())
        (folder / "model.safetensors").rename(folder / "other.safetensors")
        os.mkfifo(folder / "own.fifo")
        with pytest.raises(UserError, match=r"index\.json: names a file outside|own\.fifo: .*found a FIFO"):
            load_backbone(folder, TEXT_ENCODERS)

    def test_a_fifo_in_place_of_weights(self, tiny_bert_folder, tmp_path):
        shutil.copytree(tiny_bert_folder, tmp_path / "own")
        (tmp_path / "own" / "model.safetensors").unlink()
        os.mkfifo(tmp_path / "own" / "model.safetensors")
        with pytest.raises(UserError, match=r"model\.safetensors: expected a file, found a FIFO"):
            load_backbone(tmp_path / "own", TEXT_ENCODERS)


class TestConfigurations:
    """Sizes that no model has are refused before memory is allocated: here, less than 1 GB."""

    @pytest.mark.parametrize(
        ("change", "cause"),
        [
            ({"hidden_act": "own"}, "KeyError: 'own'"),
            ({"hidden_size": "32"}, "hidden_size"),
            ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
            ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1,000,000; at most"),
            ({"num_labels": 10**6}, "num_labels is 1,000,000; at most"),
            ({"vocab_size": 5 * 10**6}, "vocab_size is 5000000, which does not fit the weights"),
            (
                {"intermediate_size": 5 * 10**6},
                "intermediate_size is 5000000, which does not fit the weights",
            ),
            ({"num_attention_heads": 0}, "num_attention_heads 0"),
            ({"num_attention_heads": -2}, "num_attention_heads -2"),
            ({"chunk_size_feed_forward": 7}, "chunk_size_feed_forward is 7"),
            ({"return_dict": False}, "return_dict is False"),
        ],
    )
    def test_settings_that_no_model_has(self, tiny_bert_folder, tmp_path, change, cause):
        folder = changed_config(tiny_bert_folder, tmp_path / "own", **change)
        with pytest.raises(UserError, match=f"own.*{cause}"):
            load_backbone(folder, TEXT_ENCODERS)

    @pytest.mark.parametrize("backbone", ["tiny_vit_folder", "tiny_dinov2_folder", "tiny_clip_folder"])
    @pytest.mark.parametrize("change", [{"image_size": 8800}, {"num_channels": 300_000}, {"patch_size": 3}])
    def test_sizes_of_images_that_no_model_has(self, request, tmp_path, backbone, change):
        folder = request.getfixturevalue(backbone)
        config = json.loads((folder / "config.json").read_text())
        if "clip" in backbone:
            change = {"vision_config": config["vision_config"] | change}
        folder = changed_config(folder, tmp_path / "own", **change)
        with pytest.raises(UserError, match=r"own/config\.json: .*(fit the weights|multiple)"):
            load_backbone(folder, IMAGE_ENCODERS)

    @pytest.mark.parametrize("content", [b"[]", b"null", b"[" * 10_000, b'{"architecture": ""}', b"{"])
    def test_a_configuration_of_something_else(self, tiny_bert_folder, tmp_path, content):
        folder = with_file(tiny_bert_folder, tmp_path / "own", "config.json", content)
        with pytest.raises(UserError, match="own"):
            backbone_config(folder, TEXT_ENCODERS)

    @pytest.mark.parametrize("pad", [None, -5])
    def test_roberta_counts_positions_from_its_padding(self, tiny_roberta_folder, tmp_path, pad):
        config = backbone_config(
            changed_config(tiny_roberta_folder, tmp_path / "own", pad_token_id=pad), TEXT_ENCODERS
        )
        with pytest.raises(UserError, match=r"config\.json: pad_token_id"):
            first_position(config)

    def test_sizes_may_be_lists(self, tiny_dinov2_folder, tmp_path):
        sizes = {"patch_size": [4, 4], "image_size": [16, 16]}
        config = backbone_config(
            changed_config(tiny_dinov2_folder, tmp_path / "own", **sizes), IMAGE_ENCODERS
        )
        assert (image_size(config), image_size(config, 20), patch_size(config)) == (16, 20, 4)

    @pytest.mark.parametrize("change", [{"patch_size": [4, 8]}, {"patch_size": 0}, {"image_size": []}])
    def test_sizes_that_are_none(self, tiny_dinov2_folder, tmp_path, change):
        folder = changed_config(tiny_dinov2_folder, tmp_path / "own", **change)
        with pytest.raises(UserError, match=r"own.*only squares"):
            image_size(backbone_config(folder, IMAGE_ENCODERS))


@pytest.mark.parametrize(
    "values",
    [
        {"image_mean": "123", "image_std": [1, 1, 1]},
        {"image_mean": ["0.5"] * 3, "image_std": [1, 1, 1]},
        {"image_mean": [10**400, 0, 0], "image_std": [1, 1, 1]},
        {"image_mean": [127.5] * 3, "image_std": [127.5] * 3},
        {"image_mean": [0.5] * 4, "image_std": [0.5] * 4},
        {"do_normalize": "false", "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    ],
)
def test_normalisation_of_other_pixels_is_refused(tiny_vit_folder, tmp_path, values):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    config = backbone_config(tiny_vit_folder, IMAGE_ENCODERS)
    with pytest.raises(UserError, match=r"preprocessor_config\.json: expected image_mean and image_std"):
        read_normalisation(tmp_path, config, "backbone")


@pytest.mark.parametrize("name", ["preprocessor_config.json", "1_Pooling/config.json"])
def test_a_recorded_choice_that_is_no_file_is_not_overlooked(tiny_vit_folder, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / name)
    config = backbone_config(tiny_vit_folder, IMAGE_ENCODERS)
    with pytest.raises(UserError, match=f"{name}: expected a file, found a FIFO"):
        recorded_pooling(tmp_path)
        read_normalisation(tmp_path, config, "backbone")


@pytest.mark.parametrize(
    "settings", [{"model_max_length": "x"}, {"cls_token": 3}, {"added_tokens_decoder": {"a": 3}}]
)
def test_settings_of_a_tokenizer(tiny_bert_folder, tmp_path, settings):
    folder = changed_config(tiny_bert_folder, tmp_path / "own", "tokenizer_config.json", **settings)
    try:
        load_tokenizer(folder)
    except UserError as error:
        assert "own" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        [1],
        None,
        {"model_state_dict": [1]},
        {"model_state_dict": None},
        {"model_state_dict": {1: torch.ones(1)}},
    ],
)
def test_released_checkpoints_without_tensors(tmp_path, content):
    torch.save(content, tmp_path / "epoch.pt")
    with pytest.raises(UserError, match=r"epoch\.pt: not a dictionary of tensors"):
        read_source_model(tmp_path / "epoch.pt")


def test_a_vocabulary_without_a_token_for_unknown_words(tiny_bert_folder, tmp_path):
    folder = with_file(tiny_bert_folder, tmp_path / "own", "vocab.txt", b"a")
    with pytest.raises(UserError, match="own: the tokenizer cannot be read"):
        load_tokenizer(folder)
