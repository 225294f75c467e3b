"""The reader of Amazon Reviews: the three years in their owner's formats, and damaged files."""

import json

import pytest
from raw_files import HTML_PAGE, clicks_of, items_of, note, write

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.datasets.sources.amazon_metadata import parsed_line
from adapter4rec.utils.errors import UserError

A, B, C = "B00006HAXW", "0000031852", "B00GONE000"


def review_2014(user, item, overall, time):
    return json.dumps(
        {
            "reviewerID": user, "asin": item, "reviewerName": "J. McDonald", "helpful": [2, 3],
            "reviewText": 'Sounds "great"\nand é', "overall": overall, "summary": "x", "unixReviewTime": time,
            "reviewTime": "09 13, 2009",
        }
    )  # fmt: skip


def review_2018(user, item, overall, time):
    return json.dumps(
        {
            "overall": overall, "verified": True, "reviewerID": user, "asin": item,
            "style": {"Size:": " Large"}, "reviewText": "ok", "unixReviewTime": time, "vote": "3",
        }
    )  # fmt: skip


def review_2023(user, parent, rating, time):
    return json.dumps(
        {
            "rating": rating, "title": "t", "images": [], "asin": "B0VARIANT1", "parent_asin": parent,
            "user_id": user, "timestamp": time, "helpful_vote": 0, "verified_purchase": True,
        }
    )  # fmt: skip


REVIEWS = (("A2SUAM1J3GNN3B", A, 5.0, 1252800000), ("A1", B, 2, 1252800001), ("A1", A, 4.0, 1252800001))
CLICKS = [("A2SUAM1J3GNN3B", A, 1252800000, 5.0), ("A1", B, 1252800001, 2.0), ("A1", A, 1252800001, 4.0)]
META_2014 = (
    str({"asin": B, "title": "Girl's \"Ballet\" Tutu &amp; Skirt", "price": 3.17,
         "imUrl": "http://ecx.images-amazon.com/images/I/51fAmVkTbyL._SY300_.jpg",
         "related": {"also_bought": [A]}, "salesRank": {"Toys & Games": 211836},
         "categories": [["Sports & Outdoors", "Dance"]], "description": "A tutu.\nPink."}),
    str({"asin": "B000UNWANTED"[:10], "title": "Nobody bought it"}),
    str({"asin": A, "salesRank": {}, "categories": [[]]}),
)  # fmt: skip
META_2018 = (
    json.dumps({"description": [], "title": "var aPageStart = (new Date()).getTime();", "asin": A}),
    json.dumps({"title": "Tutu <b>pink</b>", "asin": B, "description": ["One.", "Two."],
                "imageURL": ["https://host/I/s._SX38_.jpg"], "imageURLHighRes": ["https://host/I/s.jpg"]}),
    json.dumps({"title": "", "asin": A, "image": ["https://host/I/a._SY88.jpg"]}),
    json.dumps({"title": "The name", "asin": A, "image": ["https://host/I/b._SY88.jpg"]}),
)  # fmt: skip
META_2023 = (
    json.dumps({"main_category": "All Beauty", "title": "Howard LC0008", "rating_number": 4, "features": [],
                "description": ["Leave-in", "conditioner"], "price": None, "images": [
                    {"thumb": "https://host/pt.jpg", "large": "https://host/p.jpg", "variant": "PT01"},
                    {"thumb": "https://host/t.jpg", "large": "https://host/l.jpg", "variant": "MAIN",
                     "hi_res": "https://host/h.jpg"}],
                "videos": [], "store": "Howard", "details": {"Package": "1"}, "parent_asin": A}),
    json.dumps({"title": None, "description": [], "images": [], "parent_asin": B}),
)  # fmt: skip


def read(folder):
    return SOURCES["amazon"].read(folder)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_2014(tmp_path, ending):
    write(tmp_path / f"reviews_Clothing_5.json{ending}", *[review_2014(*row) for row in REVIEWS])
    write(tmp_path / f"meta_Clothing.json{ending}", *META_2014)
    raw = read(tmp_path)
    assert clicks_of(raw) == CLICKS
    assert items_of(raw) == {
        A: {"title": None, "abstract": None, "image_url": None},
        B: {
            "title": 'Girl\'s "Ballet" Tutu &amp; Skirt',
            "abstract": "A tutu. Pink.",
            "image_url": "http://ecx.images-amazon.com/images/I/51fAmVkTbyL._SY300_.jpg",
        },
    }
    assert "Python literals; 3 lines" in note(raw, "metadata of 2014")
    assert "reviews of 2014" in note(raw, "reviews_Clothing_5")
    assert note(raw, "HTML").startswith("1 titles")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_2018(tmp_path, ending):
    write(tmp_path / f"AMAZON_FASHION_5.json{ending}", *[review_2018(*row) for row in (*REVIEWS, REVIEWS[0])])
    write(tmp_path / f"meta_AMAZON_FASHION.json{ending}", *META_2018)
    raw = read(tmp_path)
    assert clicks_of(raw) == [*CLICKS, CLICKS[0]]
    assert items_of(raw) == {
        A: {"title": "The name", "abstract": None, "image_url": "https://host/I/b._SY88.jpg"},
        B: {"title": "Tutu <b>pink</b>", "abstract": "One. Two.", "image_url": "https://host/I/s.jpg"},
    }
    assert "reviews of 2018" in note(raw, "AMAZON_FASHION_5")
    assert note(raw, "JavaScript").startswith("1 titles")
    assert note(raw, "repeat an item").startswith("2 lines")
    assert note(raw, "same user, item and time").startswith("1 clicks")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_2023(tmp_path, ending):
    rows = [
        ("AEYORY2AVPMCPDV57CE337YU5LXA", A, 5.0, 1588615855070),
        ("AX", B, 3.0, 1588615855069),
        ("AX", C, 1.0, 7),
    ]
    write(tmp_path / f"All_Beauty.jsonl{ending}", *[review_2023(*row) for row in rows])
    write(tmp_path / f"meta_All_Beauty.jsonl{ending}", *META_2023)
    raw = read(tmp_path)
    assert clicks_of(raw) == [("AX", C, 0, 1.0), ("AX", B, 1588615855, 3.0), (rows[0][0], A, 1588615855, 5.0)]
    items = items_of(raw)
    assert items[A] == {
        "title": "Howard LC0008",
        "abstract": "Leave-in conditioner",
        "image_url": "https://host/l.jpg",
    }
    assert items[B] == items[C] == {"title": None, "abstract": None, "image_url": None}
    assert note(raw, "have no metadata").startswith("1 of 3")
    assert "milliseconds" in note(raw, "divided")


@pytest.mark.parametrize(("year", "columns"), [("2014", (0, 1)), ("2018", (1, 0))])
def test_ratings_without_a_header_have_another_order_in_2018(tmp_path, year, columns):
    lines = [f"{row[columns[0]]},{row[columns[1]]},{row[2]},{row[3]}" for row in REVIEWS]
    write(tmp_path / "ratings_Clothing.csv", *lines)
    raw = read(tmp_path)
    assert clicks_of(raw) == CLICKS
    assert f"the order of {year}" in note(raw, "judged by their content")
    assert items_of(raw) == {A: {}, B: {}}
    assert "without text and images" in note(raw, "no meta_X")


HEADER = "user_id,parent_asin,rating,timestamp"


def test_ratings_and_splits_of_2023(tmp_path):
    write(tmp_path / "All_Beauty.csv.gz", HEADER, f"AG,{A},4.0,1588615855070")
    assert clicks_of(read(tmp_path)) == [("AG", A, 1588615855, 4.0)]
    (tmp_path / "All_Beauty.csv.gz").unlink()
    for number, part in enumerate(("test", "train", "valid")):
        history = f"AG,{A},{number},{number},{A} {B}"
        write(tmp_path / "last_out_w_his" / f"All_Beauty.{part}.csv", f"{HEADER},history", history)
    raw = read(tmp_path)
    assert [row[2] for row in clicks_of(raw)] == [1, 2, 0]
    assert "put together" in note(raw, "split")
    (tmp_path / "last_out_w_his" / "All_Beauty.valid.csv").unlink()
    with pytest.raises(UserError, match=r"of a split, valid is missing beside All_Beauty\.test\.csv"):
        read(tmp_path)


def test_reviews_that_are_python_literals(tmp_path):
    lines = [str(json.loads(review_2014(*row))) for row in REVIEWS]
    write(tmp_path / "reviews_Beauty.json.gz", *lines)
    assert clicks_of(read(tmp_path)) == CLICKS


def test_a_python_literal_is_never_run(tmp_path):
    for line in (
        "{'asin': __import__('os').getcwd()}",
        "{'asin': 'x' * 3}",
        "[" * 100_000,
        "print(1)",
        "'text'",
    ):
        with pytest.raises(UserError, match="line 7: damaged or cut off; expected a Python literal"):
            parsed_line(tmp_path / "meta.json", 7, line.encode(), literal=True)


GOOD = tuple(review_2014(*row) for row in REVIEWS)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("reviews_X.json", (HTML_PAGE,), "reviews_X.json: the file is a web page"),
        ("reviews_X.json", ("",), "reviews_X.json: empty file"),
        (
            "reviews_X.json",
            ('{"title": 1}',),
            "reviews_X.json: its first line has the keys title; expected reviews",
        ),
        (
            "reviews_X.json",
            (*GOOD, GOOD[0][:90]),
            "reviews_X.json, line 4: damaged or cut off; expected a JSON",
        ),
        ("reviews_X.json", (GOOD[0], "<html>", GOOD[1]), "reviews_X.json, line 2: damaged or cut off"),
        ("reviews_X.json", (*GOOD, '{"asin": "B00006HAXW"}'), "reviews_X.json, line 4: user is missing"),
        (
            "reviews_X.json",
            (*GOOD, GOOD[0].replace("5.0", '"x"')),
            "overall or unixReviewTime is not a number",
        ),
        (
            "meta_X.json",
            (META_2014[0], META_2014[2][:50]),
            "meta_X.json, line 2: damaged or cut off; expected a Py",
        ),
        (
            "meta_X.json",
            META_2014[1:2],
            "meta_X.json: holds no item of the clicks; expected the metadata of the same",
        ),
        (
            "reviews_X.csv",
            ("1,2,3,4",),
            "reviews_X.csv: its first line is '1,2,3,4'; expected reviews, ratings",
        ),
    ],
)
def test_damaged_and_swapped_files_are_named(tmp_path, name, lines, message):
    write(tmp_path / "reviews_X.json", *GOOD)
    write(tmp_path / name, *lines)
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert message in str(error.value)


def test_a_cut_off_rating_and_a_half_downloaded_gzip_are_named(tmp_path):
    path = write(tmp_path / "ratings_X.csv", f"A1,{A},5.0,1252800000", f"A1,{A},5.")
    with pytest.raises(UserError, match=r"ratings_X\.csv, line 2: time is missing or cut off"):
        read(tmp_path)
    path.unlink()
    whole = write(tmp_path / "reviews_X.json.gz", *GOOD * 500).read_bytes()
    (tmp_path / "reviews_X.json.gz").write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"reviews_X\.json\.gz: cut off after .* bytes; download it again"):
        read(tmp_path)
    (tmp_path / "reviews_X.json.gz").write_bytes(whole[:40] + b"\0\0\0\0" + whole[44:])
    with pytest.raises(UserError, match=r"reviews_X\.json\.gz: damaged gzip file"):
        read(tmp_path)


def test_missing_and_doubled_files_are_named(tmp_path):
    write(tmp_path / "meta_X.json", *META_2014)
    with pytest.raises(UserError, match="no file of reviews or ratings; expected one of reviews_X"):
        read(tmp_path)
    write(tmp_path / "reviews_X.json", *GOOD)
    write(tmp_path / "reviews_X_5.json", *GOOD)
    with pytest.raises(
        UserError, match=r"several files of clicks: reviews_X\.json, reviews_X_5\.json; keep one"
    ):
        read(tmp_path)
    (tmp_path / "reviews_X_5.json").unlink()
    write(tmp_path / "meta_Y.json", *META_2014)
    with pytest.raises(UserError, match=r"several files of metadata: meta_X\.json, meta_Y\.json"):
        read(tmp_path)
