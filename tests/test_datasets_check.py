"""The check of a domain: the card, warnings of what is odd, and whether a run would accept it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from conftest import write_domain
from image_shop import picture
from PIL import Image

from adapter4rec.datasets.card import Card, figures
from adapter4rec.datasets.checking import check
from adapter4rec.datasets.texts import ITEM_NAME, cleaned_texts, mapped_names, stripped_of_html
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.settings import Settings, option, options_of

TITLES = {f"i{n}": f"title number {n}" for n in range(8)}
USERS = {f"u{n}": [f"i{(n + step) % 8}" for step in range(6)] for n in range(5)}


def output_of(folder, capsys, *options):
    check([str(folder), *options])
    return capsys.readouterr().out


def test_a_good_domain_is_accepted_without_warnings(tmp_path, capsys):
    write_domain(tmp_path / "shop", USERS, TITLES)
    out = output_of(tmp_path / "shop", capsys)
    assert "# Data card: shop" in out
    assert "warning" not in out
    assert "accepted: 5 users, 8 items, 30 clicks kept" in out


ODD = {
    "titles are quoted": (USERS, TITLES | {"i3": '"An 8"" pan"'}),
    "titles look like HTML": (USERS, TITLES | {"i3": "Salt &amp; pepper"}),
    "titles are repeated": (USERS, TITLES | {"i3": "title number 1", "i4": "title number 1"}),
    "differ from another in upper and lower case": (USERS, TITLES | {"I3": "another"}),
    "items have no click": (USERS, TITLES | {"i9": "nine"}),
    "may stand for a missing title": (USERS, TITLES | {"i3": "NULL"}),
    "the last click of 1 of 5 users is on an item of their history": (
        USERS | {"u0": ["i0", "i1", "i0", "i2", "i0"]},
        TITLES,
    ),
    "are these the columns of user and item": (
        {"paid": ["a", "b"] * 5, "lost": ["b", "a"] * 5},
        {"a": "A", "b": "B"},
    ),
    "looks like a header": (USERS, {"item_id": "title"} | TITLES),
}


@pytest.mark.parametrize("warning", ODD)
def test_what_is_odd_is_warned_of(warning, tmp_path, capsys):
    write_domain(tmp_path, *ODD[warning])
    out = output_of(tmp_path, capsys)
    assert f"{warning}" in out
    assert "accepted" in out


REFUSED = {
    "users have fewer than 5 clicks": ({name: history[:3] for name, history in USERS.items()}, TITLES),
    "clicks are on items that": (USERS | {"u9": ["x"] * 6}, TITLES),
    "no visible text": (USERS, TITLES | {"i2": ""}),
}


@pytest.mark.parametrize("warning", REFUSED)
def test_what_a_run_refuses_is_refused_after_the_card(warning, tmp_path, capsys):
    write_domain(tmp_path, *REFUSED[warning])
    with pytest.raises(UserError, match="a run would not accept these files"):
        check([str(tmp_path)])
    out = capsys.readouterr().out
    assert "clicks per user" in out
    assert warning in out


def test_doubled_names_and_lines_that_cannot_be_read(tmp_path, capsys):
    users, items = write_domain(tmp_path, USERS, TITLES)
    items.write_text(items.read_text() + "i1\tagain\n")
    users.write_text(users.read_text() + "u1\ti1 i2 i3 i4 i5\n")
    with pytest.raises(UserError, match="duplicate item"):
        check([str(tmp_path)])
    out = capsys.readouterr().out
    assert "1 items have a name that another line has" in out
    assert "1 users have a name that another line has" in out
    items.write_text("i1\ttitle\n\n")
    with pytest.raises(UserError, match=r"items\.tsv:2: blank line"):
        check([str(tmp_path)])
    items.write_text("")
    with pytest.raises(UserError, match="no items"):
        check([str(tmp_path)])
    with pytest.raises(UserError, match="no such folder"):
        check([str(tmp_path / "none")])
    with pytest.raises(UserError, match="expected a folder"):
        check([])


def test_figures_of_a_card():
    user, item = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 0, 0, 2, 0])
    data = figures(user, item, 4, np.array([0, 1, 2, 3, 4, 86400]), {"items with a title": 3})
    assert (data["users"], data["items"], data["items in items.tsv"], data["clicks"]) == (2, 3, 4, 6)
    assert data["density"] == 1.0
    assert data["clicks per user"]["maximum"] == 4
    assert data["clicks per item"]["median"] == 1
    assert (data["repeated clicks"], data["users with repeated clicks"]) == (2, 1)
    assert data["last click"] == "1970-01-02 00:00:00 UTC"
    assert "| items with a title" in Card("name", data).markdown()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Salt &amp;amp; pepper", "Salt & pepper"),
        ("<p>One<br/>two <b>thr</b>ee</p>", "One two three"),
        ("a < b and c > d, x<y", "a < b and c > d, x<y"),
        ("<Brand> 5 &#39;x&quot;", "<Brand> 5 'x\""),
        ("&lt;br&gt;new", "new"),
        ("Oven&microwave &amp; pen&notebook", "Oven&microwave & pen&notebook"),
        ("<script>var a = '<b>';</script>Pan<!-- no -->", "Pan"),
    ],
)
def test_html_is_stripped(text, plain):
    assert " ".join(stripped_of_html(text).split()) == plain


@pytest.mark.parametrize("invisible", ["", "\u00a0", "\u3000\u200b", " \t\n", "\ufeff"])
def test_a_text_without_a_visible_character_is_missing(invisible):
    texts = pl.Series(["a", invisible], dtype=pl.String)
    for strip in (True, False):
        assert cleaned_texts(texts, strip_html=strip).to_list() == ["a", None]


def test_mapped_names_stay_distinct():
    names = pl.Series(["a b", "a\u00a0b", "a_b", "c", "a_b_2"])
    mapped, changed = mapped_names(names, ITEM_NAME)
    assert mapped.to_list() == ["a_b_3", "a_b_4", "a_b", "c", "a_b_2"]
    assert changed == 2


@dataclass(frozen=True)
class _Several(Settings):
    """Options of this test."""

    parts: tuple[int, ...] | None = option(None, "parts")


def test_an_option_of_several_values_may_be_missing():
    assert options_of(_Several)["parts"].several
    assert _Several().parts is None
    assert _Several.from_values({"parts": "1,2"}).parts == (1, 2)


def test_images_are_counted_and_the_odd_ones_are_named(tmp_path, capsys):
    folder = tmp_path / "shop"
    write_domain(folder, USERS, TITLES)
    (folder / "images").mkdir()
    picture(1, width=300, height=200).save(folder / "images" / "i0.jpg")
    for name in ("i1", "i2"):
        width = 40 + (name == "i2")  # equal pixels when reduced, different files
        Image.new("RGB", (width, 50), "white").save(folder / "images" / f"{name}.png")
    picture(2, width=900, height=30).save(folder / "images" / "i3.png")
    (folder / "images" / "i4.jpg").write_bytes(b"<html>404</html>")
    for number, name in enumerate(("i5.png", "i5.gif", "i6.png", "i6.gif")):
        picture(number).save(folder / "images" / name)
    out = output_of(folder, capsys)
    assert "2 JPEG" not in out
    assert "3 PNG, 1 JPEG" in out
    assert "40 x 30" in out  # the least width and the least height
    for warning in (
        "1 of 8 items have no image",
        "item 'i5' has several images",
        "the image of item 'i4' cannot be used",
        "2 items share 1 equal images (2 different files); the most frequent one stands for 2 items",
        "2 images have one colour alone, such as that of item 'i1'",
    ):
        assert f"warning: {warning}" in out
    listed = (folder / "images_check.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed] == ["item", "i4", "i5", "i6", "i7"]
    with Image.open(folder / "images_check.png") as sheet:
        assert sheet.height > 4 * 96
    assert "accepted" in out


def test_a_domain_in_another_encoding_with_numbered_images(tmp_path, capsys):
    titles = {f"v{n}": f"Käse {n}" for n in range(8)}
    users = {user: [item.replace("i", "v") for item in history] for user, history in USERS.items()}
    for path in write_domain(tmp_path, users, titles):
        path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    (tmp_path / "images").mkdir()
    for n in range(7):
        picture(n).save(tmp_path / "images" / f"{n:04}.jpg")
    options = ("--encoding", "latin-1", "--numbered_files", "true")
    assert "1 items have no usable image" in output_of(tmp_path, capsys, *options)
    assert "no image" in (tmp_path / "images_check.csv").read_text("utf-8")
    picture(7).save(tmp_path / "images" / "0007.jpg")
    assert "accepted: 5 users, 8 items" in output_of(tmp_path, capsys, *options)
    assert not (tmp_path / "images_check.csv").exists()
