"""The reader of MicroLens: both releases' forms of pairs and titles, and damaged files."""

import pytest
from raw_files import HTML_PAGE, clicks_of, items_of, note, write

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

PAIRS = (
    "user,item,timestamp",
    "36121,1305,1583378629552",
    "7,1305,1583378629001",
    "36121,88,1583378629100",
    "7,2,1484111111999",
    "7,2,1484111111999",
)
TITLES = ('1305,"Cats, dogs and a ""parrot"""', "88,Plain title", "99,Nobody clicked this")


def read(folder):
    return SOURCES["microlens"].read(folder)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "MicroLens-50k_pairs.csv", *PAIRS)
    write(tmp_path / "MicroLens-50k_titles.csv", "item,title", *TITLES)
    return tmp_path


def test_pairs_are_ordered_by_milliseconds_and_given_in_seconds(folder):
    raw = read(folder)
    assert clicks_of(raw) == [
        ("7", "2", 1484111111),
        ("7", "2", 1484111111),
        ("7", "1305", 1583378629),
        ("36121", "88", 1583378629),
        ("36121", "1305", 1583378629),
    ]
    assert items_of(raw) == {
        "1305": {"title": 'Cats, dogs and a "parrot"'},
        "88": {"title": "Plain title"},
        "2": {"title": None},
    }
    assert note(raw, "repeat") == "1 clicks repeat one of the same user, item and time: kept"
    assert note(raw, "have no title") == "1 of 3 items have no title"
    assert "milliseconds" in note(raw, "divided")


def test_neither_file_has_a_header_in_some_releases(tmp_path):
    write(tmp_path / "MicroLens-100k" / "MicroLens-100k_pairs.csv", *PAIRS[1:])
    write(tmp_path / "MicroLens-100k" / "MicroLens-100k_title_en.csv", *TITLES)
    write(tmp_path / "MicroLens-100k" / "MicroLens-100k_title_zh.csv", "88,标题")
    raw = read(tmp_path)
    assert len(clicks_of(raw)) == 5
    assert items_of(raw)["88"] == {"title": "Plain title"}
    assert "MicroLens-100k_title_en.csv" in note(raw, "titles are those of")


def test_titles_with_commas_that_are_not_quoted(folder):
    write(folder / "MicroLens-50k_titles.csv", "item,title", "1305,One, two, three", "88,x", "2,y")
    raw = read(folder)
    assert items_of(raw)["1305"] == {"title": "One, two, three"}
    assert note(raw, "commas").startswith("1 titles")


def test_sequences_alone_keep_their_order(folder):
    (folder / "MicroLens-50k_pairs.csv").unlink()
    write(folder / "MicroLens-50k_pairs.tsv", "1\t88 1305  88 ", "2\t2")
    raw = read(folder)
    assert clicks_of(raw) == [("1", "88"), ("1", "1305"), ("1", "88"), ("2", "2")]
    assert "no timestamps" in note(raw, "keep the order")


@pytest.mark.parametrize(("line", "message"), [("3\t ", "item is missing;"), ("\t2 88", "user is missing;")])
def test_a_sequence_that_lacks_something_is_named_by_its_line(folder, line, message):
    (folder / "MicroLens-50k_pairs.csv").unlink()
    write(folder / "MicroLens-50k_pairs.tsv", "1\t88 1305 88", "2\t2", line, "4\t2")
    with pytest.raises(UserError, match=f"pairs.tsv, line 3: {message}"):
        read(folder)


def test_with_both_forms_the_one_with_timestamps_is_read(folder):
    write(folder / "MicroLens-50k_pairs.tsv", "1\t88 1305 88")
    raw = read(folder)
    assert len(clicks_of(raw)) == 5
    assert "MicroLens-50k_pairs.tsv is not" in note(raw, "is read")


def test_covers(folder):
    cover = folder / "MicroLens-50k_covers" / "88.jpg"
    cover.parent.mkdir()
    cover.write_bytes(b"\xff\xd8")
    raw = read(folder)
    assert [item["image"] for item in items_of(raw).values()].count(str(cover)) == 1
    assert note(raw, "no image file").startswith("2 of 3")


def test_without_titles_items_have_no_text(folder):
    (folder / "MicroLens-50k_titles.csv").unlink()
    assert items_of(read(folder))["88"] == {}
    assert "items without text" in note(read(folder), "no NAME_titles.csv")


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("MicroLens-50k_pairs.csv", (HTML_PAGE,), "MicroLens-50k_pairs.csv: the file is a web page"),
        (
            "MicroLens-50k_pairs.csv",
            ("item,title", *TITLES),
            "pairs.csv: its first line is 'item,title'; expected",
        ),
        (
            "MicroLens-50k_pairs.csv",
            (*PAIRS[:3], "36121,88"),
            "pairs.csv, line 4: time is missing or cut off",
        ),
        (
            "MicroLens-50k_pairs.csv",
            (*PAIRS[:2], "36121,88,x", *PAIRS[3:]),
            "pairs.csv, line 3: time is missing;",
        ),
        (
            "MicroLens-50k_titles.csv",
            ("item,title", "88"),
            "titles.csv, row 2: '88' is cut off or has no title",
        ),
        ("MicroLens-50k_titles.csv", ("item,title", "5,Five"), "titles.csv: holds no item of the clicks"),
    ],
)
def test_damaged_and_swapped_files_are_named(folder, name, lines, message):
    write(folder / name, *lines)
    with pytest.raises(UserError) as error:
        read(folder)
    assert message in str(error.value)


def test_missing_and_doubled_files_are_named(folder):
    write(folder / "more" / "MicroLens-100k_pairs.csv", *PAIRS)
    with pytest.raises(
        UserError, match=r"several files NAME_pairs\.csv: MicroLens-50k_pairs\.csv, MicroLens-100k"
    ):
        read(folder)
    (folder / "MicroLens-50k_pairs.csv").unlink()
    (folder / "more" / "MicroLens-100k_pairs.csv").unlink()
    with pytest.raises(UserError, match=r"expected NAME_pairs\.csv or NAME_pairs\.tsv"):
        read(folder)


def test_folders_behind_links_and_several_covers(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    for name, size in (("small", 5), ("large", 9)):
        (elsewhere / name).mkdir()
        (elsewhere / name / "88.jpg").write_bytes(b"\xff\xd8" + bytes(size))
    (folder / "MicroLens-50k_covers").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(folder)  # leads back
    (folder / "gone.jpg").symlink_to(elsewhere / "nothing")
    write(folder / "failed_images.csv", "item,url,reason")  # of an earlier download
    raw = read(folder)
    assert items_of(raw)["88"]["image"] == str(folder / "MicroLens-50k_covers" / "large" / "88.jpg")
    assert note(raw, "several image files").startswith("1 items")


def test_empty_lines_at_the_end(folder):
    (folder / "MicroLens-50k_pairs.csv").write_text("\n".join([*PAIRS, "", "", ""]))
    assert len(clicks_of(read(folder))) == 5
