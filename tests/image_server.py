"""A local server of pictures that also stalls, lies, cuts off and answers other things."""

import io
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image


def picture(form="JPEG", size=(40, 30)):
    file = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(file, form)
    return file.getvalue()


PICTURE = picture()
REDIRECTS = {"moved": "/good", "laden": "/good", "file": "file:///etc/hostname"}


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
        elif name in ("avif", "ppm"):
            self.send(picture(name.upper()), f"image/{name}")
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
        elif name in REDIRECTS:
            self.send_response(302)
            self.send_header("Location", REDIRECTS[name])
            self.end_headers()
            for _ in range(100 if name == "laden" else 0):
                self.server.sent += self.wfile.write(b"\xff" * 1_000_000)
        else:
            self.send(b"", status=404)


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.lock, server.seen = threading.Lock(), Counter()
    server.open = server.most = server.sent = 0
    server.at = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
