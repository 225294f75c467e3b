"""The filters of a preparation: each by itself, the core, and users that are drawn."""

from __future__ import annotations

import random

import polars as pl
import pytest
from table_shop import shop, written  # noqa: F401 (a fixture)

import adapter4rec
from adapter4rec.utils.errors import UserError

CLICKS = "user,item,time,stars\na,x,1,5\na,y,2,2\na,x,3,4\nb,x,4,\nb,z,5,3\nc,y,6,5\nc,x,7,5\nc,z,8,1\n"
FILTERS = {
    "--min_rating 3": {"a": "x x", "b": "z", "c": "y x"},
    "--from 3 --until 7": {"a": "x", "b": "x z", "c": "y"},
    "--repeats merge": {"a": "x y", "b": "x z", "c": "y x z"},
    "--last 2": {"a": "y x", "b": "x z", "c": "x z"},
    "--min_user_clicks 3": {"a": "x y x", "c": "y x z"},
    "--min_item_clicks 3": {"a": "x x", "b": "x", "c": "x"},
    "--k_core 3": None,
    "--k_core 2": {"a": "x y x", "b": "x z", "c": "y x z"},
}


@pytest.mark.parametrize("options", FILTERS)
def test_filters(options, shop):
    columns = ("--time", "time", "--rating", "stars")
    if FILTERS[options] is None:
        with pytest.raises(UserError, match="3-core"):
            shop(CLICKS, None, *options.split(), columns=columns)
        return
    users, _ = written(shop(CLICKS, None, *options.split(), columns=columns))
    assert dict(line.split("\t") for line in users) == FILTERS[options]


def test_a_year_is_no_number_of_seconds(shop):
    clicks = "user,item,time\na,x,1546300800\na,y,1577836800\n"  # the first seconds of 2019 and 2020
    with pytest.raises(UserError, match="--from 2020: is it a year\\? Write 2020-01-01"):
        shop(clicks, None, "--from", "2020", columns=("--time", "time"))
    users, _ = written(shop(clicks, None, "--from", "2020-01-01", columns=("--time", "time")))
    assert users == ["a\ty"]


def test_the_core_is_the_one_of_a_plain_loop(tmp_path):
    draw = random.Random(5)
    rows = [(f"u{draw.randrange(60)}", f"i{int(40 * draw.random() ** 2)}") for _ in range(260)]
    frame = pl.DataFrame({"user": [u for u, _ in rows], "item": [i for _, i in rows]})
    adapter4rec.from_dataframes(frame, None, tmp_path / "out", k_core=4)
    while True:
        users, items = ([row[side] for row in rows] for side in (0, 1))
        kept = [row for row in rows if users.count(row[0]) >= 4 and items.count(row[1]) >= 4]
        if len(kept) == len(rows):
            break
        rows = kept
    found = [line.split("\t") for line in written(tmp_path / "out")[0]]
    assert sorted((user, item) for user, history in found for item in history.split()) == sorted(rows)
    assert 0 < len(rows) < 260


DRAWN = ["u1", "u6", "u22", "u31", "u46"]


def test_users_drawn_are_always_the_same(shop):
    clicks = "user,item\n" + "".join(f"u{n},i{n % 7}\n" for n in range(50))
    drawn = [line.split("\t")[0] for line in written(shop(clicks, None, "--users", "5", columns=()))[0]]
    assert drawn == DRAWN
    more = [
        line.split("\t")[0]
        for line in written(shop(clicks, None, "--users", "9", columns=(), into="more"))[0]
    ]
    assert set(drawn) < set(more)
