"""Scientific, Instruments and Office of IISAN, and the paper's lists; clicks and items written by hand."""

from pathlib import Path

import pytest

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

FILES = {
    "scientific": (
        "Scientific",
        "am_Industrial_and_Scientific_users",
        "Industrial_and_Scientific_items",
        "is",
    ),
    "instruments": ("Instrument", "am_Musical_Instruments_users_10K", "Musical_Instruments_items", "mi"),
    "office": ("Office", "am_Office_Products_users_10K", "Office_Products_items", "op"),
}
USERS = [
    "A0096681Y127OL1H8W3U\tB0098MLBAO B0098MLBAO B00E8JOCOE B00S730YWG B0098MLBAO",
    "A0280304HKHOFA66VRZ2\tB00S730YWG B00E8JOCOE",
]
ITEMS = [
    "B0098MLBAO\tHold &amp; Error Gauge - 10&quot;",
    "B00E8JOCOE\t Appalachian Folk Dulcimer Plans",
    'B00S730YWG\t"5PCS" Nema17, 2A',
    "B00EMPTY00\t",
]
CLICKS = [
    ("A0096681Y127OL1H8W3U", "B0098MLBAO"),
    ("A0096681Y127OL1H8W3U", "B0098MLBAO"),
    ("A0096681Y127OL1H8W3U", "B00E8JOCOE"),
    ("A0096681Y127OL1H8W3U", "B00S730YWG"),
    ("A0096681Y127OL1H8W3U", "B0098MLBAO"),
    ("A0280304HKHOFA66VRZ2", "B00S730YWG"),
    ("A0280304HKHOFA66VRZ2", "B00E8JOCOE"),
]


def write(path, lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


@pytest.fixture(params=sorted(FILES))
def published(request, tmp_path):
    """Name, and the folder Dataset of the repository with all three sets."""
    for folder, users, items, _ in FILES.values():
        write(tmp_path / "Dataset" / folder / f"{users}.tsv", USERS)
        write(tmp_path / "Dataset" / folder / f"{items}.tsv", ITEMS)
        write(tmp_path / "Dataset" / folder / "readme.md", ["Will be released soon."])
    return request.param, tmp_path / "Dataset"


def test_iisan_as_published(published):
    name, folder = published
    raw = SOURCES[name].read(folder)
    assert raw.interactions.collect().rows() == CLICKS
    assert raw.items.collect().rows() == [
        ("B0098MLBAO", "Hold &amp; Error Gauge - 10&quot;"),
        ("B00E8JOCOE", " Appalachian Folk Dulcimer Plans"),
        ("B00S730YWG", '"5PCS" Nema17, 2A'),
        ("B00EMPTY00", None),
    ]
    assert raw.notes == [
        "2 users",
        "clicks have no times: the order of the list is that of the clicks",
        "4 items with title",
        "1 items without a title",
        "1 titles begin with a quotation mark: kept",
        "1 titles have HTML entities such as &amp;: kept, see the option that decodes them",
    ]


def test_iisan_images_are_found_beside_the_sets(published):
    name, folder = published
    image = write(folder / f"am_image_{FILES[name][3]}" / "B00E8JOCOE.jpg", ["x"])
    for raw_folder in (folder.parent, folder, folder / FILES[name][0]):
        raw = SOURCES[name].read(raw_folder)
        assert raw.items.collect()["image"].to_list() == [None, str(image), None, None]
        assert f"3 items without an image in am_image_{FILES[name][3]}" in raw.notes


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("users", ITEMS, r"users\.tsv:4: expected a user, a tab"),
        (
            "users",
            ITEMS[:3],
            r"users\.tsv: 13 of 13 clicks are on items that .*items\.tsv does not list; .*swapped",
        ),
        ("users", ["A1 B0098MLBAO"], r"users\.tsv:1: expected a user, a tab, and names of items"),
        ("users", [*USERS, "A03614793"], r"users\.tsv:3: expected a user, a tab, .*cut off"),
        ("users", ["A1\tB1 B2\t5"], r"users\.tsv:1: expected as many times in the third column as items"),
        (
            "users",
            [USERS[1], "A1\tB00E8JOCOE\t5"],
            r"users\.tsv: 1 of 2 lines have a third column with times",
        ),
        ("users", ["A1\tB00E8JOCOE\tx"], r"users\.tsv: 1 times in the third column are not whole numbers"),
        ("users", [], r"users\.tsv: the file is empty"),
        ("items", USERS, r"users\.tsv: 7 of 7 clicks are on items that .*items\.tsv does not list"),
        ("items", [ITEMS[0], "B00"], r"items\.tsv:2: expected 2 fields separated by tabs: item, title"),
        ("items", ["B 1\tTitle"], r"items\.tsv:1: expected a name of an item without white space"),
        ("items", ["a\tb\tc\td\te"], r"items\.tsv:1: 5 columns"),
    ],
)
def test_wrong_files_are_named(tmp_path, file, lines, message):
    write(tmp_path / "am_Industrial_and_Scientific_users.tsv", USERS)
    write(tmp_path / "Industrial_and_Scientific_items.tsv", ITEMS)
    (path,) = tmp_path.glob(f"*{file}.tsv")
    write(path, lines)
    with pytest.raises(UserError, match=message):
        SOURCES["scientific"].read(tmp_path)


def test_cut_off_and_missing_files_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"expected am_Office_Products_users_10K\.tsv and Office_Products_items"
    ):
        SOURCES["office"].read(tmp_path)
    users = write(tmp_path / "am_Office_Products_users_10K.tsv", USERS)
    with pytest.raises(
        UserError, match=r"Office_Products_items\.tsv: no such file; expected a list of items"
    ):
        SOURCES["office"].read(tmp_path)
    write(tmp_path / "Office_Products_items.tsv", ITEMS)
    users.write_bytes(users.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"users_10K\.tsv: cut off: the last line has no line end"):
        SOURCES["office"].read(tmp_path)


@pytest.mark.parametrize(
    ("users", "items", "columns"),
    [
        ("mind_large_users_base.tsv", "mind_large_news_base.tsv", ["title", "abstract"]),
        ("Adressa_users_base.tsv", "Adressa_news_base.tsv", ["title"]),
        ("amazon_2w_users.tsv", "amazon_2w_items.tsv", []),
        ("users.tsv", "items.tsv", ["title", "abstract", "body"]),
    ],
)
def test_the_papers_lists(tmp_path, users, items, columns):
    write(tmp_path / users, ["U1\tN12 N7  N7 N3", "U2\tN3", "U1\tN12"], end="\r\n")
    texts = {"title": "NA", "abstract": "", "body": "Long"}
    write(
        tmp_path / items, ["\t".join([name, *(texts[c] for c in columns)]) for name in ("N12", "N7", "N12")]
    )
    raw = SOURCES["paper"].read(tmp_path)
    clicks = [("U1", "N12"), ("U1", "N7"), ("U1", "N7"), ("U1", "N3"), ("U2", "N3"), ("U1", "N12")]
    assert raw.interactions.collect().rows() == clicks
    read = raw.items.collect()
    assert read.columns == ["item", *columns]
    assert read.rows() == [(name, *(texts[c] or None for c in columns)) for name in ("N12", "N7")]
    assert "1 lines repeat a user: their clicks follow one another" in raw.notes
    assert "1 items are listed twice: the first line was taken" in raw.notes
    assert f"2 clicks on items that {items} does not list" in raw.notes


def test_the_papers_image_lists(tmp_path):
    write(tmp_path / "hm_50w_users.tsv", ["1\tv108775015 v7"])
    write(tmp_path / "hm_50w_items.tsv", ["v108775015", "v7"])
    image = write(tmp_path / "images" / "010" / "0108775015.jpg", ["x"])
    raw = SOURCES["paper"].read(tmp_path)
    assert raw.items.collect().rows() == [("v108775015", str(image)), ("v7", None)]
    assert "1 items without an image in images" in raw.notes


def test_a_third_column_of_users_holds_the_times(tmp_path):
    write(tmp_path / "users.tsv", ["U1\tN1 N2\t100 90", "U2\tN1\t5"])
    write(tmp_path / "items.tsv", ["N1\tOne", "N2\tTwo"])
    raw = SOURCES["paper"].read(tmp_path)
    assert raw.interactions.collect().rows() == [("U1", "N1", 100), ("U1", "N2", 90), ("U2", "N1", 5)]


def test_several_of_the_papers_sets_are_refused(tmp_path):
    write(tmp_path / "HM" / "hm_50w_users.tsv", ["1\tv7"])
    write(tmp_path / "MIND" / "mind_large_users_base.tsv", ["1\tN7"])
    with pytest.raises(UserError, match=r"holds several data sets \(HM/hm_50w_users.tsv, MIND/mind_large"):
        SOURCES["paper"].read(tmp_path)


@pytest.mark.parametrize(("name", "folder"), [("scientific", "Scientific"), ("instruments", "Instruments")])
def test_the_published_lists_come_back_identical(tmp_path, shared_data, name, folder):
    _, users, items, _ = FILES[name]
    for new, old in ((users, "users"), (items, "items")):
        (tmp_path / f"{new}.tsv").symlink_to((shared_data / folder / f"{old}.tsv").resolve())
    raw = SOURCES[name].read(tmp_path)
    assert sequences(raw) == lines_of(tmp_path / f"{users}.tsv")
    assert [f"{item}\t{title}" for item, title in raw.items.collect().rows()] == lines_of(
        tmp_path / f"{items}.tsv"
    )


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def sequences(raw):
    users = raw.interactions.collect().group_by("user", maintain_order=True).all()
    return [f"{user}\t{' '.join(items)}" for user, items in users.rows()]


def test_sources_say_where_and_under_what_terms():
    for name, source in SOURCES.items():
        assert source.published.startswith("https://"), name
        assert source.about and source.licence and source.files, name
