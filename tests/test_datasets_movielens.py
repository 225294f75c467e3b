"""MovieLens: files in each form of the owner, with their quirks; clicks and items written by hand."""

import pytest

from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

GENRES = "|".join("0" * 19)
U_ITEM = [
    f"1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)|{GENRES}",
    f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{GENRES}",
    f"267|unknown||||{GENRES}",
    f"543|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Mis%E9rables%20(1995)|{GENRES}",
    f"902|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{GENRES}",
]
U_DATA = ["196\t242\t3\t881250949", "22\t543\t1\t878887116", "196\t1\t5\t881250949", "22\t267\t4\t878887117"]


def write(folder, encoding="utf-8", end="\n", **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        text = end.join([*lines, ""])
        (folder / name.replace("_", ".")).write_bytes(text.encode(encoding))
    return folder


def read(folder):
    return SOURCES["movielens"].read(folder)


def clicks(raw):
    return raw.interactions.select("user", "item", "time", "rating").collect().rows()


def titles(raw):
    return dict(raw.items.select("item", "title").collect().rows())


def test_100k(tmp_path):
    folder = write(tmp_path / "ml-100k", "latin-1", u_data=U_DATA, u_item=U_ITEM)
    (folder / "u1.base").write_text(U_DATA[0])  # the published splits repeat u.data
    raw = read(tmp_path)
    assert clicks(raw) == [
        ("196", "242", 881250949, 3.0),
        ("22", "543", 878887116, 1.0),
        ("196", "1", 881250949, 5.0),
        ("22", "267", 878887117, 4.0),
    ]
    assert titles(raw) == {
        "1": "Toy Story (1995)",
        "242": "Kolya (1996)",
        "267": "unknown",
        "543": "Misérables, Les (1995)",
        "902": "Kolya (1996)",
    }
    assert raw.notes == [
        "4 ratings of 4 movies; each is a click with a rating",
        "50 % of the ratings have the user and second of another one: these keep the order of the file",
        "1 movies without a rating",
        "1 titles repeat that of another movie: kept apart",
        "1 titles do not end with a year: kept",
        "1 titles have their article at the end (Matrix, The): kept",
    ]


@pytest.mark.parametrize(("name", "encoding"), [("ml-1m", "latin-1"), ("ml-10M100K", "utf-8")])
def test_1m_and_10m(tmp_path, name, encoding):
    movies = [
        "1::Toy Story (1995)::Animation|Children's|Comedy",
        "73::Misérables, Les (1995)::Drama|Musical",
        '3868::Naked Gun: From the "Files"::of Police Squad!, The (1988)::Comedy',
    ]
    ratings = [
        "1::73::5::978300760",
        "1::3868::0.5::978302109",
        "2::1::3::978298413",
        "2::4000::3::978298414",
    ]
    write(tmp_path / name, encoding, ratings_dat=ratings, movies_dat=movies)
    raw = read(tmp_path / name)
    assert clicks(raw) == [
        ("1", "73", 978300760, 5.0),
        ("1", "3868", 978302109, 0.5),
        ("2", "1", 978298413, 3.0),
        ("2", "4000", 978298414, 3.0),
    ]
    assert titles(raw)["73"] == "Misérables, Les (1995)"
    assert titles(raw)["3868"] == 'Naked Gun: From the "Files"::of Police Squad!, The (1988)'
    assert "1 ratings of movies that movies.dat does not list" in raw.notes


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_20m_and_later(tmp_path, end):
    movies = [
        "movieId,title,genres",
        "1,Toy Story (1995),Adventure|Animation",
        '11,"American President, The (1995)",Comedy|Drama|Romance',
        '3,"Great ""Day"", A (1990) ",(no genres listed)',
        "131241,Ánts & Co. (2012– ),(no genres listed)",
    ]
    ratings = ["userId,movieId,rating,timestamp", "1,11,3.5,1112486027", "1,1,4.0,1112484676", "2,3,5.0,1e9"]
    ratings[-1] = "2,3,5.0,974820889"
    folder = write(tmp_path / "ml-20m", end=end, ratings_csv=ratings, movies_csv=movies)
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n")
    raw = read(tmp_path)
    assert clicks(raw) == [
        ("1", "11", 1112486027, 3.5),
        ("1", "1", 1112484676, 4.0),
        ("2", "3", 974820889, 5.0),
    ]
    assert titles(raw) == {
        "1": "Toy Story (1995)",
        "11": "American President, The (1995)",
        "3": 'Great "Day", A (1990) ',
        "131241": "Ánts & Co. (2012– )",
    }


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("u.data", "\n".join(U_DATA), r"u.data: cut off: the last line has no line end"),
        (
            "u.data",
            "196\t242\t3\n",
            r"u.data:1: expected 4 fields separated by tabs: user, item, rating, time",
        ),
        ("u.data", "\n".join(U_ITEM) + "\n", r"u.data: the text is not UTF-8; expected 4 fields"),
        ("u.data", "196\t242\t9\t881250949\n", r"u.data:1: expected a user, a movie, a rating of 0.5 to 5"),
        ("u.data", "196\t242\t3\tx\n", r"u.data:1: expected a user, a movie"),
        ("u.data", "196\t999\t3\t881250949\n", r"no rating is of a movie in u.item"),
        ("u.data", "", r"u.data: the file is empty"),
        ("u.item", "\n".join(U_DATA) + "\n", r"u.item:1: expected 24 fields separated by bars"),
        ("u.item", "\n".join([*U_ITEM, "903|Cut (19"]) + "\n", r"u.item:6: expected 24 fields"),
        ("u.item", "\n".join([U_ITEM[0], U_ITEM[0]]) + "\n", r"u.item: 1 numbers of movies occur twice"),
        ("u.item", None, r"u.item: no such file; expected the movies of MovieLens, beside u.data"),
    ],
)
def test_wrong_files_of_100k_are_named(tmp_path, file, content, message):
    write(tmp_path, "latin-1", u_data=U_DATA, u_item=U_ITEM)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "ratings.csv",
            "movieId,title,genres\n1,A (1990),x\n",
            r"ratings.csv:1: expected the header userId,movieId",
        ),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,3.0,1\n1,1,4.\n", r"ratings.csv:3: .*cut off"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n", r"ratings.csv: no rating is of a movie"),
        (
            "movies.csv",
            "userId,movieId,rating,timestamp\n1,1,3.0,1\n",
            r"movies.csv:1: expected the header movieId",
        ),
        (
            "movies.csv",
            "movieId,title,genres\n1,A (1990),x\n2,B\n",
            r"movies.csv:3: expected movieId,title,genres",
        ),
        ("movies.csv", "movieId,title,genres\n1,A, the (1990),x\n", r"movies.csv"),
    ],
)
def test_wrong_files_of_20m_are_named(tmp_path, file, content, message):
    write(
        tmp_path,
        ratings_csv=["userId,movieId,rating,timestamp", "1,1,3.0,1112486027"],
        movies_csv=["movieId,title,genres", "1,Toy Story (1995),Comedy"],
    )
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_missing_and_several_sets_are_named(tmp_path):
    (tmp_path / "ml-1m.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"expected u\.data and u\.item, or .*unpack ml-1m\.zip first"):
        read(tmp_path)
    write(tmp_path / "ml-100k", "latin-1", u_data=U_DATA, u_item=U_ITEM)
    write(tmp_path / "ml-1m", ratings_dat=["1::1::5::1"], movies_dat=["1::A (1990)::x"])
    with pytest.raises(UserError, match=r"several data sets \(ml-100k/u\.data, ml-1m/ratings\.dat\)"):
        read(tmp_path)
