"""Reading users and items, filtering and splitting, against a plain reimplementation of the specification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_domain

from adapter4rec.data import lines
from adapter4rec.data.interactions import Interactions, read_interactions, read_items
from adapter4rec.utils.errors import UserError

ITEMS = {"i1": "one", "i2": "two", "i3": "three", "i4": "four"}
USERS = {"anna": ["i1", "i2", "i3", "i1", "i2"], "bert": ["i3", "i3", "i2", "i1", "i4", "i4"]}


def read(users: Path, items: Path, *, min_seq_len: int = 5, max_seq_len: int = 20) -> Interactions:
    return read_interactions(users, read_items(items), min_seq_len=min_seq_len, max_seq_len=max_seq_len)


def file_of(folder: Path, content: bytes, name: str = "items.tsv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def complaint(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


def sequences_before(interactions: Interactions, without_last: int, width: int) -> list[list[int]]:
    rows = interactions.padded(
        np.arange(interactions.n_users), interactions.offsets[1:] - without_last, width
    )
    return [row[row > 0].tolist() for row in rows]


class TestItems:
    @pytest.mark.parametrize("columns", [1, 2, 3, 4])
    def test_one_to_four_columns(self, tmp_path: Path, columns: int) -> None:
        rows = [["i1", "a title", "an abstract", "a body"], ["i2", "another", "", ""]]
        text = "".join("\t".join(row[:columns]) + "\n" for row in rows)
        attributes = ("title", "abstract", "body")[: columns - 1]
        table = read_items(file_of(tmp_path, text.encode()), attributes)
        assert table.names == [b"i1", b"i2"]
        assert table.texts == {
            attribute: [row[place] for row in rows] for place, attribute in enumerate(attributes, 1)
        }

    def test_only_the_attributes_asked_for_are_kept(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, b"i1\tt1\ta1\tb1\ni2\tt2\ta2\tb2\n")
        assert read_items(path, ("body", "title")).texts == {"body": ["b1", "b2"], "title": ["t1", "t2"]}

    @pytest.mark.parametrize(
        "title",
        [
            'the ""news"" of "today"',
            '"',
            "NA",
            "null",
            "  starts with spaces",
            "&quot;entities&amp;",
            "lone\rcarriage return",
            "line\u2028separator",
            "form\x0cfeed",
            "next\x85line and vertical\x0btab",
            "Blåbærsyltetøy 雪",
        ],
    )
    def test_titles_are_raw_text(self, tmp_path: Path, title: str) -> None:
        path = file_of(tmp_path, f"i1\t{title}\ni2\tplain\n".encode())
        table = read_items(path, ("title",))
        assert table.names == [b"i1", b"i2"]
        assert table.texts["title"] == [title, "plain"]

    def test_carriage_returns_before_line_feeds_and_byte_order_mark_are_no_text(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, b"\xef\xbb\xbfi1\tone\r\ni2\ttwo \r\n")
        table = read_items(path, ("title",))
        assert table.names == [b"i1", b"i2"]
        assert table.texts["title"] == ["one", "two "]

    def test_the_last_line_needs_no_line_feed(self, tmp_path: Path) -> None:
        assert read_items(file_of(tmp_path, b"i1\tone\ni2\ttwo"), ("title",)).texts["title"] == ["one", "two"]

    def test_empty_titles_only_where_let_through(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, b"i1\tone\ni2\t\ni3\t  \n")
        message = complaint(lambda: read_items(path, ("title",)))
        assert f"{path}:2:" in message
        assert "--allow_empty_titles" in message
        assert read_items(path, ("title",), allow_empty_titles=True).texts["title"] == ["one", "", "  "]

    def test_a_title_of_spaces_is_empty(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, b"i1\tone\ni2\t  \n")
        assert f"{path}:2: empty title" in complaint(lambda: read_items(path))

    @pytest.mark.parametrize(
        ("content", "line", "words"),
        [
            (b"i1\tone\ni2\n", 2, "1 columns, but line 1 has 2"),
            (b"i1\ni2\ni3\tthree\n", 3, "2 columns, but line 1 has 1"),
            (b"i1\tt\ta\tb\tc\n", 1, "5 columns; expected at most 4"),
            (b"i1\tone\n\ttwo\n", 2, "empty item name"),
            (b"i1\tone\ni2\ttwo\ni1\tthree\n", 3, "duplicate item 'i1' (first in line 1)"),
            (b"i1\tone\n\ni2\ttwo\n", 2, "blank"),
            (b"i1\tone\r\n\r\ni2\ttwo\r\n", 2, "blank"),
            (b"\ni1\tone\n", 1, "blank"),
            (b"i1\tone\n\n", 2, "blank"),
            (b"i1\tone\ni2\ttw\xff\n", 2, "not UTF-8"),
            (b"i1\tone\ni2\t\xe5\n", 2, "not UTF-8"),
        ],
    )
    def test_bad_lines_are_named(self, tmp_path: Path, content: bytes, line: int, words: str) -> None:
        path = file_of(tmp_path, content)
        attributes = ("title",) if b"\t" in content.split(b"\n")[0] else ()
        message = complaint(lambda: read_items(path, attributes))
        assert message.startswith(f"{path}:{line}: ")
        assert words in message

    def test_an_attribute_without_a_column(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, b"i1\tone\n")
        message = complaint(lambda: read_items(path, ("title", "abstract")))
        assert message.startswith(f"{path}:1: no abstract column")

    def test_no_items(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, b"")
        assert complaint(lambda: read_items(path)) == f"{path}: no items in this file"


class TestMissingFiles:
    def test_no_such_file(self, tmp_path: Path) -> None:
        path = tmp_path / "items.tsv"
        assert complaint(lambda: read_items(path)).startswith(f"{path}: no such file")

    def test_a_folder(self, tmp_path: Path) -> None:
        assert complaint(lambda: read_items(tmp_path)) == f"{tmp_path}: expected a file, found a folder"

    def test_a_path_through_a_file(self, tmp_path: Path) -> None:
        path = file_of(tmp_path, b"i1\n") / "items.tsv"
        assert complaint(lambda: read_items(path)) == f"{path}: Not a directory"

    def test_users(self, tmp_path: Path) -> None:
        _, items = write_domain(tmp_path, USERS, ITEMS)
        path = tmp_path / "nobody.tsv"
        assert complaint(lambda: read(path, items)).startswith(f"{path}: no such file")


class TestUserErrors:
    @pytest.mark.parametrize(
        ("content", "line", "words"),
        [
            (b"anna\ti1 i2 i3 i4 i1\nbert i1 i2\n", 2, "1 columns"),
            (b"anna\ti1 i2\ti3 i4 i1\n", 1, "3 columns"),
            (b"anna\ti1 i2 i3 i4 i1\n\ti1 i2 i3 i4 i1\n", 2, "expected a user name"),
            (b"anna\ti1 i2 i3 i4 i1\nbert\ti1 \0 i2 i3 i1 i2\n", 2, "expected a user name"),
            (b"anna\ti1 i2 i3 i4 i1\nbert\ti1\nanna\ti2\n", 3, "duplicate user 'anna' (first in line 1)"),
            (b"anna\ti1 i2 i3 i4 i1\n\nbert\ti1\n", 2, "blank"),
        ],
    )
    def test_bad_lines_are_named(self, tmp_path: Path, content: bytes, line: int, words: str) -> None:
        _, items = write_domain(tmp_path, USERS, ITEMS)
        path = file_of(tmp_path, content, "users.tsv")
        message = complaint(lambda: read(path, items))
        assert message.startswith(f"{path}:{line}: ")
        assert words in message

    @pytest.mark.parametrize("block", [1, 25, 100])
    def test_clicks_on_unknown_items(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
    ) -> None:
        monkeypatch.setattr(lines, "_BLOCK", block)
        users = {
            **USERS,
            "none": [],
            "carl": ["i1", "i2", "lost", "i3", "gone"],
            "dora": ["lost", "i1", "i1", "i1", "i1"],
        }
        path, items = write_domain(tmp_path, users, ITEMS)
        message = complaint(lambda: read(path, items))
        assert message.startswith(f"{path}:4: item 'lost' is not in {items}")
        assert "3 clicks" in message

    def test_no_users(self, tmp_path: Path) -> None:
        path, items = write_domain(tmp_path, {}, ITEMS)
        assert complaint(lambda: read(path, items)) == f"{path}: no users in this file"

    def test_nobody_left(self, tmp_path: Path) -> None:
        path, items = write_domain(tmp_path, USERS, ITEMS)
        message = complaint(lambda: read(path, items, min_seq_len=7))
        assert message.startswith(f"{path}: no users after filtering: none of 2 has at least 7 clicks")
        assert "--min_seq_len" in message

    def test_one_item_left(self, tmp_path: Path) -> None:
        users = {"anna": ["i2"] * 6, "short": ["i1", "i3"]}
        path, items = write_domain(tmp_path, users, ITEMS)
        assert complaint(lambda: read(path, items)).startswith(f"{path}: only one item after filtering")


class TestFilteringAndSplitting:
    def test_repeats_count_as_clicks(self, tmp_path: Path) -> None:
        users = {"repeats": ["i1", "i1", "i1", "i1", "i2"], "four": ["i1", "i2", "i3", "i4"], "none": []}
        found = read(*write_domain(tmp_path, users, ITEMS))
        assert found.user_names == ["repeats"]
        assert found.dropped_users == 2
        assert found.clicks.tolist() == [1, 1, 1, 1, 2]

    def test_the_warning_names_the_causes_that_there_are(self, tmp_path: Path) -> None:
        users = {f"u{n}": ["i1", "i2"] * (3 if n else 1) for n in range(3)}
        warning = read(*write_domain(tmp_path, users, {"i1": "one", "i2": "two"})).warning()
        assert warning is not None
        assert "1 of 3 users" in warning
        assert "image" not in warning
        assert "before the last" not in warning

    def test_items_that_only_dropped_clicks_hold_are_dropped(self, tmp_path: Path) -> None:
        users = {"anna": ["i1", "i4", "i2", "i4", "i2", "i4", "i4"], "short": ["i3"]}
        found = read(*write_domain(tmp_path, users, ITEMS), max_seq_len=3)
        assert found.clicks.tolist() == [2, 1, 2, 1, 2, 2]
        assert found.item_names == ["i2", "i4"]
        assert found.item_rows.tolist() == [1, 3]

    def test_spaces_between_clicks_may_repeat_and_crlf_is_no_item(self, tmp_path: Path) -> None:
        _, items = write_domain(tmp_path, USERS, ITEMS)
        path = file_of(tmp_path, b"\xef\xbb\xbfanna\t i1  i2 i3 i1 i2 \r\n", "users.tsv")
        found = read(path, items)
        assert found.user_names == ["anna"]
        assert found.clicks.tolist() == [1, 2, 3, 1, 2]

    @pytest.mark.parametrize("block", [1, 7, 1000])
    @pytest.mark.parametrize(("min_seq_len", "max_seq_len"), [(5, 10), (4, 1), (5, 3), (8, 20)])
    def test_against_plain_python(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        min_seq_len: int,
        max_seq_len: int,
        block: int,
    ) -> None:
        monkeypatch.setattr(lines, "_BLOCK", block)
        chance = np.random.default_rng([min_seq_len, max_seq_len])
        # Names in no alphabetical order; many items are rare, so that some are dropped.
        items = {f"n{number}": "title" for number in chance.permutation(60)}
        names = list(items)
        users = {
            f"u{user}": [names[int(60 * chance.random() ** 3)] for _ in range(chance.integers(0, 16))]
            for user in chance.permutation(50)
        }
        found = read(*write_domain(tmp_path, users, items), min_seq_len=min_seq_len, max_seq_len=max_seq_len)

        kept = {
            user: clicks[-(max_seq_len + 3) :] for user, clicks in users.items() if len(clicks) >= min_seq_len
        }
        occurring = [name for name in items if any(name in clicks for clicks in kept.values())]
        number = {name: place for place, name in enumerate(occurring, 1)}
        sequences = [[number[name] for name in clicks] for clicks in kept.values()]

        assert len(occurring) < len(items)
        assert found.item_names == occurring
        assert [names[row] for row in found.item_rows] == occurring
        assert found.user_names == list(kept)
        assert found.dropped_users == len(users) - len(kept)
        assert (found.n_users, found.n_items) == (len(kept), len(occurring))
        assert sequences_before(found, 0, max_seq_len + 3) == sequences
        assert sequences_before(found, 2, max_seq_len + 1) == [s[:-2] for s in sequences]
        assert sequences_before(found, 2, max_seq_len) == [s[:-2][-max_seq_len:] for s in sequences]
        assert sequences_before(found, 1, max_seq_len) == [s[:-1][-max_seq_len:] for s in sequences]


class TestBlocks:
    @pytest.mark.parametrize("block", [1, 15])
    def test_titles_and_byte_order_mark_across_blocks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
    ) -> None:
        monkeypatch.setattr(lines, "_BLOCK", block)
        path = file_of(tmp_path, "\ufeffi1\tblåbær\r\ni2\ta longer title\r\ni3\tx\r\n".encode())
        table = read_items(path, ("title",))
        assert table.names == [b"i1", b"i2", b"i3"]
        assert table.texts["title"] == ["blåbær", "a longer title", "x"]

    @pytest.mark.parametrize("block", [1, 8, 15])
    @pytest.mark.parametrize(
        ("content", "line", "words"),
        [
            (b"i1\tone\ni2\ttwo\ni3\n", 3, "1 columns"),
            (b"i1\tone\ni2\ttwo\ni1\tthree\n", 3, "first in line 1"),
            (b"i1\tone\ni2\ttwo\n\ni3\tthree\n", 3, "blank"),
            (b"i1\tone\ni2\ttwo\n\n", 3, "blank"),
        ],
    )
    def test_lines_are_counted_across_blocks(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        block: int,
        content: bytes,
        line: int,
        words: str,
    ) -> None:
        monkeypatch.setattr(lines, "_BLOCK", block)
        path = file_of(tmp_path, content)
        message = complaint(lambda: read_items(path))
        assert message.startswith(f"{path}:{line}: ")
        assert words in message


class TestIdentity:
    def identity(self, folder: Path, users: dict[str, list[str]], items: dict[str, str]) -> str:
        return read(*write_domain(folder, users, items)).identity

    def test_equal_data_is_identical_whatever_the_folder_and_the_unclicked(self, tmp_path: Path) -> None:
        first = self.identity(tmp_path / "first", USERS, ITEMS)
        again = self.identity(
            tmp_path / "again", {**USERS, "short": ["i1"]}, {"i0": "nobody clicked", **ITEMS}
        )
        assert first == again
        assert len(first) == 64

    @pytest.mark.parametrize(
        ("users", "items"),
        [
            ({**USERS, "anna": ["i1", "i2", "i3", "i1", "i3"]}, ITEMS),
            ({**USERS, "anna": ["i2", "i1", "i3", "i1", "i2"]}, ITEMS),
            ({"anna": [*USERS["anna"], "i3"], "bert": USERS["bert"][1:]}, ITEMS),
            ({"anne": USERS["anna"], "bert": USERS["bert"]}, ITEMS),
            ({"bert": USERS["bert"], "anna": USERS["anna"]}, ITEMS),
            (USERS, dict(reversed(ITEMS.items()))),
        ],
    )
    def test_any_change_shows(
        self, tmp_path: Path, users: dict[str, list[str]], items: dict[str, str]
    ) -> None:
        assert self.identity(tmp_path, users, items) != self.identity(tmp_path, USERS, ITEMS)

    def test_names_count_even_where_the_numbers_are_the_same(self, tmp_path: Path) -> None:
        renamed = {user: ["x" + click[1:] for click in clicks] for user, clicks in USERS.items()}
        items = {"x" + name[1:]: title for name, title in ITEMS.items()}
        assert self.identity(tmp_path, renamed, items) != self.identity(tmp_path, USERS, ITEMS)


class TestRealData:
    """The counts told in shared/data/README.md, and in the specification for Amazon."""

    @pytest.mark.parametrize(
        ("name", "lines_of_items", "occurring", "users", "clicks", "repeating"),
        [
            ("Scientific", 20_825, 20_825, 12_076, 85_211, 2_818),
            ("Instruments", 33_921, 20_618, 10_000, 83_828, 2_353),
            ("Amazon", 14_720, 14_438, 21_153, 129_744, 12_311),
        ],
    )
    def test_counts(
        self,
        shared_data: Path,
        name: str,
        lines_of_items: int,
        occurring: int,
        users: int,
        clicks: int,
        repeating: int,
    ) -> None:
        attributes = () if name == "Amazon" else ("title",)
        table = read_items(shared_data / name / "items.tsv", attributes)
        found = read_interactions(shared_data / name / "users.tsv", table, min_seq_len=5, max_seq_len=100_000)
        assert len(table.names) == lines_of_items
        assert found.n_items == occurring
        assert (found.n_users, found.dropped_users) == (users, 0)
        assert len(found.clicks) == clicks
        sequences = np.split(found.clicks, found.offsets[1:-1])
        assert sum(len(np.unique(s)) < len(s) for s in sequences) == repeating

    def test_amazon_after_filtering(self, shared_data: Path) -> None:
        found = read(
            shared_data / "Amazon" / "users.tsv", shared_data / "Amazon" / "items.tsv", max_seq_len=10
        )
        assert (found.n_users, found.n_items) == (21_153, 14_348)


def test_clicks_on_items_that_are_left_out_count_for_nothing(tmp_path):
    items = dict.fromkeys("abcdefg", "title")
    users = {"one": list("abcdefab"), "two": list("abcda"), "three": list("cdefgc"), "four": list("cdefcd")}
    users_path, items_path = write_domain(tmp_path, users, items)
    found = read_interactions(
        users_path, read_items(items_path), min_seq_len=5, max_seq_len=10, without={b"a", b"g"}
    )
    without = {name: [item for item in clicks if item not in "ag"] for name, clicks in users.items()}
    expected_users, expected_items = write_domain(
        tmp_path / "without", without, {name: text for name, text in items.items() if name not in "ag"}
    )
    expected = read_interactions(expected_users, read_items(expected_items), min_seq_len=5, max_seq_len=10)
    assert found.user_names == expected.user_names == ["one", "three", "four"]
    assert found.item_names == expected.item_names
    assert found.clicks.tolist() == expected.clicks.tolist()
    assert found.offsets.tolist() == expected.offsets.tolist()
    assert (found.left_out_items, found.left_out_clicks, found.dropped_users) == (2, 5, 1)
    assert "5 clicks on 2 items without content dropped" in found.describe()
