"""Image encoders: ViT and ViTMAE from their folders, the head, masking, and the names of older files."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import RandomImages
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, CLIPVisionModel, Dinov2Model
from trees import ImageSourceSettings

from adapter4rec.checkpoints.merging import save_encoder
from adapter4rec.models.backbones import IMAGE_ENCODERS, TEXT_ENCODERS, image_size, load_backbone
from adapter4rec.models.image_encoder import ImageItemEncoder, build_image_encoder
from adapter4rec.models.parameters import train_only
from adapter4rec.models.parts import PARTS
from adapter4rec.models.small_vit import make_small_vit
from adapter4rec.models.transrec import TransRec
from adapter4rec.models.user_encoders.transformer import TransformerUserEncoder
from adapter4rec.utils.errors import UserError

FOLDERS = ["tiny_vit_folder", "tiny_mae_folder"]
STORE = RandomImages(9, 16)
ITEMS = np.array([7, 2, 9, 4, 1])


def encoder_of(folder, **options):
    settings = ImageSourceSettings.from_values(
        {"users": "u", "items": "i", "backbone": str(folder), "embedding_dim": 8} | options
    )
    return build_image_encoder(settings).eval()


@pytest.mark.parametrize("name", FOLDERS)
def test_embedding_is_the_described_function(request, name):
    """GELU of a linear layer on [CLS] behind the last layer norm, each image scaled to -1 … 1."""
    encoder = encoder_of(request.getfixturevalue(name))
    backbone = encoder.backbone
    with torch.no_grad():
        found = encoder(STORE.fetch(ITEMS))
        for row, item in enumerate(ITEMS):
            pixels = STORE.pixels[item - 1].numpy().astype(np.float64).transpose(2, 0, 1)
            scaled = torch.tensor((pixels / 255 - 0.5) / 0.5, dtype=torch.float32)[None]
            patches = backbone.embeddings.patch_embeddings(scaled)
            positions = backbone.embeddings.position_embeddings
            cls = (backbone.embeddings.cls_token + positions[:, :1]).expand(1, -1, -1)
            states = torch.cat([cls, patches + positions[:, 1:]], dim=1)
            for layer in backbone.layers:
                states = layer(states)
            state = backbone.layernorm(states)[0, 0]
            expected = F.gelu(encoder.head.weight @ state + encoder.head.bias)
            assert torch.allclose(found[row], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "reference", "mean", "deviation"),
    [
        ("tiny_dinov2_folder", Dinov2Model, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("tiny_clip_folder", CLIPVisionModel, [0.4815, 0.4578, 0.4082], [0.2686, 0.2613, 0.2758]),
    ],
)
def test_other_kinds_scale_pixels_as_they_were_pretrained(request, name, reference, mean, deviation):
    """Against the library's own model, whose pooled output is [CLS] behind the last layer norm."""
    encoder = encoder_of(request.getfixturevalue(name))
    plain = reference.from_pretrained(request.getfixturevalue(name)).eval()
    pixels = STORE.pixels[ITEMS - 1].permute(0, 3, 1, 2) / 255
    scaled = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    with torch.no_grad():
        states = plain(pixel_values=scaled).pooler_output
        expected = F.gelu(F.linear(states, encoder.head.weight, encoder.head.bias))
        assert torch.allclose(encoder(STORE.fetch(ITEMS)), expected, atol=2e-3)


@pytest.mark.parametrize("name", [*FOLDERS, "tiny_dinov2_folder", "tiny_clip_folder"])
def test_other_image_sizes_interpolate_position_embeddings(request, name):
    """Against the library's own option; at the backbone's own size nothing is interpolated."""
    folder = request.getfixturevalue(name)
    encoder = encoder_of(folder, image_size=24)
    content = RandomImages(3, 24).fetch(np.array([1, 3]))
    scaled = encoder.transform(content.pixels.permute(0, 3, 1, 2))
    options = {} if "dinov2" in name else {"interpolate_pos_encoding": True}
    if "mae" in name:
        options["noise"] = torch.arange(36.0).expand(2, -1)
    with torch.no_grad():
        output = encoder.backbone(pixel_values=scaled, **options)
        state = output.pooler_output if "clip" in name else output.last_hidden_state[:, 0]
        expected = F.gelu(F.linear(state, encoder.head.weight, encoder.head.bias))
        assert torch.allclose(encoder(content), expected, atol=1e-5)
    with pytest.raises(UserError, match="multiple of the patch size 4"):
        encoder_of(folder, image_size=18)


def test_pixels_are_normalised_as_the_backbones_folder_records(tiny_vit_folder, tmp_path):
    folder = tmp_path / "vit"
    shutil.copytree(tiny_vit_folder, folder)
    recorded = folder / "preprocessor_config.json"
    recorded.write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}))
    encoder, paper = encoder_of(folder), encoder_of(folder, normalisation="paper")
    white = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    assert encoder.transform(white)[0, :, 0, 0].tolist() == pytest.approx([0.9 / 0.5, 0.8 / 0.6, 1.0])
    assert paper.transform(white)[0, :, 0, 0].tolist() == [1, 1, 1]
    assert "preprocessor_config.json" in encoder.describe_input()
    assert "paper" in paper.describe_input()
    for name, one in (("backbone", encoder), ("paper", paper)):
        save_encoder(TransRec(one, TransformerUserEncoder(8, 4, 2, 1, 0.0), "sasrec"), tmp_path / name)
        again = encoder_of(tmp_path / name)
        assert torch.equal(again.transform(white), one.transform(white))
        processor = AutoImageProcessor.from_pretrained(tmp_path / name)
        assert list(processor.image_mean) == list(one.normalisation.mean)
    recorded.write_text(json.dumps({"image_mean": 0.5, "image_std": [0, 1, 1]}))
    with pytest.raises(UserError, match="three numbers"):
        encoder_of(folder)


@pytest.mark.parametrize("name", FOLDERS)
def test_images_in_parts_give_what_all_at_once_give(request, name):
    folder = request.getfixturevalue(name)
    with torch.no_grad():
        whole = encoder_of(folder)(STORE.fetch(ITEMS))
        parts = encoder_of(folder, images_at_once=2)(STORE.fetch(ITEMS))
    assert torch.allclose(whole, parts, atol=1e-6)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_new_head_is_xavier_normal_without_bias(request, name):
    encoder = encoder_of(request.getfixturevalue(name), embedding_dim=4096)
    assert not encoder.head.bias.any()
    assert encoder.head.weight.std().item() == pytest.approx((2 / (32 + 4096)) ** 0.5, rel=0.02)


def test_mae_reads_all_patches_and_released_masking_does_not(tiny_mae_folder):
    content = STORE.fetch(ITEMS)
    with torch.no_grad():
        encoder = encoder_of(tiny_mae_folder)
        assert torch.equal(encoder(content), encoder(content))
        masking = encoder_of(tiny_mae_folder, release_masking=True)
        states = masking.backbone(
            pixel_values=masking.transform(content.pixels.permute(0, 3, 1, 2))
        ).last_hidden_state
        assert states.shape[1] == 1 + 16 // 4
        assert not torch.equal(masking(content), masking(content))


def test_masking_is_refused_for_a_vit(tiny_vit_folder):
    with pytest.raises(UserError, match="only by ViTMAE"):
        encoder_of(tiny_vit_folder, release_masking=True)


def test_position_embeddings_of_mae_stay_fixed(tiny_mae_folder, tiny_vit_folder):
    for folder, fixed in ((tiny_mae_folder, True), (tiny_vit_folder, False)):
        model = TransRec(encoder_of(folder), TransformerUserEncoder(8, 4, 2, 1, 0.0), "sasrec")
        train_only(model, PARTS)
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        expected = {"item_encoder.backbone.embeddings.position_embeddings"} if fixed else set()
        assert frozen == expected


@pytest.mark.parametrize("name", FOLDERS)
def test_names_of_older_and_newer_transformers_load_alike(request, name, tmp_path):
    folder = request.getfixturevalue(name)
    model = load_backbone(folder, IMAGE_ENCODERS)
    older, newer = tmp_path / "older", tmp_path / "newer"
    for target in (older, newer):
        shutil.copytree(folder, target)
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    assert any(key.startswith("layers.0.attention.q_proj") for key in state)
    save_file(state, newer / "model.safetensors", metadata={"format": "pt"})
    renamed = {as_older(key): tensor for key, tensor in state.items()}
    assert "encoder.layer.1.attention.attention.query.weight" in renamed
    save_file(renamed, older / "model.safetensors", metadata={"format": "pt"})
    for target in (older, newer):
        loaded = load_backbone(target, IMAGE_ENCODERS).state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def as_older(key):
    for new, old in (
        ("attention.q_proj", "attention.attention.query"),
        ("attention.k_proj", "attention.attention.key"),
        ("attention.v_proj", "attention.attention.value"),
        ("attention.o_proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ):
        key = key.replace(new, old)
    return f"encoder.layer.{key.removeprefix('layers.')}" if key.startswith("layers.") else key


def test_a_classifier_folder_loads_without_its_head(tiny_vit_folder, tmp_path):
    """Published ViT folders hold a classifier: its weights stand under a prefix, beside a head."""
    folder = tmp_path / "classifier"
    shutil.copytree(tiny_vit_folder, folder)
    state = load_file(folder / "model.safetensors")
    prefixed = {f"vit.{key}": tensor for key, tensor in state.items() if not key.startswith("pooler")}
    prefixed |= {"classifier.weight": torch.zeros(3, 32), "classifier.bias": torch.zeros(3)}
    save_file(prefixed, folder / "model.safetensors", metadata={"format": "pt"})
    one, two = (load_backbone(where, IMAGE_ENCODERS).state_dict() for where in (tiny_vit_folder, folder))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_first_layers(tiny_vit_folder):
    assert len(encoder_of(tiny_vit_folder, layers=1).backbone.layers) == 1
    with pytest.raises(UserError, match="has 2 layers"):
        encoder_of(tiny_vit_folder, layers=3)


def test_folders_that_do_not_do(tiny_vit_folder, tiny_bert_folder, tmp_path):
    with pytest.raises(UserError, match="'bert' is not supported"):
        load_backbone(tiny_bert_folder, IMAGE_ENCODERS)
    with pytest.raises(UserError, match="'vit' is not supported"):
        load_backbone(tiny_vit_folder, TEXT_ENCODERS)
    other = tmp_path / "other_size"
    shutil.copytree(tiny_vit_folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"image_size": 32}))
    with pytest.raises(UserError, match="position_embeddings"):
        load_backbone(other, IMAGE_ENCODERS)


def test_the_size_that_an_encoder_takes(tiny_vit_folder):
    config = load_backbone(tiny_vit_folder, IMAGE_ENCODERS).config
    assert image_size(config) == 16
    config.image_size = (16, 16)
    assert image_size(config) == 16
    config.image_size = (16, 32)
    with pytest.raises(UserError, match=r"\(16, 32\)"):
        image_size(config)


@pytest.mark.parametrize("name", FOLDERS)
def test_gradients_reach_everything_that_is_trained(request, name):
    encoder = encoder_of(request.getfixturevalue(name))
    encoder(STORE.fetch(ITEMS)).sum().backward()
    for key, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


def test_an_encoder_is_what_the_settings_say(tiny_vit_folder):
    encoder = encoder_of(tiny_vit_folder, seed=5)
    assert isinstance(encoder, ImageItemEncoder)
    again, other = encoder_of(tiny_vit_folder, seed=5), encoder_of(tiny_vit_folder, seed=6)
    assert torch.equal(encoder.head.weight, again.head.weight)
    assert not torch.equal(encoder.head.weight, other.head.weight)


def test_the_small_vit_is_the_same_each_time_and_written_once(tmp_path):
    for name in ("one", "two"):
        torch.rand(3)  # nothing drawn before plays a part
        make_small_vit(tmp_path / name)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    before = (tmp_path / "one" / "model.safetensors").stat().st_mtime_ns
    make_small_vit(tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").stat().st_mtime_ns == before
    assert image_size(load_backbone(tmp_path / "one", IMAGE_ENCODERS).config) == 64
