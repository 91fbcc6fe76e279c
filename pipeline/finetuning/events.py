"""TensorBoard's event files, written by hand: a dozen lines of two formats spare a dependency of 100 MB.

A file is a row of records: length (uint64), its masked CRC-32C, the bytes, their masked CRC-32C, all little-endian
(tensorflow's `lib/io/record_writer.h`). The bytes are a protobuf `Event` (`core/util/event.proto`): wall_time = 1,
step = 2, file_version = 3, summary = 5, which holds values (1) of tag (1) and simple_value (2).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from actionvit.features.atomic import make_folder


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC = _table()


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of some bytes, rotated and shifted as the record format wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """Return a record."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def event(step: int, values: Mapping[str, float], wall_time: float) -> bytes:
    """Return an `Event` of scalars."""
    summary = b"".join(
        _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items()
    )
    return b"\x09" + struct.pack("<d", wall_time) + b"\x10" + _varint(step) + _field(5, summary)


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class EventFile:
    """A context that appends scalars to `folder/events.out.tfevents.*`, readable while it grows."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        now = time.time()
        self._file = (folder / f"events.out.tfevents.{int(now)}.actionvit.{time.monotonic_ns()}").open("wb")
        self._write(b"\x09" + struct.pack("<d", now) + _field(3, b"brain.Event:2"))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append some scalars of a step."""
        self._write(event(step, values, time.time()))

    def _write(self, data: bytes) -> None:
        self._file.write(record(data))
        self._file.flush()

    def __enter__(self) -> EventFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()
