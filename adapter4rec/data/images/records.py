"""Binary format of an image in the LMDB: a header, then pixels or the bytes of the image file.

The header is little-endian and 20 bytes long: magic (4 bytes), version, form (1 byte each), conversions
(2 bytes), height, width and a checksum (4 bytes each). The checksum is the CRC-32 of the item name, the other
header fields and the payload, so that a value under the wrong key is also detected.
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
    """Storage format of an image."""

    PIXELS = "pixels"
    """Decoded and resized RGB pixels, uint8 ``[size, size, 3]``, row-major."""
    FILE = "file"
    """Bytes of the image file; decoded and resized at each read."""


_NUMBER_OF_FORM = {Storage.PIXELS: 0, Storage.FILE: 1}
_FORM_OF_NUMBER = {number: form for form, number in _NUMBER_OF_FORM.items()}


class Conversion(IntFlag):
    """Conversions applied to an image, not counting resizing, to obtain upright 8-bit RGB."""

    GREY = 1
    PALETTE = 2
    CMYK = 4
    ALPHA = 8
    SIXTEEN_BIT = 16
    EXIF_TURNED = 32
    OTHER = 64


class DamagedRecordError(Exception):
    """A damaged value, or a value under the wrong key; the message contains the item name."""

    def __init__(self, name: bytes, reason: str) -> None:
        super().__init__(f"the image of item {shown(name)} {reason}")


@dataclass(frozen=True)
class ImageRecord:
    """The image of an item.

    Attributes:
        form: storage format of the payload.
        conversions: conversions applied to the image (for ``Storage.FILE``, when it is decoded).
        height: height in pixels (for ``Storage.FILE``, of the upright decoded image).
        width: width in pixels, likewise.
        payload: ``height * width * 3`` bytes, or the bytes of the image file.
    """

    form: Storage
    conversions: Conversion
    height: int
    width: int
    payload: Buffer


def shown(name: bytes) -> str:
    """An item name, quoted for messages."""
    return repr(name.decode("utf-8", "replace"))


def pack(name: bytes, record: ImageRecord) -> bytes:
    """Serialise a record for the key ``name``."""
    fields = _FIELDS.pack(
        _MAGIC, _VERSION, _NUMBER_OF_FORM[record.form], record.conversions, record.height, record.width
    )
    checksum = _CHECKSUM.pack(_checksum(name, fields, record.payload))
    return b"".join((fields, checksum, record.payload))


def unpack(name: bytes, value: Buffer) -> ImageRecord:
    """Deserialise the value of the key ``name`` and verify its checksum. The payload is a view of ``value``.

    Raises:
        DamagedRecordError: damaged value, or a value of another item.
    """
    record, checksum = unpack_header(name, value)
    if _checksum(name, value[: _FIELDS.size], record.payload) != checksum:
        raise DamagedRecordError(name, "is damaged: checksum mismatch")
    return record


def unpack_header(name: bytes, value: Buffer) -> tuple[ImageRecord, int]:
    """Deserialise a record without verifying its checksum; returns the record and the checksum.

    Raises:
        DamagedRecordError: invalid header.
    """
    if len(value) < _HEADER_BYTES:
        raise DamagedRecordError(name, f"is damaged: truncated after {len(value)} bytes")
    magic, version, number, conversions, height, width = _FIELDS.unpack_from(value)
    if magic != _MAGIC or number not in _FORM_OF_NUMBER:
        raise DamagedRecordError(name, "is damaged: invalid header")
    if version != _VERSION:
        raise DamagedRecordError(
            name, f"is damaged, or has an unsupported format version {version} (expected {_VERSION})"
        )
    form = _FORM_OF_NUMBER[number]
    payload = value[_HEADER_BYTES:]
    if form is Storage.PIXELS and len(payload) != height * width * 3:
        raise DamagedRecordError(name, f"is damaged: {len(payload)} bytes for {height} x {width} pixels")
    (checksum,) = _CHECKSUM.unpack_from(value, _FIELDS.size)
    return ImageRecord(form, Conversion(conversions), height, width, payload), checksum


def _checksum(name: bytes, fields: Buffer, payload: Buffer) -> int:
    return zlib.crc32(payload, zlib.crc32(fields, zlib.crc32(name)))
