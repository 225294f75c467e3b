"""The reader of NineRec: both orders of columns, domains without timestamps, and damaged files."""

import pytest
from raw_files import HTML_PAGE, clicks_of, items_of, note, write

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

ITEMS = (
    'v17551,韩国电影，《女教师》,"Korean Movie, The Governess"',
    "v165612,英雄联盟,League of Legends",
    "v3,只有中文,",
)
USER_FIRST = ("u14500,v17551,1500000002", "u14500,v165612,1500000001", "u2,v17551,1500000003")
ITEM_FIRST = tuple(
    ",".join((line.split(",")[1], line.split(",")[0], line.split(",")[2])) for line in USER_FIRST
)
CLICKS = [
    ("u14500", "v17551", 1500000002),
    ("u14500", "v165612", 1500000001),
    ("u2", "v17551", 1500000003),
]


def read(folder):
    return SOURCES["ninerec"].read(folder)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "Bili_Food_item.csv", *ITEMS)
    write(tmp_path / "Bili_Food_pair.csv", *USER_FIRST)
    write(tmp_path / "Bili_Food_url.csv", "v17551,http://localhost/v17551")
    return tmp_path


def columns(raw):
    return raw.interactions.select("user", "item", "time").collect().rows()


@pytest.mark.parametrize("lines", [USER_FIRST, ITEM_FIRST, ("user_id,item_id,timestamp", *USER_FIRST)])
def test_the_order_of_columns_is_judged_by_content(folder, lines):
    write(folder / "Bili_Food_pair.csv", *lines)
    raw = read(folder)
    assert columns(raw) == CLICKS
    order = "item, user, time" if lines is ITEM_FIRST else "user, item, time"
    assert order in note(raw, "judged by their content")


def test_numbers_as_names_are_no_timestamps(folder):
    write(folder / "Bili_Food_item.csv", "17551,中文,English")
    write(folder / "Bili_Food_pair.csv", "17551,14500,1500000002", "17551,14501,1500000003")
    assert columns(read(folder)) == [("14500", "17551", 1500000002), ("14501", "17551", 1500000003)]


def test_texts_are_english_and_otherwise_chinese(folder):
    raw = read(folder)
    assert items_of(raw) == {
        "v17551": {"title": "Korean Movie, The Governess"},
        "v165612": {"title": "League of Legends"},
        "v3": {"title": "只有中文"},
    }
    assert "1 items have none" in note(raw, "English")


def test_texts_in_the_other_order_and_a_repeated_item(folder):
    write(
        folder / "Bili_Food_item.csv", "v17551,The Governess,女教师", "v165612,League,英雄联盟", "v17551,x,是"
    )
    raw = read(folder)
    assert items_of(raw) == {"v17551": {"title": "The Governess"}, "v165612": {"title": "League"}}
    assert note(raw, "repeat an item").startswith("1 lines")


def test_without_timestamps_the_sequences_are_read(folder):
    write(folder / "Bili_Food_pair.csv", "u14500,v17551", "u14500,v165612")
    write(folder / "Bili_Food_behaviour.tsv", "u14500\tv165612 v17551 v99")
    raw = read(folder)
    assert clicks_of(raw) == [("u14500", "v165612"), ("u14500", "v17551"), ("u14500", "v99")]
    assert items_of(raw)["v99"] == {"title": None}
    assert "has no timestamps" in note(raw, "order of time")
    (folder / "Bili_Food_behaviour.tsv").unlink()
    assert clicks_of(read(folder)) == [("u14500", "v17551"), ("u14500", "v165612")]


def test_covers(folder):
    cover = folder / "Bili_Food_cover" / "v3.jpg"
    cover.parent.mkdir()
    cover.write_bytes(b"\xff\xd8")
    raw = read(folder)
    assert items_of(raw)["v3"]["image"] == str(cover)
    assert note(raw, "no image file").startswith("2 of 3")


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("Bili_Food_pair.csv", (HTML_PAGE,), "Bili_Food_pair.csv: the file is a web page"),
        ("Bili_Food_pair.csv", ("u1,x1,5", "u2,x2,6"), "Bili_Food_pair.csv: holds no item of X_item.csv"),
        ("Bili_Food_pair.csv", ("u1",), "Bili_Food_pair.csv: its first line has 1 fields"),
        ("Bili_Food_pair.csv", (*USER_FIRST, "u2,v175"), "pair.csv, line 4: time is missing or cut off"),
        ("Bili_Food_item.csv", ("v17551,,", ",b,"), "item.csv: a line has no item, or none has a text"),
        (
            "Bili_Food_item.csv",
            (ITEMS[0], 'v165612,"英雄'),
            "item.csv, line 2: cannot read; expected lines item",
        ),
    ],
)
def test_damaged_and_swapped_files_are_named(folder, name, lines, message):
    write(folder / name, *lines)
    with pytest.raises(UserError) as error:
        read(folder)
    assert message in str(error.value)


def test_missing_files_and_several_domains_are_named(folder):
    write(folder / "KU" / "KU_item.csv", *ITEMS)
    with pytest.raises(
        UserError, match=r"several files X_item\.csv of one domain: Bili_Food_item\.csv, KU_item"
    ):
        read(folder)
    with pytest.raises(UserError, match=r"expected X_pair\.csv or X_behaviour\.tsv"):
        read(folder / "KU")
