"""The rule for text: encodings, empty texts, names, folder names that are not UTF-8, any terminal."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import REPOSITORY, write_domain
from trees import TextSourceSettings, carry_out

import adapter4rec
from adapter4rec.data import lines
from adapter4rec.data.interactions import read_interactions, read_items
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.plain_text import is_blank, json_text, name_fault

BLANK = ["", " ", "\u00a0", "\u3000", "\u200b", " \u00a0\u200b\u3000\t", "\ufeff", "\u2060", "\x00"]
VISIBLE = ["a", " a", "\u200ba", "雪", "!", "\u00a0.\u00a0", "é", "💡", "\u200bé"]
HISTORY = ["i1", "i2", "i3", "i1", "i2"]


@pytest.mark.parametrize(("texts", "blank"), [(BLANK, True), (VISIBLE, False)])
def test_what_an_empty_text_is(texts: list[str], blank: bool) -> None:
    assert [is_blank(text) for text in texts] == [blank] * len(texts)


@pytest.mark.parametrize("title", BLANK[1:5])
def test_an_empty_title_is_refused_whether_it_is_encoded_or_not(tmp_path: Path, title: str) -> None:
    _, items = write_domain(tmp_path, {}, {"i1": "one", "i2": title})
    for attributes in ((), ("title",)):
        with pytest.raises(UserError, match=r"items\.tsv:2: empty title"):
            read_items(items, attributes)
    assert read_items(items, ("title",), allow_empty_titles=True).texts["title"][1] == title


@pytest.mark.parametrize("name", ["a\x00b", "a\x1fb", "a\x7f", "a\x0b", "a\x85b", "a\rb"])
@pytest.mark.parametrize("what", ["item", "user"])
def test_a_control_character_in_a_name_is_refused(tmp_path: Path, name: str, what: str) -> None:
    items, clicks = {"i0": "zero", "i1": "one"}, {"anna": ["i0", "i1"] * 3}
    if what == "item":
        items[name] = "odd"
    else:
        clicks[name] = ["i0", "i1"] * 3
    users_path, items_path = write_domain(tmp_path, clicks, items)
    with pytest.raises(UserError, match=f"{what}s.tsv:{2 if what == 'user' else 3}: .*U\\+00") as caught:
        read_interactions(users_path, read_items(items_path), min_seq_len=5, max_seq_len=20)
    assert name not in str(caught.value)  # it is shown escaped


@pytest.mark.parametrize("name", ["i 1", " i1", "i1 "])
def test_a_space_in_an_item_name_is_named_as_the_cause(tmp_path: Path, name: str) -> None:
    _, items = write_domain(tmp_path, {}, {"i0": "zero", name: "one"})
    with pytest.raises(UserError, match=r"items\.tsv:2: the item name .* contains a space"):
        read_items(items)


def test_names_that_are_accepted_and_not() -> None:
    assert name_fault("anna b", "user") is None
    assert name_fault("雪\u00a0x", "item") is None
    assert name_fault("👩\u200d🔬", "user") is None  # a joiner within an emoji
    for blank in BLANK:
        assert name_fault(blank, "user")


@pytest.mark.parametrize("name", ["\u200b", "\u00a0", " "])
def test_a_blank_name_is_an_empty_name(tmp_path: Path, name: str) -> None:
    users, items = write_domain(tmp_path, {"anna": HISTORY, name: HISTORY}, {"i1": "a", "i2": "b", "i3": "c"})
    with pytest.raises(UserError, match=r"users\.tsv:2: empty user name"):
        read_interactions(users, read_items(items), min_seq_len=5, max_seq_len=20)


class TestEncodings:
    TITLES: ClassVar = {"i1": "blåbær", "i2": "smør\u00a0og brød", "é3": "tre"}
    CLICKS: ClassVar = {"åse": ["i1", "i2", "é3", "i1", "i2"], "b": ["é3"] * 5}

    @pytest.mark.parametrize("at_once", [1, 50_000])
    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "UTF8", "utf-32"])
    def test_other_encodings_give_the_same_data(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, at_once: int
    ) -> None:
        monkeypatch.setattr(lines, "_BLOCK", at_once)
        paths = write_domain(tmp_path / "plain", self.CLICKS, self.TITLES)
        table = read_items(paths[1], ("title",))
        expected = read_interactions(paths[0], table, min_seq_len=5, max_seq_len=20)
        for path in paths:
            path.write_bytes(path.read_text("utf-8").replace("\n", "\r\n").encode(encoding))
        again = read_items(paths[1], ("title",), encoding=encoding)
        found = read_interactions(paths[0], again, min_seq_len=5, max_seq_len=20, encoding=encoding)
        assert again.texts == table.texts == {"title": list(self.TITLES.values())}
        assert found.identity == expected.identity

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_utf_16_is_recognised(self, tmp_path: Path, encoding: str) -> None:
        path = tmp_path / "items.tsv"
        path.write_bytes("i1\tone\n".encode(encoding))
        with pytest.raises(UserError, match=f"{path}: encoded in {encoding[:6].upper()}; use --encoding utf"):
            read_items(path)

    def test_compressed_files_are_recognised(self, tmp_path: Path) -> None:
        path = tmp_path / "items.tsv"
        path.write_bytes(gzip.compress(b"i1\tone\n"))
        for encoding in ("utf-8", "latin-1", "utf-16"):
            with pytest.raises(UserError, match=f"{path}: not text but compressed with gzip"):
                read_items(path, encoding=encoding)

    @pytest.mark.parametrize(
        ("encoding", "raw"), [("cp1252", b"i1\ta\ni2\t\x81\n"), ("ascii", b"i1\ta\n\xe5")]
    )
    def test_a_wrong_encoding_names_the_line(self, tmp_path: Path, encoding: str, raw: bytes) -> None:
        path = tmp_path / "items.tsv"
        path.write_bytes(raw)
        with pytest.raises(UserError, match=f"{path}:2: not {encoding}"):
            read_items(path, encoding=encoding)

    @pytest.mark.parametrize("encoding", ["latin1000", "hex", "a\0b", ""])
    def test_an_unknown_encoding(self, tmp_path: Path, encoding: str) -> None:
        _, items = write_domain(tmp_path, {}, self.TITLES)
        with pytest.raises(UserError, match="--encoding: unknown encoding"):
            read_items(items, encoding=encoding)

    def test_a_history_that_is_not_utf_8_says_so(self, tmp_path: Path) -> None:
        users, items = write_domain(tmp_path, {}, self.TITLES)
        users.write_bytes(b"anna\ti1 i2\nbert\ti1 \xe93\n")
        with pytest.raises(UserError, match=f"{users}:2: not UTF-8 .*--encoding"):
            read_interactions(users, read_items(items), min_seq_len=5, max_seq_len=20)


def test_json_escapes_only_what_utf_8_cannot_hold() -> None:
    for content in ({"title": "blåbær"}, {"path": "caf\udce9", "title": "blåbær"}):
        text = json_text(content)
        assert json.loads(text.encode()) == content
    assert "blåbær" in json_text({"title": "blåbær"})


class TestFoldersAndTerminals:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        try:
            folder.mkdir()
        except OSError:
            pytest.skip("this file system has names in UTF-8 only")
        return folder

    def test_a_run_in_a_folder_that_is_not_utf_8(self, folder: Path, tiny_bert_folder: Path) -> None:
        titles = {f"i{number}": f"house {number}" for number in range(9)}
        clicks = {f"ü{user}": [f"i{(user + step) % 9}" for step in range(5)] for user in range(9)}
        users, items = write_domain(folder, clicks, titles)
        values = {
            "users": users,
            "items": items,
            "backbone": str(tiny_bert_folder),
            "cache_folder": folder / "cache",
            "run_folder": folder / "run",
            "export": folder / "source.safetensors",
            "method": "head",
            "embedding_dim": 8,
            "max_seq_len": 4,
            "epochs": 1,
            "device": "cpu",
        }
        carry_out(TextSourceSettings.from_values(values))
        carry_out(TextSourceSettings.from_values(values | {"epochs": 2, "resume": True}))
        model = adapter4rec.load(folder / "run", device="cpu")
        assert len(model.recommend(model.clicks_of("ü1"), top_k=3)) == 3
        model.export(folder / os.fsdecode(b"vectors\xe9.safetensors"))
        environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPOSITORY)}
        for arguments in (
            ["recommend", folder / "run", "--users", "ü1"],
            ["report", folder / "ledger.jsonl"],
        ):
            command = [sys.executable, "-m", f"adapter4rec.{arguments[0]}", *map(str, arguments[1:])]
            done = subprocess.run(command, env=environment, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
        with pytest.raises(UserError, match="--tensorboard true: TensorBoard needs folder names in UTF-8"):
            carry_out(TextSourceSettings.from_values(values | {"resume": True, "tensorboard": True}))

    def test_what_a_terminal_cannot_show_is_escaped(self) -> None:
        program = (
            "import sys\nfrom adapter4rec.utils.errors import UserError, run_main\n"
            "def main():\n    print('bl\\xe5b\\xe6r \\udce9')\n    raise UserError('\\u96ea')\nrun_main(main)"
        )
        for encoding, shown in (("ascii", rb"bl\xe5b\xe6r \udce9"), ("utf-8", "blåbær \\udce9".encode())):
            environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(REPOSITORY)}
            done = subprocess.run(
                [sys.executable, "-c", program], env=environment, capture_output=True, check=False
            )
            assert done.returncode == 2
            assert done.stdout.strip() == shown
            assert b"Traceback" not in done.stderr
