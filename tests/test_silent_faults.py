"""What must never pass without a word: damaged weights, replaced models, dropped users, merged names."""

import shutil

import pytest
import torch
from conftest import write_domain
from test_recommend import COMMON, TITLES, clicks, text_runs  # noqa: F401 (fixtures)
from trees import TextSourceSettings, carry_out, recorded_settings

import adapter4rec
from adapter4rec.utils.checkpoint_file import read_checkpoint, write_checkpoint
from adapter4rec.utils.errors import UserError


def flip_a_byte(path, place=-5):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def copied(text_runs, tmp_path):
    folder = shutil.copytree(text_runs, tmp_path / "runs")
    return folder, {"source_checkpoint": folder / "source.safetensors", "device": "cpu"}


@pytest.mark.parametrize("damaged", ["houlsby/best.safetensors", "source.safetensors"])
def test_a_flipped_byte_of_weights_is_refused(text_runs, tmp_path, damaged):
    folder, options = copied(text_runs, tmp_path)
    adapter4rec.load(folder / "houlsby", **options)
    flip_a_byte(folder / damaged)
    with pytest.raises(UserError, match=f"{folder / damaged}.*SHA-256"):
        adapter4rec.load(folder / "houlsby", **options)


def test_a_flipped_byte_of_an_adapter_is_refused(text_runs, tmp_path):
    folder, _ = copied(text_runs, tmp_path)
    model = adapter4rec.load_source(folder / "source.safetensors")
    path = folder / "houlsby" / "adapter.safetensors"
    adapter4rec.load_adapter(model, path)
    flip_a_byte(path)
    with pytest.raises(UserError, match="SHA-256"):
        adapter4rec.load_adapter(model, path)


def test_the_state_of_a_run_is_verified_before_it_is_resumed(text_runs, tmp_path):
    folder, _ = copied(text_runs, tmp_path)
    values = recorded_settings(folder / "source")
    values |= {"run_folder": folder / "source", "export": None, "resume": True, "epochs": 2}
    flip_a_byte(folder / "source" / "last.safetensors")
    with pytest.raises(UserError, match="SHA-256"):
        carry_out(TextSourceSettings.from_values(values))


def test_a_checkpoint_without_its_json_is_read_with_a_warning(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, {"a": torch.ones(3)}, {"what": "test"})
    path.with_suffix(".json").unlink()
    assert read_checkpoint(path).description == {"what": "test"}
    assert f"warning: {path}" in capsys.readouterr().err


@pytest.mark.parametrize("killed_at", ["tensors", "json"])
def test_a_write_that_is_killed_at_any_moment_leaves_a_readable_pair(tmp_path, monkeypatch, killed_at):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, {"a": torch.zeros(3)}, {"what": "old"})
    for attempt in range(2):  # the second write starts from what the first, killed one has left
        failing = path if killed_at == "tensors" else path.with_suffix(".json")
        monkeypatch.setattr("pathlib.Path.replace", _fails_for(failing))
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(path, {"a": torch.full((3,), attempt + 1.0)}, {"what": "new"})
        monkeypatch.undo()
        expected = 0.0 if killed_at == "tensors" else attempt + 1.0
        assert read_checkpoint(path).tensors["a"].tolist() == [expected] * 3


def _fails_for(path):
    from pathlib import Path

    replace = Path.replace

    def failing(self, target):
        if target == path:
            raise KeyboardInterrupt
        return replace(self, target)

    return failing


class TestExports:
    @pytest.fixture
    def values(self, text_runs, tmp_path, tiny_bert_folder):
        domain = {"users": text_runs / "users.tsv", "items": text_runs / "items.tsv"}
        return (
            COMMON
            | domain
            | {
                "backbone": str(tiny_bert_folder),
                "cache_folder": tmp_path / "cache",
                "method": "head",
                "run_folder": tmp_path / "first",
                "export": tmp_path / "source.safetensors",
            }
        )

    def test_the_export_of_another_run_is_kept(self, values, tmp_path):
        carry_out(TextSourceSettings.from_values(values))
        before = values["export"].read_bytes()
        other = values | {"seed": 2, "run_folder": tmp_path / "second"}
        with pytest.raises(UserError, match="the run first"):
            carry_out(TextSourceSettings.from_values(other))
        assert not (tmp_path / "second" / "last.safetensors").exists()  # refused before it trained
        assert values["export"].read_bytes() == before
        carry_out(TextSourceSettings.from_values(other | {"overwrite": True}))
        assert read_checkpoint(values["export"]).description["run"] == "second"

    def test_the_same_run_replaces_its_own(self, values):
        carry_out(TextSourceSettings.from_values(values))
        carry_out(TextSourceSettings.from_values(values | {"epochs": 2, "resume": True}))
        assert read_checkpoint(values["export"]).description["record"]["requested_epochs"] == 2

    def test_foreign_files_are_kept(self, values):
        values["export"].write_bytes(b"something else")
        with pytest.raises(UserError, match=r"source\.safetensors"):
            carry_out(TextSourceSettings.from_values(values))
        assert values["export"].read_bytes() == b"something else"


class TestDroppedUsers:
    def run(self, folder, clicks, capsys, backbone, **options):
        users, items = write_domain(folder, clicks, TITLES)
        values = COMMON | {"users": users, "items": items, "backbone": str(backbone), "method": "head"}
        values |= {"cache_folder": folder / "cache", "run_folder": folder / "run"} | options
        carry_out(TextSourceSettings.from_values(values))
        return capsys.readouterr().out

    def test_many_dropped_users_are_named_at_the_end(self, tmp_path, clicks, capsys, tiny_bert_folder):
        short = {f"short{number}": ["i1", "i2", "i3", "i4"] for number in range(4)}
        printed = self.run(tmp_path, clicks | short, capsys, tiny_bert_folder)
        end = printed[printed.rindex("HR@10") :]
        assert "4 of 16 users" in end
        assert "--min_seq_len" in end

    def test_cut_histories_are_named_with_their_setting(self, tmp_path, clicks, capsys, tiny_bert_folder):
        printed = self.run(tmp_path, clicks, capsys, tiny_bert_folder, max_seq_len=2)
        cut = sum(max(0, len(one) - 5) for one in clicks.values())
        end = printed[printed.rindex("HR@10") :]
        assert f"{cut} clicks" in end
        assert "--max_seq_len" in end

    def test_few_are_no_warning(self, tmp_path, clicks, capsys, tiny_bert_folder):
        printed = self.run(tmp_path, clicks | {"short": ["i1"]}, capsys, tiny_bert_folder)
        assert "warning:" not in printed


class TestNamesThatAreNotUtf8:
    @pytest.mark.parametrize("file", ["users.tsv", "items.tsv"])
    def test_are_refused_with_file_and_line(self, tmp_path, file):
        from adapter4rec.data.interactions import read_interactions, read_items

        both = {"caf\u00e9": ["a", "b", "c", "d", "e"], "caf\u00e8": ["a", "b", "c", "d", "e"]}
        items = dict.fromkeys(["a", "b", "c", "d", "e", "\u00e9", "\u00e8"], "title")
        users_path, items_path = write_domain(tmp_path, both, items)
        path = tmp_path / file
        path.write_bytes(path.read_text("utf-8").encode("latin-1"))
        line = 1 if file == "users.tsv" else 6
        with pytest.raises(UserError, match=f"{path}:{line}: not UTF-8"):
            read_interactions(users_path, read_items(items_path), min_seq_len=5, max_seq_len=5)
