"""Any table becomes a domain: formats, options, messages, and the same bytes each time."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from conftest import REPOSITORY
from PIL import Image
from table_shop import run, shop, written  # noqa: F401 (a fixture)

import adapter4rec
from adapter4rec.data.images.sources import image_files
from adapter4rec.data.interactions import read_interactions, read_items
from adapter4rec.datasets.command import prepare
from adapter4rec.datasets.sources import SOURCES
from adapter4rec.utils.errors import UserError

SHARED = REPOSITORY.parent / "shared" / "data"
COLUMNS = ["--user", "user_id", "--item", "sku", "--time", "time", "--title", "name"]
START = 1_500_000_000


def made_domain():
    """Users and items as in the files: repeated clicks, quotation marks, separators in titles."""
    draw = random.Random(0)
    items = {f"P{n:03}": f'The "{n}" of; many, {n}' for n in range(40)}
    users = {f"user{n}": draw.choices(list(items), k=5 + n % 4) for n in range(30)}
    return users, {name: title for name, title in items.items() if any(name in h for h in users.values())}


def real_domain(name, users=400):
    """The first users of real data, and their items."""
    lines = (SHARED / name / "users.tsv").read_text("utf-8").splitlines()[:users]
    histories = {user: history.split() for user, history in (line.split("\t") for line in lines)}
    clicked = {item for history in histories.values() for item in history}
    rows = [line.split("\t") for line in (SHARED / name / "items.tsv").read_text("utf-8").splitlines()]
    return histories, {item: title for item, title in rows if item in clicked}


def frames_of(users, items):
    """Clicks in random order with times, and items."""
    rows = [(user, item) for user, history in users.items() for item in history]
    clicks = pl.DataFrame(
        {
            "user_id": [u for u, _ in rows],
            "sku": [i for _, i in rows],
            "time": range(START, START + len(rows)),
        }
    )
    table = pl.DataFrame({"sku": list(items), "name": list(items.values())})
    return clicks.sample(fraction=1, shuffle=True, seed=3), table


def tsv_lines(users, items):
    return {f"{u}\t{' '.join(h)}" for u, h in users.items()}, [f"{i}\t{title}" for i, title in items.items()]


@pytest.mark.parametrize("name", ["made", "Scientific", "Instruments"])
@pytest.mark.parametrize("kind", ["csv", "semicolons", "parquet", "json", "gzip", "two files"])
def test_a_domain_written_out_and_shuffled_comes_back(name, kind, tmp_path):
    if name != "made" and not SHARED.is_dir():
        pytest.skip("without the real data")
    users, items = made_domain() if name == "made" else real_domain(name)
    clicks, table = frames_of(users, items)
    interactions = [tmp_path / "clicks"]
    products = tmp_path / "products"
    if kind == "parquet":
        clicks.with_columns(pl.from_epoch("time")).write_parquet(interactions[0])
        table.write_parquet(products)
    elif kind == "json":
        clicks.write_ndjson(interactions[0])
        table.write_ndjson(products)
    elif kind == "two files":
        interactions = [tmp_path / "a.csv", tmp_path / "b.csv"]
        clicks[:77].write_csv(interactions[0])
        clicks[77:].write_csv(interactions[1])
        table.write_csv(products)
    else:
        separator = ";" if kind == "semicolons" else ","
        clicks.write_csv(interactions[0], separator=separator)
        table.write_csv(products, separator=separator)
        if kind == "gzip":
            products.write_bytes(gzip.compress(products.read_bytes()))
    files = ["--interactions", *map(str, interactions), "--items", str(products)]
    found_users, found_items = written(run(tmp_path, *files, *COLUMNS, "--html", "keep"))
    assert (set(found_users), found_items) == tsv_lines(users, items)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames(library, tmp_path):
    users, items = made_domain()
    clicks, table = frames_of(users, items)
    if library == "pandas":
        clicks, table = (
            pd.DataFrame(clicks.to_dict(as_series=False)),
            pd.DataFrame(table.to_dict(as_series=False)),
        )
        clicks["time"] = pd.to_datetime(clicks["time"], unit="s")
    columns = {"user": "user_id", "item": "sku", "time": "time", "title": "name"}
    card = adapter4rec.from_dataframes(clicks, table, tmp_path / "out", **columns)
    found_users, found_items = written(tmp_path / "out")
    assert (set(found_users), found_items) == tsv_lines(users, items)
    assert card.data["users"] == 30
    with pytest.raises(UserError, match="'sku'"):
        adapter4rec.from_dataframes(clicks, table, tmp_path / "more", **columns | {"item": "skuu"})
    with pytest.raises(UserError, match="not empty"):
        adapter4rec.from_dataframes(clicks, table, tmp_path / "out", **columns)


def test_lists_of_texts_in_data_frames_are_joined(tmp_path):
    clicks = pd.DataFrame({"user": ["a", "a"], "item": ["x", "y"]})
    items = pd.DataFrame({"item": ["x", "y"], "title": ["T", "U"], "abstract": [["One.", "Two."], "Three."]})
    adapter4rec.from_dataframes(clicks, items, tmp_path / "out", title="title", abstract="abstract")
    assert written(tmp_path / "out")[1] == ["x\tT\tOne. Two.", "y\tU\tThree."]


def test_data_frames_that_do_not_do(tmp_path):
    clicks = pd.DataFrame({"user": ["a", "a"], "item": ["x", "y"]})
    days = clicks.assign(time=pd.to_timedelta([1, 2], unit="D"))
    with pytest.raises(UserError, match="'1 days 00:00:00' is not a time"):
        adapter4rec.from_dataframes(days, None, tmp_path / "out", time="time")
    with pytest.raises(UserError, match="expected text"):
        adapter4rec.from_dataframes(clicks.assign(item=[["x"], ["y"]]), None, tmp_path / "out")
    twice = pd.concat([clicks, clicks["item"]], axis=1)
    with pytest.raises(UserError, match="interactions: several columns have the name 'item'"):
        adapter4rec.from_dataframes(twice, None, tmp_path / "out")


def test_the_result_is_accepted_and_equal_input_gives_equal_bytes(tmp_path):
    clicks, table = frames_of(*made_domain())
    clicks.write_csv(tmp_path / "c.csv")
    table.write_csv(tmp_path / "i.csv")
    files = ["--interactions", str(tmp_path / "c.csv"), "--items", str(tmp_path / "i.csv")]
    options = ["--users", "20", "--seed", "7", "--last", "6", "--timestamps", "true"]
    first, second = (run(tmp_path, *files, *COLUMNS, *options, into=name) for name in ("one", "two"))
    for name in ("users.tsv", "items.tsv", "card.json", "card.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    plain = run(tmp_path, *files, *COLUMNS, *options[:-2], into="plain")
    items = read_items(plain / "items.tsv", ("title",))
    found = read_interactions(plain / "users.tsv", items, min_seq_len=5, max_seq_len=20)
    card = json.loads((plain / "card.json").read_text("utf-8"))
    assert found.n_users == card["data"]["users"] == 20
    assert found.n_items == card["data"]["items"] == len(items.names)
    assert len(found.clicks) == card["data"]["clicks"]
    assert sum(step["clicks"] for step in card["dropped"]) == len(clicks) - len(found.clicks)


def test_a_messy_shop(tmp_path):
    """Semicolons, quotation marks, Latin-1, missing and doubled titles, duplicates, times as text."""
    clicks = "Kunde;Artikel;Zeit\n" + "".join(
        f'"K {user}";"A {item}";{day:02}.03.2024 10:{item:02}\n'
        for day, user in ((28, 1), (29, 2), (30, 3))
        for item in (5, 4, 3, 2, 1)
    )
    clicks += ";A 1;01.03.2024 10:00\nK 1;A 1;\nK 1;A 9;01.03.2024 09:00\n"
    items = 'Artikel;Name\n"A 1";"Käse ""jung""; mild"\nA_1;"Brot &amp; <b>Wurst</b>"\n"A 2";\n"A 2";Öl\n'
    items += "A 3;Brot\nA 4;Brot\nA 5; \xa0 \n"
    (tmp_path / "clicks.csv").write_bytes(clicks.encode("latin-1"))
    (tmp_path / "items.csv").write_bytes(items.encode("latin-1"))
    files = ["--interactions", str(tmp_path / "clicks.csv"), "--items", str(tmp_path / "items.csv")]
    columns = ["--user", "Kunde", "--item", "Artikel", "--time", "Zeit", "--title", "Name"]
    with pytest.raises(UserError, match="--encoding"):
        run(tmp_path, *files, *columns)
    with pytest.raises(UserError, match="--encoding: unknown encoding 'rot13'"):  # a codec, but not of texts
        run(tmp_path, *files, *columns, "--encoding", "rot13")
    folder = run(tmp_path, *files, *columns, "--encoding", "latin-1", "--unclicked", "keep")
    users, lines = written(folder)
    assert users == [f"K {user}\tA_1_2 A_2 A_3 A_4" for user in (1, 2, 3)]
    assert lines == ['A_1_2\tKäse "jung"; mild', "A_1\tBrot & Wurst", "A_2\tÖl", "A_3\tBrot", "A_4\tBrot"]
    originals = [f"A_{n},A {n}" for n in (2, 3, 4)]
    renamed = (folder / "renamed_items.csv").read_text("utf-8").splitlines()
    assert renamed == ["name,original", "A_1_2,A 1", *originals]
    card = (folder / "card.md").read_text("utf-8")
    assert "clicks without a user or an item" in card
    assert "1 clicked items are in no row" in card


TIMES = {
    "seconds": (["1580465470", "1580465480", "1580465490"], None),
    "milliseconds": (["1580465470001", "1580465470002", "1580465490000"], None),
    "fractions": (["1580465470.25", "1580465470.5", "1580465490"], None),
    "ISO": (["2020-01-31T10:11:10Z", "2020-01-31T10:11:20Z", "2020-01-31T10:11:30Z"], None),
    "zones": (["2020-01-31 12:11:10+02:00", "2020-01-31 10:11:20+00:00", "2020-01-31 09:11:30-01:00"], None),
    "days": (["20200131", "20200201", "20200202"], None),
    "American": (["1/31/2020 10:11", "2/1/2020 10:11", "2/2/2020 10:11"], None),
    "given": (["01|02|2020", "02|02|2020", "03|02|2020"], "%d|%m|%Y"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_order_the_clicks(kind, shop):
    times, form = TIMES[kind]
    order = [2, 0, 1]
    clicks = "user,item,time\n" + "".join(f"u,i{n},{times[n]}\n" for n in order)
    options = ["--timestamps", "true", *(["--time_format", form] if form else [])]
    ((line,), _) = written(shop(clicks, None, *options))
    name, history, seconds = line.split("\t")
    assert (name, history) == ("u", "i0 i1 i2")
    assert all(1_580_000_000 < int(second) < 1_581_000_000 for second in seconds.split())


def test_ambiguous_and_wrong_times(shop):
    with pytest.raises(UserError, match=r"clicks\.csv, column time: '01/02/2020'.*--time_format"):
        shop("user,item,time\nu,i,01/02/2020\n")
    with pytest.raises(UserError, match=r"column time: 'yesterday' is not a time"):
        shop("user,item,time\nu,i,yesterday\n")


def test_two_items_with_one_file_name_are_refused(shop, tmp_path):
    """An image is a link to the user's own file, which must not be written."""
    originals = [tmp_path / name for name in ("one.jpg", "two")]
    for path in originals:
        path.write_text(path.name)
    items = f"item,title,picture\na,A,{originals[0]}\na.jpg,B,{originals[1]}\n"
    options = ("--image", "picture", "--image_folder", str(tmp_path))
    with pytest.raises(UserError, match="another item's image has the name"):
        shop("user,item\nu,a\nu,a.jpg\nu,a\n", items, *options, columns=())
    assert [path.read_text() for path in originals] == ["one.jpg", "two"]


def test_images_are_found_by_the_builder_of_the_lmdb(shop, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("one.JPG", "two.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / name)
    items = "item,title,path\nx/1,A,pictures/one.JPG\ny,B,pictures/two.png\nz,C,pictures/three.png\n"
    options = ("--image", "path", "--require", "title,image")
    folder = shop("user,item\nu,x/1\nu,y\nu,z\n", items, *options, columns=())
    assert written(folder) == (["u\tx_1 y"], ["x_1\tA", "y\tB"])
    found = image_files(folder / "images", [b"x_1", b"y"])
    assert {name: path.name for name, path in found.items()} == {b"x_1": "x_1.jpg", b"y": "y.png"}


def test_missing_titles_may_be_kept(shop):
    items = "item,title\nx,A\ny,\n"
    assert written(shop("user,item\nu,x\nu,y\n", items, columns=())) == (["u\tx"], ["x\tA"])
    kept = shop("user,item\nu,x\nu,y\n", items, "--require", "none", columns=(), into="kept")
    assert written(kept) == (["u\tx y"], ["x\tA", "y\t"])


def test_messages_name_the_file_the_column_and_the_fix(shop, tmp_path):
    clicks, items = "user_id,item,time\nu,x,1\n", "item,title\nx,A\n"
    with pytest.raises(
        UserError, match=r"clicks\.csv: no column 'user'.*did you mean 'user_id'.*user_id, item, time"
    ):
        shop(clicks, items)
    with pytest.raises(UserError, match="separator wrong"):
        shop(clicks, items, "--separator", ";")
    with pytest.raises(UserError, match=r"none of the clicks .*'q'.*'x'"):
        shop("user,item\nu,q\n", items, columns=())
    with pytest.raises(UserError, match="no ratings"):
        shop("user,item\nu,x\n", items, "--min_rating", "3", columns=())
    with pytest.raises(UserError, match="no times"):
        shop("user,item\nu,x\n", items, "--from", "2020-01-01", columns=())
    with pytest.raises(UserError, match=r"clicks\.csv: cannot be read"):
        shop("user,item\nu,x\nu,x,y,z\n", items, columns=())
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


BAD = {
    "missing": (None, "no such file"),
    "empty": (b"", "empty file"),
    "cut off gzip": (gzip.compress(b"user,item\n" + b"u,x\n" * 1000)[:-20], "cut off or damaged gzip"),
    "cut off Parquet": (b"PAR1\x15" + bytes(100), "cut off"),
    "Excel": (b"PK\x03\x04" + bytes(100), "Excel"),
    "JSON array": (b'[{"user": 1}]', "JSON lines"),
    "header alone": (b"user,item\n", "no rows"),
    "cut off JSON": (b'{"user": "u", "item": "x"}\n{"user": "u", "it', "cut off"),
    "binary": (b"abc\0\0\1", "not a text file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_damaged_files_are_named(kind, tmp_path):
    content, message = BAD[kind]
    path = tmp_path / "data.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"data\.csv: .*{message}"):
        run(tmp_path, "--interactions", str(path))


def test_names_that_are_numbers_or_have_control_characters(tmp_path):
    clicks = pl.DataFrame({"user": ["a\tb", "a\tb", "c d", "e"], "item": [1.0, 2.5, 7.0, None]})
    adapter4rec.from_dataframes(clicks, None, tmp_path / "out")
    assert written(tmp_path / "out") == (["a_b\t1 2.5", "c d\t7"], ["1", "2.5", "7"])
    assert (tmp_path / "out" / "renamed_users.csv").read_text("utf-8") == "name,original\na_b,a\tb\n"
    assert not (tmp_path / "out" / "renamed_items.csv").exists()


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "c.csv").write_bytes("\ufeffuser;item\r\nü;007\r\nü;x\r\n".encode())
    assert written(run(tmp_path, "--interactions", str(tmp_path / "c.csv"))) == (["ü\t007 x"], ["007", "x"])


def test_utf16_is_recognised(tmp_path):
    (tmp_path / "c.csv").write_bytes("user\titem\nü\tx\n".encode("utf-16"))
    folder = run(tmp_path, "--interactions", str(tmp_path / "c.csv"))
    assert written(folder) == (["ü\tx"], ["x"])
    assert "UTF-16" in (folder / "card.md").read_text("utf-8")


def test_the_data_set_of_the_document_is_prepared(tmp_path, monkeypatch):
    page = (REPOSITORY / "docs" / "extending.md").read_text("utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "SHOP" in block]
    monkeypatch.setitem(SOURCES, "shop", None)
    names = {"SOURCES": SOURCES}
    for block in blocks:
        exec(block, names)
    raw = tmp_path / "raw"
    raw.mkdir()
    arguments = ["shop", "--raw", str(raw), "--into", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"orders\.csv: no such file"):
        prepare(arguments)
    day = "2024-03-0{} 10:00".format
    rows = [f"u;007;{day(2)};sent", f"u;8;{day(1)};sent", f"u;8;{day(3)};returned"]
    (raw / "orders.csv").write_text("\n".join(["customer;product;day;state", *rows]))
    (raw / "products.csv").write_text("product;name\n007;Tea\n8;Pot\n")
    prepare(arguments)
    assert written(tmp_path / "out") == (["u\t8 007"], ["007\tTea", "8\tPot"])
    card = json.loads((tmp_path / "out" / "card.json").read_text("utf-8"))
    assert card["notes"] == ["1 returned orders left out"]
    assert [one["name"] for one in card["inputs"]] == ["orders.csv", "products.csv"]


def test_the_command_ends_without_a_traceback():
    def output(*words):
        command = [sys.executable, "-m", "Dataset.prepare", *words]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert "--k_core" in output("--help").stdout
    assert "--time_format" in output("table", "--help").stdout
    wrong = output("tabel")
    assert (wrong.returncode, wrong.stderr) == (2, "error: tabel: unknown data set; did you mean 'table'?\n")
    assert output("table", "--interactions", str(Path("none.csv")), "--into", "none").returncode == 2
