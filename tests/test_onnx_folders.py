"""A trained model as a folder of ONNX files: written, checked, and used without PyTorch."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from adapter_models import DIM, LENGTH, shaken
from conftest import write_domain
from PIL import Image
from test_adapter_families import config_of
from test_recommend import command

import adapter4rec
from adapter4rec import add_adapters, export
from adapter4rec.checkpoints.rebuilding import rebuilt_settings
from adapter4rec.data.images.decoding import Resizing
from adapter4rec.models.registry import USER_ENCODERS
from adapter4rec.models.transrec import new_transrec
from adapter4rec.models.user_encoders.mean import MeanUserEncoder
from adapter4rec.serving.bundles import write_bundle
from adapter4rec.serving.onnx import writing
from adapter4rec.serving.onnx.graphs import ImageGraph
from adapter4rec.serving.onnx.recommend import Model
from adapter4rec.serving.onnx.writing import write_onnx
from adapter4rec.serving.recommender import Recommender
from adapter4rec.serving.trained_runs import TrainedRun
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import single_process

CLOSE = {"atol": 1e-4, "rtol": 0}
NAMES = [f"i{number}" for number in range(1, 7)]
TEXTS = {
    "i1": ("Red HOUSE", "", "The river of a City & " * 8),
    "i2": ("football \r match", "an abstract", "snow"),
    "i3": ("a blue garden [SEP]", "", "old" + 2000 * " " + "snow"),
    "i4": ("Guitar-string light", "", "old"),
    "i5": ("summer storm", "", "teacher"),
    "i6": ("music", "", "players win the match"),
}


def recommender_of(folder, kind, items, **options):
    """A model with random weights on six items; it is not trained."""
    clicks = {f"u{user}": [NAMES[(user + step) % 6] for step in range(5)] for user in range(4)}
    users, table = write_domain(folder / "domain", clicks, items)
    values = {"embedding_dim": DIM, "max_seq_len": LENGTH, "method": "all"} | options
    files = {"users": users, "items": table, "cache_folder": folder / "cache"}
    settings = rebuilt_settings(folder / "settings.json", kind, values, files)
    process = single_process("cpu")
    domain = settings.read_domain(process)
    model = new_transrec(settings, settings.encoder_builder(type(settings).build_encoder), 6).eval()
    return Recommender(TrainedRun(folder / "run", settings, domain, model), process)


@pytest.fixture(scope="module")
def texts(tmp_path_factory, tiny_bert_folder):
    """A model of two attributes with Houlsby adapters, mean pooling and cosine similarity."""
    both = {"attributes": ("title", "body"), "body_tokens": 40, "pooling": "mean", "cosine": True}
    folder = tmp_path_factory.mktemp("texts")
    model = recommender_of(folder, "text source", TEXTS, backbone=str(tiny_bert_folder), **both)
    add_adapters(model.run.model, config_of("houlsby"))
    shaken(model.run.model).eval()
    return model


@pytest.fixture(scope="module")
def bundle(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "news"
    write_bundle(texts, folder)
    return folder


def run_export(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments), "--device", "cpu"])
    export.main()


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    """The bundle as ONNX files, written by the command."""
    folder = tmp_path_factory.mktemp("exports") / "news_onnx"
    with pytest.MonkeyPatch.context() as patch:
        run_export(patch, bundle, "--onnx", folder)
    return folder


class TestTexts:
    def test_the_folder_recommends_alone_as_the_command_does(self, bundle, exported, monkeypatch, capsys):
        alone = shutil.copytree(exported, exported.parent / "alone")
        program = (
            "import sys; sys.argv[1:] = ['i2', 'i4', '--top-k', '3']; sys.path.insert(0, '.')\n"
            "import recommend; recommend.main()\n"
            "assert not {'torch', 'transformers', 'adapter4rec'} & set(sys.modules)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-I", "-c", program], cwd=alone, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        command(monkeypatch, bundle, "--history", "i2", "i4", "--top-k", "3", "--device", "cpu")
        recommended = capsys.readouterr().out.splitlines()[-3:]
        assert [line.split() for line in ran.stdout.splitlines()] == [line.split() for line in recommended]

    def test_it_encodes_and_ranks_what_it_has_never_seen(self, texts, exported):
        model = Model(exported)
        new = [("A RED garden's house", "Snow storm; " * 9 + 2000 * " " + "win"), ("music", "")]
        found = model.encode(new)
        assert np.allclose(found, texts.encode(new).numpy(), **CLOSE)
        assert np.allclose(model.encode(new[:1]), found[:1], **CLOSE)
        ranked, expected = model.recommend(["i1", new[0], "i5"]), texts.recommend(["i1", new[0], "i5"])
        assert [one.item for one in ranked] == [one.item for one in expected]
        assert np.allclose([one.score for one in ranked], [one.score for one in expected], **CLOSE)
        with pytest.raises(ValueError, match="'i9' is not in"):
            model.recommend(["i9"])
        with pytest.raises(ValueError, match="at least 1"):
            model.recommend(["i1"], top_k=0)
        for wrong in {"title": "old red house"}, ("old red house", "two", "too many"):
            with pytest.raises(ValueError, match="expected a text, or a tuple of title"):
                model.recommend(["i1", wrong])

    def test_the_description_has_the_inputs_and_outputs_of_the_files(self, exported):
        model = Model(exported)
        for session in (model.items, model.users):
            name = "item_encoder.onnx" if session is model.items else "user_encoder.onnx"
            about = model.about["files"][name]
            for kind, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
                assert {one.name: one.shape for one in found} == {
                    key: value["shape"] for key, value in about[kind].items()
                }

    def test_the_files_have_no_paths_of_this_machine(self, exported):
        for path in exported.glob("*.onnx"):
            model = onnx.load(path)
            onnx.checker.check_model(model)
            assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
            assert b"/site-packages/" not in path.read_bytes()

    def test_an_existing_folder_is_kept(self, bundle, exported, monkeypatch):
        before = sorted(exported.iterdir())
        with pytest.raises(UserError, match="already exists"):
            run_export(monkeypatch, bundle, "--onnx", exported)
        assert sorted(exported.iterdir()) == before


@pytest.fixture(scope="module")
def images(tmp_path_factory, tiny_mae_folder):
    """An image model on MAE, cropped images."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "pictures").mkdir()
    for name, picture in zip(NAMES, pictures(), strict=False):
        picture.save(folder / "pictures" / f"{name}.png")
    options = {"backbone": str(tiny_mae_folder), "images": str(folder / "pictures"), "fit": "crop"}
    return recommender_of(folder, "image source", dict.fromkeys(NAMES, ()), **options)


def pictures():
    """Images of which each way of resizing makes other pixels; the last ones are grey and transparent."""
    chance = np.random.default_rng(1)
    found = [Image.fromarray(chance.integers(0, 256, (20, 31, 3), np.uint8)) for _ in range(4)]
    return [*found, found[0].convert("L"), found[1].convert("RGBA").rotate(20)]


class TestImages:
    def test_a_bundle_is_checked_with_random_images_and_encodes_as_the_run(self, images, tmp_path):
        write_bundle(images, tmp_path / "bundle")
        files = write_onnx(adapter4rec.load(tmp_path / "bundle", device="cpu"), tmp_path / "onnx").files
        assert [one.file for one in files] == ["item_encoder.onnx", "user_encoder.onnx"]
        model = Model(tmp_path / "onnx")
        assert np.allclose(model.encode(pictures()), images.encode(pictures()).numpy(), **CLOSE)
        assert np.allclose(model.vectors, model.encode(pictures()), **CLOSE)
        history = ["i2", pictures()[3]]
        assert [one.item for one in model.recommend(history)] == [
            one.item for one in images.recommend(history)
        ]
        for fit in ("stretch", "crop", "pad"):
            for interpolation in ("bilinear", "bicubic"):
                model.about["content"] |= {"fit": fit, "interpolation": interpolation}
                found, same = model.item_inputs(pictures())["pixels"], Resizing(16, fit, interpolation)
                assert np.array_equal(found, np.stack([same.pixels(one) for one in pictures()]))

    def test_a_run_is_checked_with_its_images(self, images, tmp_path):
        contents, content = ImageGraph(images.run).sample(np.array([3, 1]), tmp_path)
        expected = [Resizing(16, "crop").pixels(picture) for picture in (pictures()[2], pictures()[0])]
        assert np.array_equal(contents, expected)
        assert np.array_equal(content.pixels.numpy(), expected)

    def test_random_masking_is_refused(self, images, tmp_path, monkeypatch):
        monkeypatch.setattr(images.run.model.item_encoder.backbone.config, "mask_ratio", 0.75)
        with pytest.raises(UserError, match="drops patches at random"):
            write_onnx(images, tmp_path / "onnx")


def test_an_id_tower_has_a_user_encoder_only(tmp_path, capsys, monkeypatch):
    model = recommender_of(tmp_path, "text source", TEXTS, method="id", user_encoder="mean")
    write_onnx(model, tmp_path / "onnx")
    assert not (tmp_path / "onnx" / "item_encoder.onnx").exists()
    read = Model(tmp_path / "onnx")
    assert [one.item for one in read.recommend(["i1", "i2"])] == [
        one.item for one in model.recommend(["i1", "i2"])
    ]
    with pytest.raises(ValueError, match="an id tower"):
        read.encode(["a text"])


def test_item_vectors_from_elsewhere(tmp_path, monkeypatch):
    """Their weights are in a file of their own, as those of more than 2 GB."""
    monkeypatch.setattr(writing, "_LARGEST_FILE", 0)
    rows = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", rows)
    (tmp_path / "vectors.items.tsv").write_text("".join(f"{name}\n" for name in NAMES))
    options = {"method": "head", "item_vectors": str(tmp_path / "vectors.npy"), "user_encoder": "mean"}
    model = recommender_of(tmp_path, "text source", TEXTS, **options)
    write_onnx(model, tmp_path / "onnx")
    assert (tmp_path / "onnx" / "item_encoder.onnx.data").is_file()
    assert np.allclose(Model(tmp_path / "onnx").encode(list(rows)), model.items.rows[1:].numpy(), **CLOSE)


class Untraceable(MeanUserEncoder):
    """Depends on values."""

    def forward(self, items, log_mask):
        return items if items.sum() > 0 else super().forward(items, log_mask)


class TestRefused:
    def refuse(self, model, folder, message):
        with pytest.raises(UserError, match=message):
            write_onnx(model, folder / "onnx")
        assert not [path for path in folder.iterdir() if "onnx" in path.name]

    def test_a_file_that_computes_something_else(self, tmp_path, monkeypatch):
        model = recommender_of(tmp_path, "text source", TEXTS, method="id", user_encoder="mean")
        encode = model.run.model.encode_users

        def shifted(items, log_mask):
            return encode(items, log_mask) + (2e-4 if torch.compiler.is_exporting() else 0)

        monkeypatch.setattr(model.run.model, "encode_users", shifted)
        self.refuse(model, tmp_path, r"user_encoder.onnx: onnxruntime differs from PyTorch by 2.0e-04")

    def test_a_user_encoder_that_depends_on_values(self, tmp_path, monkeypatch):
        monkeypatch.setitem(USER_ENCODERS, "own", Untraceable)
        model = recommender_of(tmp_path, "text source", TEXTS, method="id", user_encoder="own")
        self.refuse(model, tmp_path, "user_encoder.onnx: PyTorch cannot trace the model")

    def test_new_items_and_other_number_formats(self, texts, tmp_path):
        self.refuse(texts.with_items({"n": ("red", "")}), tmp_path, "without new items")
        other = Recommender(texts.run, texts.process, "bf16")
        self.refuse(other, tmp_path, "in fp32")

    @pytest.mark.parametrize("family", ["k_adapter", "prompt"])
    def test_adapters_that_depend_on_padding(self, tmp_path, tiny_bert_folder, family):
        model = recommender_of(tmp_path, "text source", TEXTS, backbone=str(tiny_bert_folder))
        add_adapters(model.run.model, config_of(family, semantics="release"))
        self.refuse(model, tmp_path, f"{family} with --semantics release depends on")

    def test_missing_libraries(self, texts, tmp_path, monkeypatch):
        monkeypatch.setattr(writing, "find_spec", lambda name: None if name == "onnxscript" else name)
        self.refuse(texts, tmp_path, r"onnxscript: pip install 'adapter4rec\[onnx\]'")

    @pytest.mark.parametrize(
        "options", [[], ["--onnx", "o", "--push", "me/o"], ["--onnx", "o", "--without-base"]]
    )
    def test_options_that_write_nothing(self, bundle, monkeypatch, options):
        with pytest.raises(UserError, match="--bundle"):
            run_export(monkeypatch, bundle, *options)
