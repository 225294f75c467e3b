"""`--images` of the preparation: images of the items, downloaded from a local server."""

import json

import pytest
from image_server import server  # noqa: F401
from table_shop import run, written

from adapter4rec.datasets.fetching import FAILURES
from adapter4rec.utils.errors import UserError

CLICKS = ["u good", "u png", "u missing", "v good", "v missing", "v liar", "w good", "w own", "w moved"]


@pytest.fixture
def with_addresses(tmp_path, server):
    """A function that prepares a table whose items have addresses, one a file and one neither."""

    def make(*options, into="out"):
        (tmp_path / "clicks.csv").write_text("\n".join(["user;item", *(c.replace(" ", ";") for c in CLICKS)]))
        (tmp_path / "own.jpg").write_bytes(b"a picture")
        names = ("good", "png", "missing", "liar", "moved", "unclicked")
        rows = [f"{name};{server.at}/{name}" for name in names] + ["own;own.jpg", "bare;"]
        (tmp_path / "items.csv").write_text("\n".join(["item;picture", *rows]))
        files = ["--interactions", str(tmp_path / "clicks.csv"), "--items", str(tmp_path / "items.csv")]
        return run(tmp_path, *files, "--image", "picture", *options, into=into)

    return make


def images_of(folder):
    return {path.name for path in (folder / "images").iterdir()}


def test_items_whose_image_could_not_be_had_are_left_out_and_the_rest_is_filtered_again(
    with_addresses, tmp_path, server
):  # fmt: skip
    into = tmp_path / "downloads"
    folder = with_addresses("--images", str(into), "--min_user_clicks", "2", "--last", "2")
    # without the missing one, u keeps two clicks; v is left with one and drops out
    assert written(folder)[0] == ["u\tgood png", "w\town moved"]
    assert images_of(folder) == {"good.jpg", "png.png", "own.jpg", "moved.jpg"}
    assert {path.name for path in into.iterdir()} == {"good.jpg", "png.png", "moved.jpg", FAILURES}
    assert server.seen["missing"] == server.seen["liar"] == 1
    assert not server.seen["unclicked"]
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert any("2 images could not be downloaded" in note for note in card["notes"])
    assert "missing,http" in (into / FAILURES).read_text()


def test_images_that_are_there_are_not_downloaded_again(with_addresses, tmp_path, server):
    into = tmp_path / "downloads"
    first = with_addresses("--images", str(into))
    asked = dict(server.seen)
    second = with_addresses("--images", str(into), into="again")
    assert images_of(first) == images_of(second)
    assert {name: number - asked[name] for name, number in server.seen.items() if number > asked[name]} == {
        "missing": 1,
        "liar": 1,
    }


def test_items_keep_their_clicks_without_an_image_where_it_is_not_required(with_addresses, tmp_path):
    folder = with_addresses("--images", str(tmp_path / "downloads"), "--require", "none")
    assert written(folder)[0][0] == "u\tgood png missing"
    assert images_of(folder) == {"good.jpg", "png.png", "own.jpg", "moved.jpg"}


def test_nothing_is_downloaded_without_being_asked(with_addresses, server):
    folder = with_addresses("--require", "none")
    assert not server.seen
    assert "--images FOLDER" in (folder / "card.md").read_text("utf-8")
    assert images_of(folder) == {"own.jpg"}


def test_a_table_without_addresses_is_an_error(tmp_path):
    (tmp_path / "clicks.csv").write_text("user,item\nu,a\n")
    with pytest.raises(UserError, match="no addresses of images"):
        run(tmp_path, "--interactions", str(tmp_path / "clicks.csv"), "--images", str(tmp_path / "here"))
    assert not (tmp_path / "here").exists()
