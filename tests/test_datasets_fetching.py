"""Download of item images, from a local server that also stalls, lies, cuts off and answers other things."""

import csv

import pytest
from image_server import PICTURE, server  # noqa: F401

from adapter4rec.datasets.fetching import FAILURES, FetchLimits, fetch_images
from adapter4rec.utils.files import atomic_file

QUICK = FetchLimits(timeout=0.3, total=1.0, largest=200_000, attempts=2, pause=0.01)


def fetch(server, folder, *names, **options):
    options = {"limits": QUICK, "progress": False, **options}
    return fetch_images({name: f"{server.at}/{name}" for name in names}, folder, **options).failures


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_images_get_the_ending_of_their_format(server, tmp_path):
    assert fetch(server, tmp_path / "new", "good", "png", "avif", "moved", "recovers") == []
    assert names_in(tmp_path / "new") == ["avif.avif", "good.jpg", "moved.jpg", "png.png", "recovers.jpg"]
    assert (tmp_path / "new" / "good.jpg").read_bytes() == PICTURE


@pytest.mark.parametrize(
    ("name", "reason", "requests"),
    [
        ("silent", "no byte for 0.3 seconds", 2),
        ("stalls", "no byte for 0.3 seconds", 2),
        ("trickles", "not whole after 1 seconds", 2),
        ("cut", f"cut off: 100 of {len(PICTURE):,} bytes", 2),
        ("short", "does not decode: image file is truncated", 1),
        ("half", "does not decode: image file is truncated", 1),
        ("page", "content type text/html, not an image", 1),
        ("liar", "does not decode: not an image", 1),
        ("ppm", "a PPM image; expected one of JPEG, MPO, PNG", 1),
        ("empty", "empty", 2),
        ("large", "1,000,000,000 bytes; the limit is 200,000", 1),
        ("endless", "more than 200,000 bytes, the limit", 1),
        ("missing", "HTTP status 404", 1),
        ("file", "HTTP status 302", 1),
    ],
)
def test_what_is_no_whole_image_is_a_failure_with_a_reason(server, tmp_path, name, reason, requests):
    (failure,) = fetch(server, tmp_path, name)
    assert (failure.item, failure.url) == (name, f"{server.at}/{name}")
    assert failure.reason.startswith(reason)
    assert names_in(tmp_path) == [FAILURES]
    assert server.seen[name] == requests


def test_what_a_redirect_carries_is_not_read(server, tmp_path):
    assert fetch(server, tmp_path, "laden") == []
    assert server.sent < 50_000_000


def test_failures_are_listed_in_the_order_of_the_addresses(server, tmp_path):
    failures = fetch(server, tmp_path, "missing", "good", "page", "cut", threads=3)
    assert [failure.item for failure in failures] == ["missing", "page", "cut"]
    with (tmp_path / FAILURES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["item", "url", "reason"]
    assert rows[1] == ["missing", f"{server.at}/missing", "HTTP status 404"]
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("item", "url", "reason"),
    [
        ("a", "file:///etc/hostname", "not an HTTP address"),
        ("a", "http://127.0.0.1:1/x", "no connection"),
        ("a", "http://127.0.0.1:port/x", "not an address"),
        ("a", "http:///x", "no connection"),
        ("../a", "http://127.0.0.1:1/x", "the item's name cannot be a file name"),
        ("", "http://127.0.0.1:1/x", "the item's name cannot be a file name"),
    ],
)
def test_addresses_and_names_that_cannot_be(tmp_path, monkeypatch, item, url, reason):
    monkeypatch.delenv("http_proxy", raising=False)
    (failure,) = fetch_images({item: url}, tmp_path / "in", limits=QUICK, progress=False).failures
    assert failure.reason.startswith(reason)
    assert names_in(tmp_path) == ["in"]


def test_a_later_call_keeps_what_is_whole_and_tries_the_rest(server, tmp_path):
    fetch(server, tmp_path, "good", "missing")
    (tmp_path / ".png.123.part").write_bytes(PICTURE[:50])  # of a killed process
    (tmp_path / "slow.jpg").touch()  # nothing in it
    assert [failure.item for failure in fetch(server, tmp_path, "good", "png", "missing", "slow")] == [
        "missing"
    ]
    assert server.seen == {"good": 1, "missing": 2, "png": 1, "slow": 1}
    assert names_in(tmp_path) == [FAILURES, "good.jpg", "png.png", "slow.jpg"]
    assert (tmp_path / "slow.jpg").read_bytes() == PICTURE
    assert fetch(server, tmp_path, "good", "png") == []
    assert FAILURES not in names_in(tmp_path)


def test_another_process_may_write_into_the_folder(server, tmp_path):
    with atomic_file(tmp_path / "png.png") as written:
        written.write_bytes(PICTURE)
        assert fetch(server, tmp_path, "good") == []
    assert names_in(tmp_path) == ["good.jpg", "png.png"]


def test_downloads_are_concurrent(server, tmp_path):
    urls = {f"item{number}": f"{server.at}/slow" for number in range(24)}
    found = fetch_images(urls, tmp_path, threads=8, limits=FetchLimits(timeout=30), progress=False)
    assert not found.failures
    assert found.paths.keys() == urls.keys()
    assert len(names_in(tmp_path)) == 24
    assert 2 <= server.most <= 8


def test_an_error_ends_all_threads(server, tmp_path, monkeypatch):
    def full(path, **options):
        if path.stem == "item3":
            raise OSError(28, "No space left on device")
        return atomic_file(path, **options)

    monkeypatch.setattr("adapter4rec.datasets.fetching.atomic_file", full)
    urls = {f"item{number}": f"{server.at}/slow" for number in range(50)}
    with pytest.raises(OSError, match="No space left"):
        fetch_images(urls, tmp_path, threads=2, limits=QUICK, progress=False)
    assert server.seen["slow"] < 10
