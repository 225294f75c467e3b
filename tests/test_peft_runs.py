"""Whole runs with methods of PEFT: trained, interrupted and resumed, loaded in PEFT, merged, served."""

from __future__ import annotations

from itertools import product

import numpy as np
import peft
import pytest
import torch
from adapter_models import DIM, LENGTH, assert_same, model_on
from conftest import write_domain
from PIL import Image
from safetensors.torch import load_file
from test_peft import KINDS, OPTIONS, backbone_again, embeddings, plain_embeddings
from trees import ImageTargetSettings, TextSourceSettings, TextTargetSettings, carry_out

import adapter4rec
from adapter4rec.adapters.peft import TESTED
from adapter4rec.checkpoints.merging import merge_adapters
from adapter4rec.checkpoints.source_models import export_source_model
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.training import step

DIAGONAL = list(zip(KINDS, TESTED, strict=True))
"""Each backbone and each method once; ``make test-all`` runs all pairs."""
TITLES = ["red house", "blue garden", "river city", "football match", "oil price", "snow storm"]


@pytest.fixture(
    params=[
        pytest.param(pair, id="-".join(pair), marks=() if pair in DIAGONAL else pytest.mark.long)
        for pair in product(KINDS, TESTED)
    ]
)
def pair(request):
    return request.param


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domain")
    clicks = {f"u{n}": [f"i{(n + step) % 6}" for step in range(5 + n % 3)] for n in range(12)}
    users, items = write_domain(folder, clicks, {f"i{number}": title for number, title in enumerate(TITLES)})
    return {"users": users, "items": items}


@pytest.fixture(scope="module")
def image_domain(domain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "files").mkdir()
    for item in range(len(TITLES)):
        pixels = np.random.default_rng(item).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "files" / f"i{item}.png")
    build(ImageLmdbSettings(domain["items"], folder / "lmdb", folder / "files", size=16, workers=1))
    return domain | {"images": folder / "lmdb"}


def settings_of(domain, backbone, tmp_path, **options):
    kind = ImageTargetSettings if "images" in domain else TextTargetSettings
    common = {
        "backbone": str(backbone),
        "embedding_dim": DIM,
        "max_seq_len": LENGTH,
        "batch_size": 4,
        "epochs": 2,
        "precision": "fp32",
        "device": "cpu",
        "cache_folder": tmp_path / "cache",
        "method": "peft",
        "train_user_encoder": True,
        "lr_adapter": 1e-2,
    }
    return kind.from_values(domain | common | options)


def interrupted_at(patch, number):
    """Interrupt training in a step, counted over epochs."""
    steps, take = [], step.backward

    def stops(*arguments):
        steps.append(arguments)
        if len(steps) == number:
            raise KeyboardInterrupt
        return take(*arguments)

    patch.setattr(step, "backward", stops)


def assert_resumes_bit_for_bit(domain, folder, tmp_path, patch, **options):
    """A run that is interrupted in its second epoch ends as the run in ``whole`` does."""
    whole = carry_out(settings_of(domain, folder, tmp_path, run_folder=tmp_path / "whole", **options))
    options["run_folder"] = tmp_path / "stopped"
    with patch.context() as during, pytest.raises(KeyboardInterrupt):
        interrupted_at(during, 5)
        carry_out(settings_of(domain, folder, tmp_path, **options))
    resumed = carry_out(settings_of(domain, folder, tmp_path, resume=True, **options))
    assert resumed["test"] == whole["test"]
    for name in ("adapter.safetensors", "last.safetensors"):
        assert_same(load_file(tmp_path / "whole" / name), load_file(tmp_path / "stopped" / name))


def test_a_run_resumes_bit_for_bit_loads_in_peft_and_merges(folder, pair, request, tmp_path, monkeypatch):
    images = KINDS.index(pair[0]) >= KINDS.index("tiny_vit_folder")
    domain = request.getfixturevalue("image_domain" if images else "domain")
    source = tmp_path / "source.safetensors"
    export_source_model(model_on(folder).state_dict(), source, "sasrec", {})
    options = {"source_checkpoint": source, "peft": pair[1], "peft_options": OPTIONS.get(pair[1])}
    assert_resumes_bit_for_bit(domain, folder, tmp_path, monkeypatch, **options)
    model = adapter4rec.load(tmp_path / "whole").run.model
    backbone = backbone_again(folder, model)
    with torch.no_grad():
        start = plain_embeddings(model, backbone)
        trained = embeddings(model)
        assert not torch.allclose(trained, start, atol=1e-4)
        assert torch.allclose(trained, plain_embeddings(model, model.item_encoder.backbone), atol=1e-5)
        theirs = peft.PeftModel.from_pretrained(backbone, tmp_path / "stopped" / "adapter_peft").eval()
        assert torch.allclose(trained, plain_embeddings(model, theirs), atol=1e-5)
    merge_adapters(model)
    assert torch.allclose(embeddings(model), trained, atol=1e-5)


def test_a_source_model_of_another_user_encoder_is_adapted_and_served(
    domain, tiny_bert_folder, tmp_path, monkeypatch
):
    source = tmp_path / "source.safetensors"
    run = {"users": domain["users"], "items": domain["items"], "backbone": str(tiny_bert_folder)}
    model = {"user_encoder": "gru4rec", "embedding_dim": DIM, "max_seq_len": LENGTH}
    files = {"export": source, "run_folder": tmp_path / "source", "cache_folder": tmp_path / "cache"}
    training = {"epochs": 1, "batch_size": 4, "device": "cpu"}
    carry_out(TextSourceSettings.from_values(run | model | files | training))
    options = {"peft": "vera", "peft_options": "r=8", "train_head": True, "user_encoder": "gru4rec"}
    assert_resumes_bit_for_bit(
        domain, tiny_bert_folder, tmp_path, monkeypatch, source_checkpoint=source, **options
    )
    trained = load_file(tmp_path / "whole" / "adapter.safetensors")
    assert any("user_encoder" in name for name in trained)
    model = adapter4rec.load(tmp_path / "whole")
    assert len(model.recommend(model.clicks_of("u1")[:2], top_k=3)) == 3
