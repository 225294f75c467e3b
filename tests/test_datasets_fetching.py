"""Download of item images, from a local server that also stalls, lies, cuts off and answers other things."""

import csv
import io
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from adapter4rec.datasets.fetching import FAILURES, FetchLimits, fetch_images

QUICK = FetchLimits(timeout=0.3, total=1.0, largest=200_000, attempts=2, pause=0.01)


def picture(form="JPEG", size=(40, 30)):
    file = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(file, form)
    return file.getvalue()


PICTURE = picture()


class Handler(BaseHTTPRequestHandler):
    """Answers by the path; counts requests."""

    def log_message(self, *_):
        pass

    def send(self, body, kind="image/jpeg", length=None, status=200):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        name = self.path.split("/")[1]
        with self.server.lock:
            self.server.seen[name] += 1
            self.server.open += 1
            self.server.most = max(self.server.most, self.server.open)
        try:
            self.answer(name)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.server.lock:
                self.server.open -= 1

    def answer(self, name):  # noqa: PLR0912
        if name == "good":
            self.send(PICTURE)
        elif name == "png":
            self.send(picture("PNG"), "application/octet-stream")
        elif name == "slow":
            time.sleep(0.1)
            self.send(PICTURE)
        elif name == "silent":
            time.sleep(0.8)
        elif name == "stalls":
            self.send(PICTURE[:100], length=len(PICTURE))
            time.sleep(0.8)
        elif name == "trickles":
            self.send(b"", length=len(PICTURE))
            for byte in PICTURE[:40]:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.05)
        elif name == "cut":
            self.send(PICTURE[:100], length=len(PICTURE))
        elif name == "short":
            self.send(PICTURE, length=len(PICTURE) // 2)
        elif name == "half":
            self.send(PICTURE[: len(PICTURE) // 2])
        elif name == "page":
            self.send(b"<html>not here</html>", "text/html")
        elif name == "liar":
            self.send(b"<html>not here</html>")
        elif name == "empty":
            self.send(b"")
        elif name == "large":
            self.send(b"", length=10**9)
        elif name == "endless":
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"\xff" * 10_000)
        elif name == "recovers":
            again = self.server.seen[name] > 1
            self.send(PICTURE if again else b"busy", status=200 if again else 503)
        elif name == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
        elif name == "file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        else:
            self.send(b"", status=404)


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.lock, server.seen, server.open, server.most = threading.Lock(), Counter(), 0, 0
    server.at = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(server, folder, *names, **options):
    options = {"limits": QUICK, "progress": False, **options}
    return fetch_images({name: f"{server.at}/{name}" for name in names}, folder, **options)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_images_get_the_ending_of_their_format(server, tmp_path):
    assert fetch(server, tmp_path / "new", "good", "png", "moved", "recovers") == []
    assert names_in(tmp_path / "new") == ["good.jpg", "moved.jpg", "png.png", "recovers.jpg"]
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
    (failure,) = fetch_images({item: url}, tmp_path / "in", limits=QUICK, progress=False)
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


def test_downloads_are_concurrent(server, tmp_path):
    urls = {f"item{number}": f"{server.at}/slow" for number in range(24)}
    assert fetch_images(urls, tmp_path, threads=8, limits=FetchLimits(timeout=30), progress=False) == []
    assert len(names_in(tmp_path)) == 24
    assert 2 <= server.most <= 8


def test_an_error_ends_all_threads(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adapter4rec.datasets.fetching.atomic_file", full)
    urls = {f"item{number}": f"{server.at}/slow" for number in range(50)}
    with pytest.raises(OSError, match="No space left"):
        fetch_images(urls, tmp_path, threads=2, limits=QUICK, progress=False)
    assert server.seen["slow"] < 10
