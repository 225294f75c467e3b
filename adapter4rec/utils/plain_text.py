"""The rule for text from outside: encodings, names, empty texts, and output to any terminal.

Everything that reads names or texts, or prints them, follows the rule of this module. Messages about a
fault are returned, so that the caller can add file and line.
"""

from __future__ import annotations

import codecs
import json
import sys
from io import TextIOWrapper
from typing import Any
from unicodedata import category, normalize

GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
_OTHER_FILES = {
    GZIP: "compressed with gzip; unpack it first",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; unpack it first, or export it as text",
    **{b"BZh%d1AY&SY" % level: "compressed with bzip2; unpack it first" for level in range(1, 10)},
    b"\xfd7zXZ": "compressed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    PARQUET + b"\x15": "a Parquet file; export it as text",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file with `git lfs pull`",
}
"""First bytes of files that are not text; more than their marks where those could begin a name."""
_PAGES = b"<!doctype", b"<html", b"<?xml"
_UTF_32 = codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE
_UTF_16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
SNIFFED_BYTES = 512
"""Number of first bytes by which a file is recognised."""


def is_blank(text: str) -> bool:
    """Whether a text is empty: nothing but Unicode white space, format and control characters.

    U+00A0 (no-break space), U+3000 (ideographic space) and U+200B (zero-width space) alone are an empty text.
    """
    stripped = text.strip()
    if not stripped or stripped[0].isalnum():
        return not stripped
    return all(letter.isspace() or category(letter) in ("Cf", "Cc") for letter in stripped)


def title_fault(title: str, *, allow_empty: bool) -> str | None:
    """Why the title of an item, in training or new, is not accepted; None if it is."""
    return "empty title" if not allow_empty and is_blank(title) else None


def name_fault(name: str, what: str) -> str | None:
    """Why a name is not accepted; None if it is.

    Args:
        name: the name.
        what: ``item`` or ``user``. Spaces are allowed in names of users only.
    """
    if not name:
        return f"empty {what} name"
    if is_blank(name):
        return f"empty {what} name: {name!r} is white space or format characters alone"
    for letter in name:
        if category(letter) == "Cc":
            return f"the {what} name {name!r} contains the control character U+{ord(letter):04X}; remove it"
    if what == "item" and " " in name:
        return (
            f"the item name {name!r} contains a space, and spaces separate the item names in users.tsv; "
            "rename the item in both files"
        )
    return None


def first_fault(names: list[bytes], what: str) -> tuple[int, str] | None:
    """The index of the first name that is not accepted, and why (see :func:`name_fault`).

    Args:
        names: names in UTF-8, without line feeds.
        what: ``item`` or ``user``.
    """
    try:
        text = b"\n".join(names).decode("utf-8")  # ten times as fast as name by name
    except UnicodeDecodeError:
        text = ""
    # Printable text has no control or format characters, and no white space but spaces.
    spaces_fit = " " not in text if what == "item" else all(map(bytes.strip, names))
    if text and spaces_fit and all(names) and text.replace("\n", "").isprintable():
        return None
    for row, raw in enumerate(names):
        if fault := utf8_fault(raw) or name_fault(raw.decode("utf-8"), what):
            return row, fault
    return None


def composed(raw: bytes) -> bytes:
    """UTF-8 in Unicode's composed form (NFC), in which names are compared; other bytes stay as they are.

    macOS writes the letter è in the name of a file as e and a combining accent.
    """
    if raw.isascii():
        return raw
    return normalize("NFC", raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def utf8_fault(raw: bytes) -> str | None:
    """Why a column of a file is not UTF-8; None if it is."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return (
            f"not UTF-8 ({error.reason} at byte {error.start} of the column); set the encoding of the file, "
            "for example --encoding latin-1 or cp1252, or convert it with iconv -f latin1 -t utf-8"
        )
    return None


def encoding_fault(encoding: str) -> str | None:
    """Why the name of an encoding is not accepted; None if it is."""
    try:
        "a".encode(encoding)  # also refuses codecs that are no text encodings, such as hex
    except (LookupError, ValueError):
        return f"unknown encoding {encoding!r}; common ones are utf-8, latin-1, cp1252, gb18030, utf-16"
    return None


def is_utf8(encoding: str) -> bool:
    """Whether a known encoding is UTF-8, by any of its names."""
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def has_ascii_lines(encoding: str) -> bool:
    """Whether a line feed is one byte in a known encoding, so that a file can be split into lines first."""
    return "\n".encode(encoding) == b"\n"


def is_page(start: bytes) -> bool:
    """Whether a file is HTML or XML, as servers send in place of a file that they refuse."""
    return start.removeprefix(codecs.BOM_UTF8).lstrip().lower().startswith(_PAGES)


def not_text(start: bytes) -> str | None:
    """What a file is that is not text or not data, and what to do; None if nothing is recognised.

    Args:
        start: the first :data:`SNIFFED_BYTES` bytes of the file.
    """
    for mark, what in _OTHER_FILES.items():
        if start.startswith(mark):
            return what
    return "a web page, not data; download it again" if is_page(start) else None


def unicode_form(start: bytes) -> str | None:
    """The encoding of a file in UTF-16 or UTF-32, recognised by its first bytes; None if it is neither."""
    for recognised, name in (
        (start.startswith(_UTF_32), "utf-32"),
        (start.startswith(_UTF_16), "utf-16"),
        ([byte > 0 for byte in start[:4]] == [True, False, True, False], "utf-16-le"),
        ([byte > 0 for byte in start[:4]] == [False, True, False, True], "utf-16-be"),
    ):
        if recognised:
            return name
    return None


def file_fault(start: bytes, encoding: str) -> str | None:
    """Why a file is not text in an encoding, recognised by its first bytes; None if nothing is recognised.

    Args:
        start: the first :data:`SNIFFED_BYTES` bytes of the file.
        encoding: a known encoding.
    """
    if what := not_text(start):
        return f"not text but {what}"
    name = unicode_form(start) if has_ascii_lines(encoding) else None  # else as announced
    if name is None:
        return None
    shown = name[:6].upper()
    return f"encoded in {shown}; use --encoding {name}, or convert it with iconv -f {name} -t utf-8"


def json_text(content: Any, **options: Any) -> str:
    """JSON that can be encoded in UTF-8. Bytes of file names that are not UTF-8 are escaped.

    Args:
        content: what :func:`json.dumps` accepts.
        options: of :func:`json.dumps`.
    """
    text = json.dumps(content, ensure_ascii=False, **options)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(content, **options)
    return text


def printable(text: str) -> str:
    """A text that can be encoded in UTF-8. Bytes of file names that are not UTF-8 are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def escape_output() -> None:
    """Escape what the encoding of the terminal cannot show, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def shows_progress() -> bool:
    """Whether there is somebody to watch a progress bar: standard error is a terminal, or a notebook's."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
