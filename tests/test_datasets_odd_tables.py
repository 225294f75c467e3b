"""Tables whose first rows are not like the others, odd ratings and times, and files with odd names."""

from __future__ import annotations

import gzip
import json
import stat
import unicodedata

import pandas as pd
import polars as pl
import pytest
from PIL import Image
from table_shop import run, shop, written  # noqa: F401 (a fixture)

import adapter4rec
from adapter4rec.datasets.clicks import read_clicks
from adapter4rec.datasets.options import PrepareSettings
from adapter4rec.utils.errors import UserError

MANY = 10_001
"""One more row than the format of a column is first recognised from."""


def clicks_of(times):
    return "user,item,time\n" + "".join(f"u{n},i{n},{time}\n" for n, time in enumerate(times))


def seconds_of(folder, *users):
    found = dict(line.split("\t", 1) for line in written(folder)[0])
    return [int(found[user].split("\t")[1]) for user in users]


@pytest.mark.parametrize(
    ("first", "late", "step"),
    [
        ("01/01/2024", ["01/12/2024", "01/20/2024", "02/01/2024"], 86_400),  # January 12, 20, February 1
        ("01/01/2024", ["12/01/2024", "20/01/2024", "01/02/2024"], 86_400),  # the same, day first
        ("2024-01-01 00:00:00", ["2024-01-12 00:00:00.5", "2024-01-20 00:00:00.5"], 86_400),
        ("1704067200", ["1705017600.25", "1705708800.5"], 86_400),
    ],
)
def test_the_format_of_times_is_that_of_all_rows(shop, first, late, step):
    folder = shop(clicks_of([first] * MANY + late), None, "--timestamps", "true")
    start, *found = seconds_of(folder, "u0", *(f"u{MANY + n}" for n in range(len(late))))
    assert [(second - start) // step for second in found] == [11, 19, 31][: len(late)]


def test_times_may_begin_late_but_not_be_missing_altogether(shop):
    folder = shop(clicks_of([""] * MANY + ["2020-01-31"]), None)
    assert written(folder)[0] == [f"u{MANY}\ti{MANY}"]
    with pytest.raises(UserError, match="column time: has no values"):
        shop(clicks_of(["", ""]), None, into="none")


@pytest.mark.parametrize("times", [["NULL", "1580465470", "1580465480"], ["?", "2020-01-31", "2020-02-01"]])
def test_a_few_values_that_are_no_times_are_dropped(shop, times):
    folder = shop(clicks_of(times), None)
    assert [line.split("\t")[0] for line in written(folder)[0]] == ["u1", "u2"]
    assert "clicks without a time" in (folder / "card.md").read_text("utf-8")


def test_one_odd_time_does_not_set_the_unit_of_the_others(shop):
    times = [1_580_465_470 + n for n in range(30)] + [1_580_465_500_000]
    folder = shop(clicks_of(times), None, "--timestamps", "true", "--from", "2020-01-01")
    assert seconds_of(folder, "u0", "u29") == [1_580_465_470, 1_580_465_499]


def test_numbers_that_are_dates(tmp_path):
    frame = pl.DataFrame({"user": ["u", "v"], "item": ["a", "b"], "time": [20200131, 20200201]})
    for into, options in (("given", {"time_format": "%Y%m%d"}), ("recognised", {})):
        adapter4rec.from_dataframes(frame, None, tmp_path / into, time="time", since="20200201", **options)
        assert written(tmp_path / into)[0] == ["v\tb"]


def test_a_format_needs_a_column(shop):
    with pytest.raises(UserError, match=r"--time_format %Y: needs --time"):
        shop("user,item\nu,x\n", None, "--time_format", "%Y", columns=())


def test_missing_ratings_are_below_every_threshold(tmp_path):
    frame = pd.DataFrame({"user": ["a"] * 4, "item": ["1", "2", "3", "4"], "rating": [5, 1, None, 4]})
    adapter4rec.from_dataframes(frame, None, tmp_path / "out", rating="rating", min_rating=4)
    assert written(tmp_path / "out")[0] == ["a\t1 4"]


@pytest.mark.parametrize("kind", [pl.Float32, pl.Float64])
def test_a_rating_equal_to_the_threshold_is_kept(kind):
    frame = pl.DataFrame(
        {"user": ["a", "a"], "item": ["1", "2"], "rating": pl.Series([4.6, 4.5], dtype=kind)}
    )
    found = read_clicks(frame.lazy(), PrepareSettings(min_rating=4.6))
    assert found.item_names.to_list()[found.item[0]] == "1"
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_a_file_name_is_no_pattern(kind, tmp_path):
    for name, item in (("g[1]", "right"), ("g1", "wrong")):
        frame = pl.DataFrame({"user": ["u"], "item": [item]})
        write = frame.write_parquet if kind == "parquet" else frame.write_ndjson
        write(tmp_path / name)
    assert written(run(tmp_path, "--interactions", str(tmp_path / "g[1]")))[1] == ["right"]


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_whose_last_row_has_other_types(packed, tmp_path):
    rows = [{"user": "u", "item": n, "rating": 4, "time": None} for n in range(MANY)]
    rows += [{"user": "v", "item": "A1", "rating": 4.7, "time": 1_580_465_470, "title": "late"}]
    text = ("\ufeff" + "".join(json.dumps(row) + "\n" for row in rows)).encode()
    (tmp_path / "rows").write_bytes(gzip.compress(text) if packed else text)
    files = ["--interactions", str(tmp_path / "rows"), "--items", str(tmp_path / "rows"), "--title", "title"]
    folder = run(tmp_path, *files, "--rating", "rating", "--min_rating", "4.5", "--time", "time")
    assert written(folder) == (["v\tA1"], ["A1\tlate"])


def test_nested_titles(tmp_path):
    clicks = pl.DataFrame({"user": ["u"], "item": ["a"]})
    listed = pl.DataFrame({"item": ["a"], "title": [["two", "parts"]]})
    adapter4rec.from_dataframes(clicks, listed, tmp_path / "listed", title="title")
    assert written(tmp_path / "listed")[1] == ["a\ttwo parts"]
    with pytest.raises(UserError, match=r"column title: of type Struct.*expected texts"):
        adapter4rec.from_dataframes(
            clicks, pl.DataFrame({"item": ["a"], "title": [{"x": "y"}]}), tmp_path / "other", title="title"
        )


def test_quotation_marks_that_are_part_of_a_title(shop):
    rows = [f"i{n}\tpipe {n}" for n in range(6)]
    clicks = "user,item\n" + "".join(f"u,i{n}\n" for n in range(6))
    options = ["--title", "title"]
    inches = "\n".join(["item\ttitle", *rows[:3], 'x\t5" pipe', *rows[3:]])
    with pytest.raises(UserError, match=r"--quoting false"):
        shop(clicks, inches + "\n", *options, columns=())
    swallowed = "\n".join(["item\ttitle", 'i0\t"pipe 0', *rows[1:5], 'i5\tpipe 5"'])
    folder = shop(clicks, swallowed + "\n", columns=())
    assert "1 titles have several lines, such as that of 'i0'" in (folder / "card.md").read_text("utf-8")


def test_names_in_both_unicode_forms_are_one(shop):
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    items = f"item,title\n{one},A\nx,B\n"
    folder = shop(f"user,item\n{one},{one}\nv,x\n{other},x\n{other},{other}\n", items, columns=())
    assert written(folder) == ([f"{one}\t{one} x {one}", "v\tx"], [f"{one}\tA", "x\tB"])
    assert written(shop(f"user,item\nu,{other}\nu,{one}\n", None, columns=(), into="more"))[1] == [one]


def test_the_permissions_of_the_original_images_stay(shop, tmp_path):
    picture = tmp_path / "one.png"
    Image.new("RGB", (4, 4)).save(picture)
    picture.chmod(0o440)
    items = "item,title,path\nx,A,one.png\n"
    folder = shop("user,item\nu,x\n", items, "--image", "path", columns=())
    assert (folder / "images" / "x.png").read_bytes() == picture.read_bytes()
    assert stat.S_IMODE(picture.stat().st_mode) == 0o440


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["31.01.20", "01.02.20"], "2020-01-31"),
        (["01/31/20", "02/01/20"], "2020-01-31"),
        (["20200131112233", "20200201000000"], "2020-01-31"),
        (["20200131.0", "20200201.0", ""], "2020-01-31"),
        (["1580428800.0", "1580515200.0"], "2020-01-31"),
    ],
)
def test_times_in_short_and_compact_forms(shop, written, expected):
    rows = "".join(f"u,i{number},{time}\n" for number, time in enumerate(written))
    card = (shop(f"user,item,time\n{rows}") / "card.md").read_text("utf-8")
    assert f"first click | {expected}" in " ".join(card.split())
