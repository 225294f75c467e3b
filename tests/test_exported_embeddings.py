"""Exported embeddings give the scores that recommendations are ranked by, and lie beside their names."""

import json
import re

import polars as pl
import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file
from test_recommend import TITLES, clicks, command, text_runs  # noqa: F401 (fixtures)
from test_recommender import model  # noqa: F401 (a fixture)

from adapter4rec.data.item_vectors import read_item_vectors
from adapter4rec.utils.checkpoint_file import read_checkpoint
from adapter4rec.utils.errors import UserError


class TestExporting:
    def test_exported_embeddings_give_the_scores(self, text_runs, model, monkeypatch, capsys, tmp_path):
        path = tmp_path / "all.safetensors"
        new = tmp_path / "new.tsv"
        new.write_text(f"i1\t{TITLES['i1']}\nfresh\tgreen house\n", encoding="utf-8")
        command(monkeypatch, text_runs / "houlsby", "--items", new, "--export", path, "--split", "all")
        assert "names in all.items.tsv and all.users.tsv" in capsys.readouterr().out
        tensors = load_file(path)
        items = [line.split("\t") for line in (tmp_path / "all.items.tsv").read_text("utf-8").splitlines()]
        users = (tmp_path / "all.users.tsv").read_text("utf-8").splitlines()
        assert items[-1] == ["fresh", "green house"]
        assert tensors["items"].shape == (len(items), 8)
        assert users == model.interactions.user_names
        wider = model.with_items({"fresh": "green house"})
        scores = tensors["items"] @ tensors["users"][users.index("u3")]
        row_of = {name: row for row, (name, _) in enumerate(items)}
        for one in wider.recommend(wider.clicks_of("u3"), top_k=5):
            assert scores[row_of[one.item]].item() == pytest.approx(one.score, abs=1e-5)

    def test_tabs_and_line_breaks_in_titles_become_spaces(self, model, tmp_path):
        model.with_items({"b": "two\tlines\nof title"}).export(tmp_path / "all.safetensors")
        assert (tmp_path / "all.items.tsv").read_text("utf-8").endswith("b\ttwo lines of title\n")

    def test_the_reported_test_follows_from_the_vectors_as_the_page_says(
        self,
        text_runs,
        model,
        monkeypatch,
        capsys,
        tmp_path,
    ):
        page = (REPOSITORY / "docs" / "notebook.md").read_text("utf-8")
        (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        monkeypatch.chdir(tmp_path)
        command(monkeypatch, text_runs / "houlsby", "--export", tmp_path / "embeddings.safetensors")
        capsys.readouterr()
        exec(code, {"model": model})
        reported = json.loads((text_runs / "houlsby" / "result.json").read_text())["test"]["HR@10"]
        assert capsys.readouterr().out.strip() == f"HR@10 {reported:.2f} %"

    @pytest.mark.parametrize(
        "name, other", [("all.safetensors", "users.tsv"), ("all.parquet", "users.parquet")]
    )
    def test_nothing_is_written_where_one_of_the_files_cannot_be(self, model, tmp_path, name, other):
        taken = (tmp_path / name).with_suffix(f".{other}")
        taken.mkdir()
        with pytest.raises(UserError, match=re.escape(f"{taken}: expected a file, found a folder")):
            model.export(tmp_path / name)
        assert list(tmp_path.iterdir()) == [taken]

    def test_parquet_has_the_same_vectors(self, text_runs, model, monkeypatch, capsys, tmp_path):
        command(monkeypatch, text_runs / "houlsby", "--export", tmp_path / "all.parquet")
        assert "those of users in all.users.parquet" in capsys.readouterr().out
        model.export(tmp_path / "all.safetensors")
        tensors = load_file(tmp_path / "all.safetensors")
        items, users = (pl.read_parquet(tmp_path / name) for name in ("all.parquet", "all.users.parquet"))
        assert items["item"].to_list() == model.candidates.names
        assert items["title"].to_list() == model.candidates.titles
        assert users["user"].to_list() == model.interactions.user_names
        assert (items["vector"].to_numpy() == tensors["items"].numpy()).all()
        assert (users["vector"].to_numpy() == tensors["users"].numpy()).all()
        read = read_item_vectors(tmp_path / "all.parquet")  # as --item_vectors does
        assert read.names == model.candidates.names
        assert (read.rows == tensors["items"].numpy()).all()

    def test_the_index_of_the_page_finds_what_exact_ranking_does(self, model, monkeypatch, capsys, tmp_path):
        pytest.importorskip("faiss")
        page = (REPOSITORY / "docs" / "sharing.md").read_text("utf-8")
        (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "faiss" in block)
        monkeypatch.chdir(tmp_path)
        model.export("embeddings.parquet", split="all")
        exec(code, {})
        assert float(capsys.readouterr().out.split()[-2]) > 95

    @pytest.mark.parametrize(("split", "held_out"), [("validation", 2), ("test", 1), ("all", 0)])
    def test_a_split_holds_its_target_and_later_clicks_out(
        self,
        text_runs,
        model,
        monkeypatch,
        tmp_path,
        split,
        held_out,
    ):
        path = tmp_path / "vectors.safetensors"
        command(monkeypatch, text_runs / "houlsby", "--export", path, "--split", split)
        clicks = [model.history(user) for user in range(model.interactions.n_users)]
        expected = model.vectors_of([one[: len(one) - held_out] for one in clicks])
        assert torch.equal(load_file(path)["users"], expected)
        assert torch.equal(model.user_vectors(split), expected)
        assert read_checkpoint(path).description["split"] == split

    def test_new_items_alone(self, model, tmp_path):
        wider = model.with_items({"a": "green house"})
        path = tmp_path / "new.safetensors"
        wider.export(path, only_new=True)
        assert read_checkpoint(path).description["new_items"] == 1
        assert (tmp_path / "new.items.tsv").read_text("utf-8") == "a\tgreen house\n"
        assert torch.allclose(load_file(path)["items"], model.encode(["green house"]), atol=1e-6)
        with pytest.raises(UserError, match="no new items"):
            model.export(tmp_path / "none.safetensors", only_new=True)

    def test_all_files_or_none(self, model, monkeypatch, tmp_path):
        def broken(histories):
            return torch.full((len(histories), 8), torch.nan)

        monkeypatch.setattr(model, "vectors_of", broken)
        with pytest.raises(UserError, match="non-finite"):
            model.export(tmp_path / "all.safetensors")
        assert not list(tmp_path.iterdir())
        with pytest.raises(UserError, match=r"ends in \.safetensors"):
            model.export(tmp_path / "all.npz")
