"""Recommendations from finished runs: for users, for a history, for all; as lines, CSV and a picture."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import write_domain
from PIL import Image
from trees import (
    ImageSourceSettings,
    ImageTargetSettings,
    TextSourceSettings,
    TextTargetSettings,
    carry_out,
)

import adapter4rec
from adapter4rec import add_adapters, load_adapter, load_source, merge, recommend, save_adapter
from adapter4rec.adapters.lora import LoraConfig
from adapter4rec.checkpoints.source_models import load_source_weights, read_source_model
from adapter4rec.data.images.building import ImageLmdbSettings, build
from adapter4rec.data.images.decoding import Resizing
from adapter4rec.data.images.sheets import Row, Tile, draw_sheet
from adapter4rec.data.images.store import ImageFileStore
from adapter4rec.evaluation.leave_one_out import Split, rank
from adapter4rec.evaluation.settings import RankingSettings
from adapter4rec.interchange import __main__ as interchange
from adapter4rec.serving.candidates import Candidates, Items, RankedItem, RankedItems
from adapter4rec.serving.contact_sheet import draw_contact_sheet
from adapter4rec.serving.recommender import Recommender
from adapter4rec.serving.trained_runs import load_run
from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.process_group import Process

ITEMS, LENGTH = 20, 6
WORDS = ["red", "blue", "green", "big", "small"]
PLACES = ["house", "garden", "river", "city"]
TITLES = {f"i{number}": f"{WORDS[number // 4]} {PLACES[number % 4]}" for number in range(ITEMS)}
COMMON = {
    "max_seq_len": LENGTH,
    "embedding_dim": 8,
    "batch_size": 8,
    "precision": "fp32",
    "device": "cpu",
    "lr_backbone": 1e-2,
    "lr_item_head": 1e-2,
    "lr_user_encoder": 1e-2,
    "epochs": 1,
    "seed": 1,
}


@pytest.fixture(scope="module")
def clicks():
    chance = np.random.default_rng(5)
    return {
        f"u{user}": [f"i{i}" for i in chance.integers(0, ITEMS, chance.integers(5, 12))] for user in range(12)
    }


@pytest.fixture(scope="module")
def text_runs(tmp_path_factory, clicks, tiny_bert_folder):
    """A source run, and a Houlsby run that starts from it."""
    folder = tmp_path_factory.mktemp("text")
    users, items = write_domain(folder, clicks, TITLES)
    common = COMMON | {"users": users, "items": items, "backbone": str(tiny_bert_folder)}
    common |= {"cache_folder": folder / "cache"}
    source, exported = folder / "source", folder / "source.safetensors"
    values = common | {"run_folder": source, "export": exported}
    carry_out(TextSourceSettings.from_values(values))
    values = common | {"run_folder": folder / "houlsby", "source_checkpoint": exported, "method": "houlsby"}
    carry_out(TextTargetSettings.from_values(values | {"lr_adapter": 1e-2}))
    carry_out(
        TextTargetSettings.from_values(common | {"run_folder": folder / "popular", "method": "popularity"})
    )
    return folder


@pytest.fixture(scope="module")
def image_run(tmp_path_factory, clicks, tiny_mae_folder):
    """A head-only run on images, one of which is missing."""
    folder = tmp_path_factory.mktemp("image")
    users, items = write_domain(folder, clicks, {f"i{number}": () for number in range(ITEMS)})
    (folder / "images").mkdir()
    chance = np.random.default_rng(5)
    for number in range(1, ITEMS):
        pixels = chance.integers(0, 256, (20, 23, 3), np.uint8)  # each way of resizing gives other ones
        Image.fromarray(pixels).save(folder / "images" / f"i{number}.png")
    lmdb = folder / "images.lmdb"
    build(
        ImageLmdbSettings(
            items=items, images=folder / "images", into=lmdb, size=16, workers=1, missing="skip"
        )
    )
    common = COMMON | {"users": users, "items": items, "images": lmdb, "backbone": str(tiny_mae_folder)}
    common |= {"cache_folder": folder / "cache", "min_seq_len": 4}
    exported = folder / "source.safetensors"
    values = common | {"run_folder": folder / "source", "export": exported}
    carry_out(ImageSourceSettings.from_values(values))
    values = common | {"run_folder": folder / "head", "source_checkpoint": exported, "method": "head"}
    carry_out(ImageTargetSettings.from_values(values))
    return folder / "head"


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["recommend", *map(str, arguments)])
    recommend.main()


def test_the_command_waits_for_no_other_process(text_runs, monkeypatch, capsys):
    for name, value in {"WORLD_SIZE": "4", "RANK": "1"}.items():  # of another job, in the same shell
        monkeypatch.setenv(name, value)
    command(monkeypatch, text_runs / "source", "--users", "u3")
    assert "u3" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["source", "houlsby"])
def test_a_run_is_loaded_as_it_was(text_runs, one_process, name):
    """Its recommendations come from the best weights: they rank the test targets as the run did."""
    run = load_run(text_runs / name, one_process)
    result = json.loads((text_runs / name / "result.json").read_text())
    again = rank(
        run.model, run.domain, Split.TEST, one_process, RankingSettings(), coverage_at=(10,)
    ).metrics()
    assert again == result["test"]


def test_the_best_unseen_items_by_score(text_runs, one_process):
    run = load_run(text_runs / "source", one_process)
    recommender = Recommender(run, one_process)
    history = recommender.history_of("u3")
    (found,) = recommender.best_for([history], top_k=5)
    model, interactions = run.model.eval(), run.domain.interactions
    with torch.no_grad():
        items = model.encode_items(run.domain.store.fetch(np.arange(1, interactions.n_items + 1)))
        recent = history[-LENGTH:]
        places = torch.zeros(1, LENGTH, 8)
        places[0, LENGTH - len(recent) :] = items[recent - 1]
        mask = torch.arange(LENGTH)[None] >= LENGTH - len(recent)
        scores = (model.encode_users(places, mask)[0, -1] @ items.T).numpy()
    unseen = [item for item in np.argsort(-scores) + 1 if item not in history]
    assert [one.item for one in found] == [interactions.item_names[item - 1] for item in unseen[:5]]
    assert np.allclose([one.score for one in found], scores[np.array(unseen[:5]) - 1], atol=1e-5)


def test_items_are_encoded_in_the_format_that_is_asked_for(text_runs, one_process, monkeypatch, capsys):
    run = load_run(text_runs / "source", one_process)
    numbers = np.arange(1, run.domain.interactions.n_items + 1)
    full, half = (Recommender(run, one_process, form).items.of(numbers) for form in ("fp32", "bf16"))
    assert torch.allclose(full, half, atol=0.05)
    assert not torch.equal(full, half)
    command(monkeypatch, text_runs / "source", "--users", "u3", "--precision", "bf16")
    assert "u3: recommended" in capsys.readouterr().out


def test_more_items_than_there_are_gives_all_unseen_ones(text_runs, one_process):
    recommender = Recommender(load_run(text_runs / "source", one_process), one_process)
    history = recommender.history_of("u0")
    (found,) = recommender.best_for([history], top_k=1000)
    clicked = set(recommender.clicks_of("u0"))
    assert {one.item for one in found} == set(recommender.interactions.item_names) - clicked
    assert len(found) == recommender.interactions.n_items - len(clicked)


def test_lines_for_users_and_for_a_history(text_runs, monkeypatch, capsys, clicks):
    command(monkeypatch, text_runs / "houlsby", "--users", "u2", "--history", "i3", "i4", "--top-k", 3)
    printed = capsys.readouterr().out
    assert "u2: recommended" in printed
    assert "--history: recommended" in printed
    assert printed.count("  3. ") == 2
    assert f"      {clicks['u2'][-1]}  {TITLES[clicks['u2'][-1]]}" in printed.splitlines()


def test_csv_for_all_users(text_runs, one_process, monkeypatch, tmp_path, clicks):
    path = tmp_path / "all.csv"
    command(monkeypatch, text_runs / "source", "--csv", path, "--top-k", 2)
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    assert [row["user"] for row in rows] == [user for user in clicks for _ in range(2)]
    recommender = Recommender(load_run(text_runs / "source", one_process), one_process)
    (found,) = recommender.best_for([recommender.history_of("u7")], top_k=2)
    mine = [row for row in rows if row["user"] == "u7"]
    assert [row["item"] for row in mine] == [one.item for one in found]
    assert all(row["title"] == TITLES[row["item"]] for row in rows)
    assert [row["rank"] for row in mine] == ["1", "2"]


def test_contact_sheet_of_an_image_run(image_run, monkeypatch, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    command(monkeypatch, image_run, "--users", "u1", "u2", "--sheet", sheet, "--top-k", 4)
    assert str(sheet) in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.width > 8 * 96
        assert picture.height > 2 * 96


def test_a_contact_sheet_shows_the_pictures_it_was_given(tmp_path):
    store = ImageFileStore(
        [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))], "ab", Resizing(8)
    )
    items = Candidates([Items("ab", ["", ""], "ab", store, np.arange(1, 3))])
    found = RankedItems([RankedItem("b", "", 1.0, new=False)])
    draw_contact_sheet(items, [("somebody", np.array([1]))], [found], tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3)
    middle = len(np.asarray(Image.open(tmp_path / "sheet.png"))[0]) // 2
    whole = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert (pixels == (250, 0, 0)).all(1).sum() == (pixels == (0, 0, 250)).all(1).sum() == 96 * 96
    assert (whole[:, :middle] == (250, 0, 0)).all(2).any()
    assert (whole[:, middle:] == (0, 0, 250)).all(2).any()


def test_a_sheet_in_a_notebook_is_an_image_with_whole_captions(image_run):
    model = adapter4rec.load(image_run, device="cpu")
    sheet = model.sheet(["u1"], top_k=2)
    assert isinstance(sheet, Image.Image)
    assert sheet.width > 5 * 96
    one, two = (
        draw_sheet([""], [Row("", [[Tile(Image.new("RGB", (9, 9)), caption)]])])
        for caption in ("short", " ".join(["long"] * 40) + " " + "x" * 60)
    )
    assert two.height > one.height + 100


def test_similar_items_are_those_of_the_nearest_embeddings(image_run, monkeypatch, capsys):
    model = adapter4rec.load(image_run, device="cpu")
    rows = F.normalize(model.items.rows[1:], dim=1)
    names = model.candidates.names
    for row, name in enumerate(names[:3]):
        expected = [at for at in (rows @ rows[row]).argsort(descending=True).tolist() if at != row]
        assert [one.item for one in model.similar(name, 4)] == [names[at] for at in expected[:4]]
    picture = image_run.parent / "images" / "i3.png"
    assert model.similar(picture, 1)[0].item == "i3"
    assert len(model.similar(picture, 99)) == len(names)
    command(monkeypatch, image_run, "--similar", "i3", "--top-k", 2)
    assert model.similar("i3", 1)[0].item in capsys.readouterr().out


def test_a_history_of_images_is_that_of_their_items(image_run, monkeypatch, capsys):
    model = adapter4rec.load(image_run, device="cpu")
    folder = image_run.parent / "images"
    files = [str(folder / f"i{number}.png") for number in (4, 7)]
    scores = {one.item: one.score for one in model.recommend(files, top_k=99)}
    for one in model.recommend(["i4", "i7"], top_k=99):
        assert scores[one.item] == pytest.approx(one.score, abs=1e-4)
    command(monkeypatch, image_run, "--history", *files, "--top-k", 2)
    assert "--history: recommended" in capsys.readouterr().out


def test_images_of_a_history_are_candidates_for_it_alone(image_run, monkeypatch, capsys, tmp_path):
    picture, table = tmp_path / "photo.png", tmp_path / "all.csv"
    Image.new("RGB", (20, 20), "red").save(picture)
    everything = (
        "--csv",
        table,
        "--export",
        tmp_path / "vectors.safetensors",
        "--users",
        "u1",
        "--top-k",
        99,
    )
    command(monkeypatch, image_run, "--history", picture, *everything)
    of_user, of_history = capsys.readouterr().out.split("--history: clicked")
    assert "content-" in of_history
    assert "content-" not in of_user
    assert "content-" not in table.read_text("utf-8")
    assert "content-" not in (tmp_path / "vectors.items.tsv").read_text("utf-8")


def test_the_reason_why_an_item_is_not_in_the_catalogue(image_run, monkeypatch):
    with pytest.raises(UserError, match="'i0' is not in the catalogue: it has no usable image"):
        command(monkeypatch, image_run, "--history", "i0")


def test_items_without_an_image_are_left_out(image_run, one_process):
    run = load_run(image_run, one_process)
    assert "i0" not in run.domain.interactions.item_names
    assert run.domain.interactions.left_out_items == 1
    assert run.domain.interactions.left_out_clicks > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "nobody"], "user 'nobody' is not in"),
        (["--history", "i1", "i99"], "item 'i99' is not in the catalogue"),
        (["--top-k", "0"], "must be at least 1"),
        (["--sheet", "x.png"], "not an image run"),
        (["--similar", "i1", "--csv", "x.csv"], "--similar: lists the nearest of all items; leave out --csv"),
        (["--similar", "i1", "--only-new"], "leave out --only-new"),
        (["--base", "folder"], "--base folder: is for a bundle"),
    ],
)
def test_what_is_not_there_is_told(text_runs, monkeypatch, arguments, message):
    with pytest.raises(UserError, match=message):
        command(monkeypatch, text_runs / "source", *arguments)


def test_folders_that_do_not_do(text_runs, tmp_path, one_process):
    with pytest.raises(UserError, match="not a run folder"):
        load_run(tmp_path, one_process)
    with pytest.raises(UserError, match="has no model"):
        load_run(text_runs / "popular", one_process)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(text_runs / "source", unfinished)
    (unfinished / "best.safetensors").unlink()
    with pytest.raises(UserError, match="no such checkpoint"):
        load_run(unfinished, one_process)
    (unfinished / "settings.json").write_text('{"identity": {"stage": "smell target"}, "settings": {}}')
    with pytest.raises(UserError, match="damaged"):
        load_run(unfinished, one_process)
    recorded = json.loads((text_runs / "source" / "settings.json").read_text())
    del recorded["settings"]["users"]
    (unfinished / "settings.json").write_text(json.dumps(recorded))
    with pytest.raises(UserError, match=r"settings\.json: --users is required"):
        load_run(unfinished, one_process)


def test_bare_names_have_no_titles(tmp_path, clicks, monkeypatch, capsys):
    users, items = write_domain(tmp_path, clicks, dict.fromkeys(TITLES, ()))
    values = COMMON | {"users": users, "items": items, "method": "id", "run_folder": tmp_path / "run"}
    carry_out(TextTargetSettings.from_values(values))
    command(monkeypatch, tmp_path / "run", "--users", "u1", "--top-k", 2)
    assert "u1: recommended" in capsys.readouterr().out


def test_a_run_that_moved_is_still_itself(text_runs, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(text_runs / "houlsby", moved)
    run = load_run(moved, Process(rank=0, world_size=1, device=torch.device("cpu")))
    assert run.folder == moved


def test_a_source_model_and_an_adapter_file_recommend_what_the_run_does(text_runs, monkeypatch, tmp_path):
    source, adapter = text_runs / "source.safetensors", text_runs / "houlsby" / "adapter.safetensors"
    command(monkeypatch, text_runs / "houlsby", "--csv", tmp_path / "run.csv")
    moved = tmp_path / "moved.safetensors"
    shutil.copy(adapter, moved)
    command(monkeypatch, "--source", source, "--adapter", moved, "--csv", tmp_path / "files.csv")
    assert (tmp_path / "files.csv").read_text() == (tmp_path / "run.csv").read_text()
    shutil.copy(text_runs / "users.tsv", tmp_path / "users.tsv")
    with pytest.raises(UserError, match="pass a run folder or a bundle, or both --source and --adapter"):
        command(monkeypatch, "--source", source)
    files = ("--source", source, "--adapter", moved, "--users-file", tmp_path / "users.tsv", "--users", "u3")
    command(monkeypatch, *files)
    with pytest.raises(UserError, match=r"nowhere\.tsv"):
        command(monkeypatch, "--source", source, "--adapter", moved, "--users-file", tmp_path / "nowhere.tsv")


def test_an_adapter_of_another_source_is_refused_unless_forced(text_runs, monkeypatch, tmp_path, capsys):
    adapter = text_runs / "houlsby" / "adapter.safetensors"
    checkpoint = read_checkpoint(text_runs / "source.safetensors")
    other = tmp_path / "other.safetensors"
    tensors = {name: tensor * 1.01 for name, tensor in checkpoint.tensors.items()}
    write_checkpoint(other, tensors, checkpoint.description)
    arguments = ("--source", other, "--adapter", adapter, "--users", "u3")
    with pytest.raises(UserError, match="trained on another model"):
        command(monkeypatch, *arguments)
    command(monkeypatch, *arguments, "--force")
    assert "u3: recommended" in capsys.readouterr().out


def test_a_source_model_is_one_line_in_a_notebook(text_runs, one_process):
    run = load_run(text_runs / "source", one_process)
    model = load_source(text_runs / "source.safetensors")
    expected = run.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    load_adapter(model, text_runs / "houlsby" / "adapter.safetensors")
    adapted = load_run(text_runs / "houlsby", one_process).model.state_dict()
    assert all(torch.equal(tensor, adapted[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(UserError, match="bert, 1 layers"):
        load_source(text_runs / "source.safetensors", layers=1)
    with pytest.raises(UserError, match="does not fit the model"):
        load_source(text_runs / "source.safetensors", max_seq_len=LENGTH + 1)


def test_a_merged_model_is_a_source_model_and_a_plain_folder(text_runs, monkeypatch, tmp_path, capsys):
    source, adapter = text_runs / "source.safetensors", tmp_path / "lora.safetensors"
    model = load_source(source)
    add_adapters(model, LoraConfig())
    torch.nn.init.normal_(model.adapters["user"].layers["0"]["query"].lora_B)
    save_adapter(model, adapter)
    merged = tmp_path / "merged.safetensors"
    monkeypatch.setattr(
        sys, "argv", ["merge", *map(str, (source, adapter, tmp_path / "plain", "--export", merged))]
    )
    merge.main()
    assert "merged source model" in capsys.readouterr().out
    assert (tmp_path / "plain" / "model.safetensors").is_file()
    again = load_source(merged)
    places, mask = torch.randn(2, LENGTH, 8), torch.ones(2, LENGTH, dtype=torch.bool)
    with torch.no_grad():
        assert torch.allclose(again.encode_users(places, mask), model.encode_users(places, mask), atol=1e-5)


def test_adapter_files_go_to_other_libraries_and_back(text_runs, monkeypatch, tmp_path, capsys):
    def exchange(*arguments):
        monkeypatch.setattr(sys, "argv", ["interchange", *map(str, arguments)])
        interchange.main()

    source, adapter = text_runs / "source.safetensors", text_runs / "houlsby" / "adapter.safetensors"
    exchange("export", "adapterhub", source, adapter, tmp_path / "folder")
    assert "not exported: the user encoder's adapters" in capsys.readouterr().out
    exchange("import", "adapterhub", source, tmp_path / "folder", tmp_path / "back.safetensors")
    there, back = read_checkpoint(adapter).tensors, read_checkpoint(tmp_path / "back.safetensors").tensors
    assert set(back) == {name for name in there if name.startswith("adapters.item.")}
    assert all(torch.equal(tensor, there[name]) for name, tensor in back.items())
    arguments = ["--source", source, "--adapter", tmp_path / "back.safetensors", "--users", "u1"]
    with pytest.raises(UserError, match="name them with --users-file and --items-file"):
        command(monkeypatch, *arguments)
    data = ["--users-file", text_runs / "users.tsv", "--items-file", text_runs / "items.tsv"]
    command(monkeypatch, *arguments, *data)
    assert "u1: recommended" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot export houlsby"):
        exchange("export", "peft", source, adapter, tmp_path / "peft")


def test_a_released_form_tells_its_sizes_by_its_weights(text_runs, tmp_path, tiny_bert_folder):
    """A file that does not say which run it is from, as converted ones."""
    whole = read_checkpoint(text_runs / "source.safetensors")
    path = tmp_path / "bare.safetensors"
    write_checkpoint(path, whole.tensors, {"what": "source model", "objective": "sasrec"})
    model = load_source(path, backbone=str(tiny_bert_folder))
    assert all(torch.equal(tensor, whole.tensors[name]) for name, tensor in model.state_dict().items())
    write_checkpoint(path, whole.tensors, {"what": "source model", "objective": "telepathy"})
    with pytest.raises(UserError, match="objective 'telepathy'"):
        load_source(path, backbone=str(tiny_bert_folder))


def test_a_run_whose_data_moved(text_runs, monkeypatch, tmp_path, capsys):
    command(monkeypatch, text_runs / "houlsby", "--users", "u3")
    before = capsys.readouterr().out
    for name in ("users.tsv", "items.tsv"):
        shutil.copy(text_runs / name, tmp_path / name)
    hidden = text_runs / "users.hidden"
    (text_runs / "users.tsv").rename(hidden)
    try:
        files = ("--users_file", tmp_path / "users.tsv", "--items_file", tmp_path / "items.tsv")
        command(monkeypatch, text_runs / "houlsby", "--users", "u3", *files)
        assert capsys.readouterr().out == before
    finally:
        hidden.rename(text_runs / "users.tsv")
    source, moved = text_runs / "source.safetensors", tmp_path / "source.safetensors"
    source.rename(moved)
    try:
        command(monkeypatch, text_runs / "houlsby", "--users", "u3", "--source", moved)
        assert capsys.readouterr().out == before
        with pytest.raises(UserError, match=r"source\.safetensors"):
            command(monkeypatch, text_runs / "houlsby", "--users", "u3")
    finally:
        moved.rename(source)
    with pytest.raises(UserError, match="applies to --source and --adapter"):
        command(monkeypatch, text_runs / "houlsby", "--force")


def test_a_source_model_of_another_objective_is_refused(text_runs):
    model = load_source(text_runs / "source.safetensors")
    source = read_source_model(text_runs / "source.safetensors")
    load_source_weights(model, source, {"objective": "sasrec"})
    with pytest.raises(UserError, match="trained with the objective sasrec"):
        load_source_weights(model, source, {"objective": "cpc"})


def test_a_run_whose_data_changed_is_refused(text_runs, tmp_path, one_process):
    lines = (text_runs / "users.tsv").read_text("utf-8").splitlines()
    (tmp_path / "users.tsv").write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"houlsby: the data or the initial weights have changed: users file \S+tsv$"
    ):
        load_run(text_runs / "houlsby", one_process, {"users": tmp_path / "users.tsv"})


def test_merging_an_adapter_of_another_source_needs_force(text_runs, monkeypatch, tmp_path):
    source, other, adapter = (tmp_path / f"{name}.safetensors" for name in ("source", "other", "lora"))
    checkpoint = read_checkpoint(text_runs / "source.safetensors")
    write_checkpoint(source, checkpoint.tensors, checkpoint.description)
    tensors = {name: tensor * 1.01 for name, tensor in checkpoint.tensors.items()}
    write_checkpoint(other, tensors, checkpoint.description)
    model = load_source(source)
    add_adapters(model, LoraConfig())
    save_adapter(model, adapter)
    arguments = ["merge", *map(str, (other, adapter, tmp_path / "plain"))]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(UserError, match="trained on another model"):
        merge.main()
    monkeypatch.setattr(sys, "argv", [*arguments, "--force"])
    merge.main()
    with pytest.raises(UserError, match="already exists"):
        merge.main()


def test_a_run_reads_a_folder_of_images_and_notices_when_one_changes(image_run, tmp_path, monkeypatch):
    folder = image_run.parent
    shutil.copytree(folder / "images", tmp_path / "images")
    recorded = json.loads((image_run / "settings.json").read_text())["settings"]
    wanted = ("backbone", "users", "items", "source_checkpoint", "method", "min_seq_len", *COMMON)
    values = {name: recorded[name] for name in wanted}
    values |= {name: image_run / path for name, path in values.items() if str(path).startswith("./")}
    values |= {"images": tmp_path / "images", "missing": "skip", "cache_folder": tmp_path / "cache"}
    carry_out(ImageTargetSettings.from_values(values | {"run_folder": tmp_path / "run"}))
    of_lmdb, of_folder = (
        json.loads((run / "settings.json").read_text())["identity"]["data"]
        for run in (image_run, tmp_path / "run")
    )
    assert of_lmdb == of_folder
    model = adapter4rec.load(tmp_path / "run", device="cpu")
    assert model.run.domain.interactions.left_out_items == 1
    Image.new("RGB", (9, 9), "red").save(tmp_path / "images" / "i3.png")
    with pytest.raises(UserError, match="data or the initial weights have changed"):
        adapter4rec.load(tmp_path / "run", device="cpu")


def test_an_adapter_that_no_run_wrote_recommends_on_named_data(
    text_runs, monkeypatch, tmp_path, capsys, tiny_bert_folder
):
    source, adapter = text_runs / "source.safetensors", tmp_path / "adapter.safetensors"
    model = load_source(source)
    adapter4rec.load_adapter(model, text_runs / "houlsby" / "adapter.safetensors")
    adapter4rec.save_adapter(model, adapter)
    command(monkeypatch, text_runs / "houlsby", "--users", "u3")
    expected = capsys.readouterr().out
    words = ("--source", source, "--adapter", adapter, "--users", "u3")
    with pytest.raises(UserError, match="does not record the data"):
        command(monkeypatch, *words)
    files = ("--users_file", text_runs / "users.tsv", "--items_file", text_runs / "items.tsv")
    command(monkeypatch, *words, *files)
    assert capsys.readouterr().out.splitlines()[-10:] == expected.splitlines()[-10:]
    converted = tmp_path / "converted.safetensors"  # as from the released code: without settings
    description = {"what": "source model", "objective": "sasrec"}
    write_checkpoint(converted, read_source_model(source).tensors, description)
    words = ("--source", converted, "--adapter", adapter, "--users", "u3", *files)
    command(monkeypatch, *words, "--backbone", tiny_bert_folder)
    assert capsys.readouterr().out.splitlines()[-10:] == expected.splitlines()[-10:]


@pytest.mark.parametrize("normalisation", ["paper", "backbone"])
def test_merging_keeps_the_normalisation_that_the_adapter_was_trained_with(
    image_run, monkeypatch, tmp_path, tiny_mae_folder, normalisation
):
    backbone = tmp_path / "backbone"
    shutil.copytree(tiny_mae_folder, backbone)
    means = {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
    (backbone / "preprocessor_config.json").write_text(json.dumps(means))
    source, adapter = image_run.parent / "source.safetensors", tmp_path / "a.safetensors"
    model = load_source(source, backbone=backbone, normalisation=normalisation)
    expected = list(model.item_encoder.normalisation.mean)
    add_adapters(model, LoraConfig())
    save_adapter(model, adapter, {"settings": {"normalisation": normalisation}})
    files = [str(path) for path in (source, adapter, tmp_path / "merged", "--backbone", backbone)]
    monkeypatch.setattr(sys, "argv", ["merge", *files, "--export", str(tmp_path / "m.safetensors")])
    merge.main()
    recorded = json.loads((tmp_path / "merged" / "preprocessor_config.json").read_text())
    assert recorded["image_mean"] == expected
    merged = load_source(tmp_path / "m.safetensors", backbone=backbone)
    assert list(merged.item_encoder.normalisation.mean) == expected
