"""A trained model in a notebook: contents are encoded as the catalogue's, new items are ranked, embeddings
are exported."""

import csv
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, write_domain
from PIL import Image
from test_recommend import COMMON, TITLES, clicks, command, image_run, text_runs  # noqa: F401 (fixtures)
from trees import TextSourceSettings, carry_out, recorded_settings

import adapter4rec
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.text import tokenise
from adapter4rec.models.backbone_folders import backbone_folder
from adapter4rec.serving.new_items import tokenizer_of
from adapter4rec.utils.errors import UserError


@pytest.fixture(scope="module")
def model(text_runs):
    return adapter4rec.load(text_runs / "houlsby", device="cpu")


@pytest.fixture(scope="module")
def image_model(image_run):
    return adapter4rec.load(image_run, device="cpu")


def test_models_in_threads_do_not_disturb_each_other(text_runs, model):
    """Dropout is off also between two calls, and each title is cut to the length of its own run."""
    assert not model.run.model.training
    tokenizer = tokenizer_of(backbone_folder(model.run.settings.backbone))
    title = ["red house " * 30]

    def tokens(number):
        length = 10 + 10 * (number % 3)
        return length, len(tokenise(title, tokenizer, length, None).tokens)

    with ThreadPoolExecutor(3) as pool:
        assert {count - length for length, count in pool.map(tokens, range(300))} == {0}


def known_vectors(model, count):
    return model.items.rows[1 : count + 1]


class TestLoading:
    def test_files_that_moved(self, text_runs, model, tmp_path):
        there = {}
        for name in ("users.tsv", "items.tsv", "source.safetensors"):
            there[name] = shutil.copy(text_runs / name, tmp_path / name)
        moved = adapter4rec.load(
            text_runs / "houlsby",
            device="cpu",
            users=there["users.tsv"],
            items=there["items.tsv"],
            source_checkpoint=there["source.safetensors"],
        )
        assert moved.run.settings.items == tmp_path / "items.tsv"
        assert moved.run.settings.source_checkpoint == tmp_path / "source.safetensors"
        assert moved.recommend(["i1"]) == model.recommend(["i1"])
        (tmp_path / "items.tsv").write_text("i1\tanother\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"items\.tsv"):
            adapter4rec.load(text_runs / "houlsby", device="cpu", items=there["items.tsv"])

    def test_what_is_not_there_is_told(self, text_runs, tmp_path):
        with pytest.raises(UserError, match="did you mean 'bf16'"):
            adapter4rec.load(text_runs / "houlsby", precision="bf")
        with pytest.raises(UserError, match="not a run folder"):
            adapter4rec.load(tmp_path)


class TestEncoding:
    def test_a_title_is_encoded_as_the_item_that_has_it(self, model):
        names = model.interactions.item_names
        found = model.encode([TITLES[name] for name in names])
        assert found.dtype == torch.float32
        assert torch.allclose(found, known_vectors(model, len(names)), atol=1e-6)
        assert not torch.allclose(found[0], found[1])

    def test_an_image_is_encoded_as_the_item_that_has_it(self, image_run, image_model):
        names = image_model.interactions.item_names
        paths = [image_run.parent / "images" / f"{name}.png" for name in names]
        with Image.open(paths[1]) as picture:
            found = image_model.encode([paths[0], picture])
        assert torch.allclose(found, known_vectors(image_model, 2), atol=1e-6)

    @pytest.mark.parametrize(
        ("contents", "message"),
        [
            ("one title", "expected a list"),
            (Path("one.png"), "expected a list"),
            (Image.new("RGB", (8, 8)), "expected a list"),
            ({"title": "a"}, "expected a list"),
            ([{"title": "a", "colour": "b"}], "expected texts of title"),
            ([{"abstract": "a"}], "expected texts of title"),
            ([3], "expected texts of title"),
            ([("a", "b")], "expected texts of title"),
            ([""], "empty"),
        ],
    )
    def test_what_is_no_content_is_told(self, model, contents, message):
        with pytest.raises(UserError, match=message):
            model.encode(contents)

    def test_none_are_none(self, model):
        assert model.encode([]).shape == (0, 8)

    def test_several_attributes_are_tuples_or_dicts(self, clicks, tiny_bert_folder, tmp_path):
        texts = {name: (title, f"about {name} {title} " * 9) for name, title in TITLES.items()}
        users, items = write_domain(tmp_path, clicks, texts)
        values = COMMON | {"users": users, "items": items, "backbone": str(tiny_bert_folder)}
        values |= {"cache_folder": tmp_path / "cache", "run_folder": tmp_path / "run"}
        values |= {"attributes": "title,abstract", "abstract_tokens": 12}
        carry_out(TextSourceSettings.from_values(values))
        model = adapter4rec.load(tmp_path / "run", device="cpu")
        names = model.interactions.item_names[:5]
        tuples = model.encode([texts[name] for name in names])
        dicts = model.encode([{"abstract": texts[name][1], "title": texts[name][0]} for name in names])
        assert torch.equal(tuples, dicts)
        assert torch.allclose(tuples, known_vectors(model, 5), atol=1e-6)
        beyond = {"title": "a", "abstract": "b", "colour": "c"}
        for wrong in ("one text", ("title", 3), {"title": "no abstract"}, beyond):
            with pytest.raises(UserError, match=r"content 1 of 1: .*title, abstract"):
                model.encode([wrong])


class TestRecommending:
    def test_names_titles_and_scores(self, model):
        found = model.recommend(model.clicks_of("u3"), top_k=4)
        assert len(found) == 4
        assert all(one.title == TITLES[one.item] for one in found)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert found[0].item in repr(found)
        assert not {one.item for one in found} & set(model.clicks_of("u3"))

    def test_an_unknown_item_is_told(self, model):
        with pytest.raises(UserError, match="'i999' is not in the catalogue"):
            model.recommend(["i1", "i999"])


class TestNewItems:
    def test_a_new_item_with_a_known_title_scores_like_it(self, model):
        history = model.clicks_of("u3")
        best = model.recommend(history, top_k=1)[0]
        wider = model.with_items({"fresh": TITLES[best.item]})
        first, second = wider.recommend(history, top_k=2)
        assert {first.item, second.item} == {best.item, "fresh"}
        assert first.score == pytest.approx(second.score, abs=1e-5)
        assert {one.item: one.new for one in (first, second)} == {best.item: False, "fresh": True}

    def test_new_ones_alone_and_in_histories(self, model):
        wider = model.with_items({"a": "green house", "b": "old river"})
        assert {one.item for one in wider.recommend(["i1"], only_new=True)} == {"a", "b"}
        assert [one.item for one in wider.recommend(["a"], only_new=True)] == ["b"]
        with pytest.raises(UserError, match="no new items"):
            model.recommend(["i1"], only_new=True)

    def test_more_of_them_come_behind(self, model):
        once = model.with_items({"a": TITLES["i1"], "b": TITLES["i2"], "c": TITLES["i3"], "d": TITLES["i4"]})
        twice = model.with_items({"a": TITLES["i1"], "b": TITLES["i2"]}).with_items(
            {"b": TITLES["i2"], "c": TITLES["i3"], "d": TITLES["i4"]}
        )
        assert once.candidates.names == twice.candidates.names
        for only_new in (False, True):
            one, other = (wide.recommend(["i5", "d"], 30, only_new=only_new) for wide in (once, twice))
            scores = {item.item: item.score for item in other}
            assert scores == pytest.approx({item.item: item.score for item in one}, abs=1e-5)

    def test_a_known_name_must_have_its_content(self, model):
        assert model.with_items({"i1": TITLES["i1"]}).candidates is model.candidates
        cafe = model.with_items({normalize("NFD", "café"): "green house"})  # as file names of macOS
        assert cafe.with_items({"café": "green house"}).candidates is cafe.candidates
        with pytest.raises(UserError, match="already in the catalogue with different content"):
            model.with_items({"i1": "another title"})

    @pytest.mark.parametrize("name", ["", "\u200b", "a\tb", "a\nb", "a b", 3])
    def test_an_impossible_name_is_told(self, model, name):
        with pytest.raises(UserError, match="item name"):
            model.with_items({name: "green house"})

    def test_an_id_tower_cannot(self, text_runs, monkeypatch, tmp_path):
        values = recorded_settings(text_runs / "source")
        values |= {"method": "id", "run_folder": tmp_path / "id", "export": None}
        carry_out(TextSourceSettings.from_values(values))
        tower = adapter4rec.load(tmp_path / "id", device="cpu")
        assert len(tower.recommend(["i1"], top_k=3)) == 3
        with pytest.raises(UserError, match="an id tower"):
            tower.encode(["a title"])
        with pytest.raises(UserError, match="an id tower"):
            tower.with_items({"a": "title"})
        with pytest.raises(UserError, match="an id tower"):
            command(monkeypatch, tmp_path / "id", "--items", text_runs / "items.tsv")


class TestCommandLine:
    def new_items(self, tmp_path):
        path = tmp_path / "new.tsv"
        path.write_text(f"i1\t{TITLES['i1']}\nfresh\tgreen house\n", encoding="utf-8")
        return path

    def test_new_items_are_marked(self, text_runs, monkeypatch, capsys, tmp_path):
        new = self.new_items(tmp_path)
        command(
            monkeypatch,
            text_runs / "houlsby",
            "--items",
            new,
            "--history",
            "i3",
            "fresh",
            "--csv",
            tmp_path / "a.csv",
        )
        printed = capsys.readouterr().out
        assert f"{new}: 1 items that are new to the catalogue" in printed
        assert "fresh  green house  (new)" in printed
        rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8")))
        assert {row["item"] for row in rows if row["new"] == "1"} <= {"fresh"}
        command(monkeypatch, text_runs / "houlsby", "--items", new, "--only-new", "--csv", tmp_path / "b.csv")
        rows = list(csv.DictReader((tmp_path / "b.csv").open(encoding="utf-8")))
        assert len(rows) == 12
        assert {row["item"] for row in rows} == {"fresh"}

    def test_a_known_name_with_another_title_names_the_line(self, text_runs, monkeypatch, tmp_path):
        (tmp_path / "new.tsv").write_text("fresh\tgreen house\ni1\tanother\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"new\.tsv:2: item 'i1' is already in the catalogue"):
            command(monkeypatch, text_runs / "houlsby", "--items", tmp_path / "new.tsv")

    def test_new_items_have_titles_where_those_of_training_must(self, text_runs, monkeypatch, tmp_path):
        (tmp_path / "new.tsv").write_text("fresh\tgreen house\nother\t\u200b\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"new\.tsv:2: item 'other': empty title"):
            command(monkeypatch, text_runs / "houlsby", "--items", tmp_path / "new.tsv")

    def test_new_images_from_a_folder(self, image_run, monkeypatch, capsys, tmp_path):
        (tmp_path / "new.tsv").write_text("fresh\n", encoding="utf-8")
        Image.new("RGB", (30, 20), (200, 10, 90)).save(tmp_path / "fresh.png")
        options = ["--items", tmp_path / "new.tsv", "--item-images", tmp_path, "--only-new", "--users", "u1"]
        command(monkeypatch, image_run, *options, "--sheet", tmp_path / "sheet.png")
        assert "fresh  (new)" in capsys.readouterr().out
        frame = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
        assert (frame == (200, 80, 0)).all(1).any()
        with pytest.raises(UserError, match="--item-images is required"):
            command(monkeypatch, image_run, "--items", tmp_path / "new.tsv")

    def test_known_and_broken_images(self, image_run, monkeypatch, capsys, tmp_path):
        new, images = tmp_path / "new.tsv", tmp_path / "images"
        new.write_text("i3\ni4\nfresh\n", encoding="utf-8")
        images.mkdir()
        shutil.copy(image_run.parent / "images" / "i3.png", images)  # the same; that of i4 is not needed
        shutil.copy(image_run.parent / "images" / "i5.png", images / "fresh.png")
        options = ["--items", new, "--item-images", images, "--users", "u1"]
        command(monkeypatch, image_run, *options)
        assert f"{new}: 1 items that are new to the catalogue" in capsys.readouterr().out
        (images / "fresh.png").write_bytes(b"no image")
        with pytest.raises(UserError, match=r"new\.tsv:3: item 'fresh': cannot read image"):
            command(monkeypatch, image_run, *options)
        (images / "fresh.png").unlink()
        with pytest.raises(UserError, match=r"no image: .*new\.tsv:3: item 'fresh'"):
            command(monkeypatch, image_run, *options)
        shutil.copy(image_run.parent / "images" / "i5.png", images / "i3.png")
        new.write_text("i3\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"new\.tsv:1: item 'i3' is already in the catalogue"):
            command(monkeypatch, image_run, *options)

    def test_a_numbered_file_is_no_image_of_a_new_item(self, image_run, monkeypatch, tmp_path):
        (tmp_path / "new.tsv").write_text("fresh\nv12\n", encoding="utf-8")
        (tmp_path / "images").mkdir()
        for name in ("fresh", "0012"):
            shutil.copy(image_run.parent / "images" / "i5.png", tmp_path / "images" / f"{name}.png")
        options = ["--items", tmp_path / "new.tsv", "--item-images", tmp_path / "images", "--users", "u1"]
        with pytest.raises(UserError, match=r"1 new items have no image: .*'v12'"):
            command(monkeypatch, image_run, *options)

    def test_new_images_from_an_lmdb(self, image_run, monkeypatch, capsys, tmp_path):
        (tmp_path / "new.tsv").write_text("fresh\n", encoding="utf-8")
        (tmp_path / "images").mkdir()
        shutil.copy(image_run.parent / "images" / "i5.png", tmp_path / "images" / "fresh.png")
        build(
            ImageLmdbSettings(
                items=tmp_path / "new.tsv",
                images=tmp_path / "images",
                into=tmp_path / "lmdb",
                size=16,
                workers=1,
            )
        )
        capsys.readouterr()
        printed = []
        for place in ("images", "lmdb"):
            options = ["--items", tmp_path / "new.tsv", "--item-images", tmp_path / place, "--only-new"]
            command(monkeypatch, image_run, *options, "--users", "u1")
            printed.append(capsys.readouterr().out)
        assert "fresh  (new)" in printed[0]
        assert printed[0] == printed[1]

        files = {"items": tmp_path / "new.tsv", "images": tmp_path / "images", "into": tmp_path / "cropped"}
        build(ImageLmdbSettings(**files, size=16, workers=1, fit="crop"))
        options = ["--items", tmp_path / "new.tsv", "--item-images", tmp_path / "cropped", "--users", "u1"]
        with pytest.raises(UserError, match="cropped: built with --fit crop, but the run's with stretch"):
            command(monkeypatch, image_run, *options)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_run_is_loaded_by_the_package_alone_in_an_empty_folder(text_runs, image_run, tmp_path, kind):
    """As installed from a wheel: the trees are not there."""
    installed, empty = tmp_path / "site-packages", tmp_path / "empty"
    shutil.copytree(REPOSITORY / "adapter4rec", installed / "adapter4rec")
    empty.mkdir()
    run = text_runs / "houlsby" if kind == "text" else image_run
    program = (
        f"import adapter4rec\nmodel = adapter4rec.load({str(run)!r}, device='cpu')\n"
        "model.export('embeddings.safetensors')\nprint(adapter4rec.__file__)"
    )
    environment = os.environ | {"PYTHONPATH": str(installed)}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str(installed / "adapter4rec" / "__init__.py")
    assert (empty / "embeddings.safetensors").is_file()
    assert {path.name for path in installed.iterdir()} == {"adapter4rec"}
