"""The reader of RecBole's atomic files: names of columns that differ, split files, and damaged ones."""

import pytest
from raw_files import HTML_PAGE, clicks_of, items_of, note, write

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float",
    "196\t242\t3\t881250949",
    "196\t302\t3.5\t8.81250949e8",
    "186\t242\t4\t891717742.0",
)
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
    "242\tKolya\t1996\tComedy",
    '302\tL.A. "Confidential\t1997\tCrime',
)


def read(folder):
    return SOURCES["recbole"].read(folder)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "ml-100k.inter", *INTER)
    write(tmp_path / "ml-100k.item", *ITEM)
    write(tmp_path / "ml-100k.user", "user_id:token\tage:token", "196\t49")
    return tmp_path


def test_interactions_and_items(folder):
    raw = read(folder)
    assert clicks_of(raw) == [
        ("196", "242", 881250949, 3.0),
        ("196", "302", 881250949, 3.5),
        ("186", "242", 891717742, 4.0),
    ]
    assert items_of(raw) == {"242": {"title": "Kolya"}, "302": {"title": 'L.A. "Confidential'}}
    assert note(raw, "ml-100k.inter").endswith(
        "user_id as user, item_id as item, timestamp as time, rating as rating"
    )
    assert note(raw, "as title").endswith("movie_title as title, none as abstract")


def test_other_names_and_orders_of_columns(folder):
    write(folder / "ml-100k.inter", "weight:float\tartist_id:token\tuid:token", "13883\t51\t2", "5\t52\t2")
    write(
        folder / "ml-100k.item",
        "artist_id:token\turl:token\tname:token_seq\tlong_description:token_seq",
        "51\thttp://localhost\tDuran Duran\tA band.",
    )
    raw = read(folder)
    assert clicks_of(raw) == [("2", "51"), ("2", "52")]
    assert items_of(raw) == {
        "51": {"title": "Duran Duran", "abstract": "A band."},
        "52": {"title": None, "abstract": None},
    }
    assert note(raw, "are not in ml-100k.item").startswith("1 of 2")
    assert "no timestamps" in note(raw, "keep the order")


def test_without_an_item_file(folder):
    (folder / "ml-100k.item").unlink()
    assert items_of(read(folder)) == {"242": {}, "302": {}}


def test_split_files_are_put_together(folder):
    (folder / "ml-100k.inter").unlink()
    for part, line in zip(("train", "valid", "test"), INTER[1:], strict=True):
        write(folder / f"ml-100k.{part}.inter", INTER[0], line)
    raw = read(folder)
    assert [row[:2] for row in clicks_of(raw)] == [("196", "242"), ("196", "302"), ("186", "242")]
    (folder / "ml-100k.valid.inter").unlink()
    with pytest.raises(UserError, match=r"missing: \.valid\.inter"):
        read(folder)


def test_milliseconds_and_windows_line_ends(folder):
    lines = (INTER[0], "1\t242\t3\t1600000000900", "1\t302\t3\t1600000000100")
    write(folder / "ml-100k.inter", *lines, end="\r\n")
    assert clicks_of(read(folder)) == [("1", "302", 1600000000, 3.0), ("1", "242", 1600000000, 3.0)]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("ml-100k.inter", (HTML_PAGE,), "ml-100k.inter: the file is a web page"),
        ("ml-100k.inter", INTER[1:], "ml-100k.inter: '196' in its first line is no typed name"),
        ("ml-100k.inter", (*INTER[:2], "196\t242"), "ml-100k.inter, line 3: time is missing or cut off"),
        ("ml-100k.inter", (INTER[0], INTER[1], "196\t242\t3\t1\t9"), "ml-100k.inter, line 3: cannot read"),
        ("ml-100k.inter", INTER[:1], "ml-100k.inter: no clicks"),
        ("ml-100k.inter", (INTER[0], "1\t2\t3\t1e30"), "ml-100k.inter, line 2: time is missing"),
        ("ml-100k.inter", (INTER[0], "1\t2\tnan\t1"), "ml-100k.inter, line 2: rating is missing"),
        (
            "ml-100k.inter",
            ("user_id:token\tage:float", "1\t2"),
            "ml-100k.inter: no token columns of users and items",
        ),
        (
            "ml-100k.inter",
            ("user_id:token\titem_id_list:token_seq\titem_id:token", "1\t2 3\t4"),
            "ml-100k.inter: a file of augmented sequences (item_id_list)",
        ),
        ("ml-100k.item", (ITEM[0], "7\tSeven\t1995\tCrime"), "ml-100k.item: holds no item of the clicks"),
        ("ml-100k.item", (ITEM[0], ITEM[1], "\tx\t1\ty"), "ml-100k.item, line 3: item_id is missing"),
    ],
)
def test_damaged_and_swapped_files_are_named(folder, name, lines, message):
    write(folder / name, *lines)
    with pytest.raises(UserError) as error:
        read(folder)
    assert message in str(error.value)


def test_several_data_sets_are_named(folder):
    write(folder / "ml-1m.inter", *INTER)
    with pytest.raises(
        UserError, match=r"several files NAME\.inter of one data set: ml-100k\.inter, ml-1m\.inter"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("header", "row", "click"),
    [
        ("user_id:token\tvenue_id:token\ttimezone_offset:float\ttimestamp:float", "1\tv\t-240\t9", "v"),
        ("user_id:token\tseller_id:token\titem_id:token\ttimestamp:float", "1\ts\tv\t9", "v"),
        ("transaction_date:float\tcustomer_id:token\tage:token\tproduct_id:token", "9\t1\tB\tv", "v"),
    ],
    ids=["foursquare", "tmall", "ta-feng"],
)
def test_columns_of_published_sets(tmp_path, header, row, click):
    write(tmp_path / "X.inter", header, row)
    assert clicks_of(read(tmp_path)) == [("1", click, 9)]


def test_titles_with_quotation_marks_of_csv_and_missing_ones(folder):
    write(folder / "ml-100k.item", ITEM[0], '242\t"6"" Pan"\t1996\tx', "302\tnan\t1997\ty")
    items = items_of(read(folder))
    assert (items["242"]["title"], items["302"]["title"]) == ('6" Pan', None)
