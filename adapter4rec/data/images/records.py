"""The value of one item in the image database: a fixed header, then pixels or the image file's bytes.

The header is little-endian and 20 bytes long: magic (4 bytes), version, form (1 byte each), conversions
(2 bytes), height, width and a checksum (4 bytes each). The checksum is the CRC-32 of the item's name, the
header's other fields and the payload, so that a value which stands under another name is found too.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import Enum, IntFlag

Buffer = bytes | memoryview

_FIELDS = struct.Struct("<4sBBHII")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = _FIELDS.size + _CHECKSUM.size
_MAGIC = b"A4RI"
_VERSION = 1


class Storage(Enum):
    """What is kept of an image."""

    PIXELS = "pixels"
    """RGB values at the size that the encoder takes, uint8 ``[size, size, 3]``, row by row."""
    FILE = "file"
    """The bytes of the image file as they are; decoded and resized when read."""


_NUMBER_OF_FORM = {Storage.PIXELS: 0, Storage.FILE: 1}
_FORM_OF_NUMBER = {number: form for form, number in _NUMBER_OF_FORM.items()}


class Conversion(IntFlag):
    """What was done to an image, apart from resizing, to get 8 bit RGB the right way up."""

    GREY = 1
    PALETTE = 2
    CMYK = 4
    ALPHA = 8
    SIXTEEN_BIT = 16
    EXIF_TURNED = 32
    OTHER = 64


class DamagedRecordError(Exception):
    """A value with other bytes than were written, or under another name; the message names the item."""

    def __init__(self, name: bytes, reason: str) -> None:
        super().__init__(f"the image of item {shown(name)} {reason}")


@dataclass(frozen=True)
class ImageRecord:
    """One item's image.

    Attributes:
        form: what the payload is.
        conversions: what was done to the image, or in ``Storage.FILE`` is done when it is decoded.
        height: of the pixels, or in ``Storage.FILE`` of the decoded image the right way up.
        width: likewise.
        payload: ``height * width * 3`` bytes, or the image file's.
    """

    form: Storage
    conversions: Conversion
    height: int
    width: int
    payload: Buffer


def shown(name: bytes) -> str:
    """An item's name as messages write it."""
    return repr(name.decode("utf-8", "replace"))


def pack(name: bytes, record: ImageRecord) -> bytes:
    """The value to store under ``name``."""
    fields = _FIELDS.pack(
        _MAGIC, _VERSION, _NUMBER_OF_FORM[record.form], record.conversions, record.height, record.width
    )
    checksum = _CHECKSUM.pack(_checksum(name, fields, record.payload))
    return b"".join((fields, checksum, record.payload))


def unpack(name: bytes, value: Buffer) -> ImageRecord:
    """The record that stands under ``name``; its payload is a part of ``value``, not a copy.

    Raises:
        DamagedRecordError: the value is no whole record of this item.
    """
    record, checksum = unpack_header(name, value)
    if _checksum(name, value[: _FIELDS.size], record.payload) != checksum:
        raise DamagedRecordError(name, "is damaged: it has other bytes than were written")
    return record


def unpack_header(name: bytes, value: Buffer) -> tuple[ImageRecord, int]:
    """The record and its checksum, which is not compared with the payload.

    Raises:
        DamagedRecordError: the header is impossible.
    """
    if len(value) < _HEADER_BYTES:
        raise DamagedRecordError(name, f"is cut off after {len(value)} bytes")
    magic, version, number, conversions, height, width = _FIELDS.unpack_from(value)
    if magic != _MAGIC or number not in _FORM_OF_NUMBER:
        raise DamagedRecordError(name, "is damaged: it has no header of an image")
    if version != _VERSION:
        raise DamagedRecordError(
            name, f"is damaged, or of a later version: {version}, and {_VERSION} is known"
        )
    form = _FORM_OF_NUMBER[number]
    payload = value[_HEADER_BYTES:]
    if form is Storage.PIXELS and len(payload) != height * width * 3:
        raise DamagedRecordError(name, f"is damaged: {len(payload)} bytes for {height} x {width} pixels")
    (checksum,) = _CHECKSUM.unpack_from(value, _FIELDS.size)
    return ImageRecord(form, Conversion(conversions), height, width, payload), checksum


def _checksum(name: bytes, fields: Buffer, payload: Buffer) -> int:
    return zlib.crc32(payload, zlib.crc32(fields, zlib.crc32(name)))
