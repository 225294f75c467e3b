"""Download of item images from their addresses: concurrent, resumable, checked.

A file is written under a temporary name, checked and renamed: what carries an item's name is whole. Only HTTP
and HTTPS addresses are opened.
"""

from __future__ import annotations

import csv
import http.client
import io
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import urllib.response
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import IO

from tqdm import tqdm

from adapter4rec.data.images.decoding import BrokenImageError, decoded, opened_image
from adapter4rec.utils.errors import UserError
from adapter4rec.utils.files import atomic_file, remove_abandoned

FAILURES = "failed_images.csv"
"""Name of the list of failures in the folder of the images."""
_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "AVIF": ".avif"}
_ENDINGS |= {"GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
"""File endings by format."""
_DECODED_SIZE = 224
"""Size at which images are decoded to see that they are whole."""
_NOT_A_NAME = re.compile(r"[/\\\x00-\x1f]|^\.|^$")
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""HTTP statuses that a later attempt may not see."""


@dataclass(frozen=True)
class Failure:
    """An image that could not be had."""

    item: str
    url: str
    reason: str


@dataclass(frozen=True)
class Fetched:
    """Images that are there, and those that could not be had.

    Attributes:
        paths: file by item name.
        failures: in the order of the addresses.
    """

    paths: dict[str, Path]
    failures: list[Failure]


@dataclass(frozen=True)
class FetchLimits:
    """Limits of each download.

    Attributes:
        timeout: seconds without a byte from the server.
        total: seconds for one image.
        largest: bytes of one image.
        attempts: tries, where another one may help.
        pause: seconds before the second try; doubled before each further one.
    """

    timeout: float = 15.0
    total: float = 60.0
    largest: int = 20 * 2**20
    attempts: int = 3
    pause: float = 1.0


class _FetchError(Exception):
    """Why an image could not be had."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


def fetch_images(
    urls: Mapping[str, str],
    into: Path,
    *,
    failed: Sequence[Failure] = (),
    threads: int = 16,
    limits: FetchLimits | None = None,
    progress: bool = True,
) -> Fetched:
    """Download the image of each item into a folder, as ``ITEM.jpg`` or with the ending of its format.

    Images that are there are kept, so an interrupted download continues. The failures are also written to
    ``failed_images.csv`` in the folder; the next call tries them again.

    Args:
        urls: address by item name.
        into: folder; created if missing.
        failed: failures that are not tried again, but stay in the list.
        threads: concurrent downloads.
        limits: of each download; default: :class:`FetchLimits`.
        progress: show a progress bar.

    Raises:
        UserError: ``into`` is a file.
    """
    if into.exists() and not into.is_dir():
        raise UserError(f"{into}: a file; expected a folder for images")
    into.mkdir(parents=True, exist_ok=True)
    limits = limits or FetchLimits()
    known = _present(into).keys() | {failure.item for failure in failed}
    missing = [item for item in urls if item not in known]
    found: dict[str, Failure] = {}
    stop = Event()
    with tqdm(total=len(missing), desc="images", unit="image", disable=not progress) as bar:
        todo, lock = iter(missing), Lock()

        def work() -> None:
            for item in _shared(todo, lock, stop):
                try:
                    _fetch_one(item, urls[item], into, limits, stop)
                except _FetchError as error:
                    found[item] = Failure(item, urls[item], str(error))
                with lock:
                    bar.update()

        _in_threads(work, min(threads, len(missing)), stop)
    failures = [*failed, *(found[item] for item in missing if item in found)]
    _write_failures(into / FAILURES, failures)
    return Fetched({item: path for item, path in _present(into).items() if item in urls}, failures)


def _present(into: Path) -> dict[str, Path]:
    """Images by item. What killed processes have left is removed."""
    remove_abandoned(into)
    images = (path for path in into.iterdir() if path.suffix in _ENDINGS.values() and path.stat().st_size)
    return {path.name.removesuffix(path.suffix): path for path in images}


def _shared(todo: Iterator[str], lock: Lock, stop: Event) -> Iterator[str]:
    """Items of one iterator for several threads."""
    while not stop.is_set():
        with lock:
            item = next(todo, None)
        if item is None:
            return
        yield item


def _in_threads(work: Callable[[], None], threads: int, stop: Event) -> None:
    """Run ``work`` in several threads. An interruption or an error in one ends all after their image."""
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        try:
            done, _ = wait([pool.submit(work) for _ in range(threads)], return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for task in done:
        task.result()


def _fetch_one(item: str, url: str, into: Path, limits: FetchLimits, stop: Event) -> None:
    if _NOT_A_NAME.search(item) or len(item.encode()) > 200:
        raise _FetchError("the item's name cannot be a file name")
    for attempt in range(1, limits.attempts + 1):
        try:
            data = _download(url, limits)
            ending = _checked(data)
            break
        except _FetchError as error:
            if not error.again or attempt == limits.attempts:
                raise
            if stop.wait(limits.pause * 2 ** (attempt - 1)):
                raise _FetchError("interrupted") from None
    with atomic_file(into / f"{item}{ending}", clean=False) as temporary:
        temporary.write_bytes(data)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects without reading what they carry, which may have no end."""

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> urllib.response.addinfourl | None:
        fp.close()
        return super().http_error_302(req, io.BytesIO(), code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS only: no file://, ftp:// or data:, not even by a redirect."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _download(url: str, limits: FetchLimits) -> bytes:
    """The body of an answer, whole.

    Raises:
        _FetchError: anything else.
    """
    if not url.startswith(("http://", "https://")):
        raise _FetchError("not an HTTP address")
    started = time.monotonic()
    try:
        escaped = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")
        request = urllib.request.Request(escaped, headers={"User-Agent": "adapter4rec", "Accept": "image/*"})
        with _opener().open(request, timeout=limits.timeout) as response:
            return _body(response, limits, started)
    except urllib.error.HTTPError as error:
        raise _FetchError(f"HTTP status {error.code}", again=error.code in _AGAIN) from None
    except TimeoutError:
        raise _FetchError(f"no byte for {limits.timeout:g} seconds", again=True) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _FetchError(f"no connection within {limits.timeout:g} seconds", again=True) from None
        raise _FetchError(f"no connection ({error.reason})", again=True) from None
    except (ValueError, http.client.InvalidURL) as error:
        raise _FetchError(f"not an address ({error})") from None
    except (OSError, http.client.HTTPException) as error:
        raise _FetchError(f"connection broken ({type(error).__name__})", again=True) from None


def _body(response: http.client.HTTPResponse, limits: FetchLimits, started: float) -> bytes:
    kind = response.headers.get_content_type()
    if not kind.startswith("image/") and kind not in ("application/octet-stream", "binary/octet-stream"):
        raise _FetchError(f"content type {kind}, not an image")
    announced = response.headers.get("Content-Length", "")
    promised = int(announced) if announced.isdigit() else None
    if promised is not None and promised > limits.largest:
        raise _FetchError(f"{promised:,} bytes; the limit is {limits.largest:,}")
    data = io.BytesIO()
    while block := response.read1(1 << 16):
        data.write(block)
        if data.tell() > limits.largest:
            raise _FetchError(f"more than {limits.largest:,} bytes, the limit")
        if time.monotonic() - started > limits.total:
            raise _FetchError(f"not whole after {limits.total:g} seconds", again=True)
    if promised is not None and data.tell() != promised:
        raise _FetchError(f"cut off: {data.tell():,} of {promised:,} bytes", again=True)
    return data.getvalue()


def _checked(data: bytes) -> str:
    """The file ending of an image that decodes.

    Raises:
        _FetchError: it does not.
    """
    if not data:
        raise _FetchError("empty", again=True)
    try:
        decoded(data, _DECODED_SIZE)
        with opened_image(data) as image:
            kind = image.format or "unknown"
    except BrokenImageError as error:
        raise _FetchError(f"does not decode: {error}") from None
    if kind not in _ENDINGS:
        raise _FetchError(f"a {kind} image; expected one of {', '.join(_ENDINGS)}")
    return _ENDINGS[kind]


def _write_failures(path: Path, failures: list[Failure]) -> None:
    """A CSV of item, url and reason; none if there is no failure."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("item", "url", "reason"))
        writer.writerows((failure.item, failure.url, failure.reason) for failure in failures)
