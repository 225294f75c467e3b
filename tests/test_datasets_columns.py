"""Columns of a table: filtered by their values, and refused if they do not fit their option."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from table_shop import shop, written  # noqa: F401 (a fixture)

import adapter4rec
from adapter4rec.utils.errors import UserError

ORDERS = "user,item,time,state\n" + "".join(
    f"u,{item},2024-01-0{day},{state}\n"
    for day, (item, state) in enumerate([("a", "paid"), ("b", "sent"), ("a", "lost"), ("c", "paid")], 1)
)


@pytest.mark.parametrize(("where", "kept"), [("state=paid", "a c"), ("state=paid,sent,item=a,c", "a c")])
def test_rows_are_filtered_by_the_values_of_columns(shop, where, kept):
    folder = shop(ORDERS, None, "--where", where)
    assert written(folder)[0] == [f"u\t{kept}"]
    assert "in which state is not" in (folder / "card.md").read_text("utf-8")


def test_data_frames_are_filtered_by_columns(tmp_path):
    frame = pd.read_csv(io.StringIO(ORDERS))
    adapter4rec.from_dataframes(frame, None, tmp_path / "out", time="time", where=("state=paid",))
    assert written(tmp_path / "out")[0] == ["u\ta c"]


def test_a_table_without_times_is_noted(shop):
    assert "no times" in (shop(ORDERS, None, columns=()) / "card.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "paid"], "expected COLUMN=VALUE"),
        (["--where", "stat=paid"], r"no column 'stat' \(--where\); did you mean 'state'"),
        (["--rating", "state", "--min_rating", "1"], "'paid' is not a number"),
        (["--time_format", "%d.%m.%Y"], r"'2024-01-01' does not have the format %d\.%m\.%Y"),
    ],
)
def test_columns_that_do_not_fit_are_named(shop, options, message):
    with pytest.raises(UserError, match=message):
        shop(ORDERS, None, *options)
