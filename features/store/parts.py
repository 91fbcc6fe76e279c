"""Part files: rows of a store in one immutable HDF5 file, named by order and content.

`part-00000007-<sha256, 16 digits>.h5` holds a table `rows` (one compound dataset) and one chunked dataset per
quantity, n rows each. HDF5 checks its own metadata (format 1.10) and each chunk (`fletcher32`) when read; the
digest in the name covers every byte, and the digest in each row's entry covers that row, also in copies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError, one_line
from actionvit.features.fingerprint import Fingerprint, require_file
from actionvit.features.store.keys import FeatureKey, describe
from actionvit.features.video_record import VideoRecord

PART = re.compile(r"part-(\d{8})-([0-9a-f]{16})\.h5")
CHUNK_BYTES = 1 << 19
BLOCK_BYTES = 1 << 24
FORMAT = "actionvit part"
SCHEMA = 1
"""Version of the layout of a part and of a store's folder."""

Table = NDArray[np.void]
Quantities = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


@dataclass(frozen=True, slots=True)
class Row:
    """The embeddings of one video, and the record of the video."""

    record: VideoRecord
    arrays: Mapping[str, NDArray[Any]]
    """By quantity; names, shapes and dtypes are the same for all rows of a store."""

    def __post_init__(self) -> None:
        """Validate the names of the arrays."""
        if not self.arrays or "rows" in self.arrays:
            raise ValueError(f"arrays of {self.id}: got {sorted(self.arrays)}, expected some, none called `rows`")

    @property
    def id(self) -> str:
        """The video's id."""
        return self.record.id


class DamagedPart(ActionVitError):  # noqa: N818 - it is an error by its base
    """A part file whose content has changed since it was written."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"{path}: damaged ({detail}); run `actionvit cache verify {path.parent} --repair`")
        self.path = path
        self.detail = detail


class ForeignPart(ActionVitError):  # noqa: N818 - it is an error by its base
    """A part of another store."""

    def __init__(self, path: Path, key: FeatureKey, other: FeatureKey) -> None:
        super().__init__(
            f"{path}: belongs to a store with another key: "
            f"{describe(key.differences(other), 'in key.json', 'in the part')}; move it to its own folder, or run "
            f"`actionvit cache verify {path.parent}`"
        )


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return a little-endian, C-ordered copy."""
    return np.array(array, dtype=np.asarray(array).dtype.newbyteorder("<"), order="C", copy=True)


TEXTS = ("id", "digest", "row", "flags", "backend")
NUMBERS = ("count", "size", "mtime_ns")


def row_digest(record: VideoRecord, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the sha256 of one row: of its record without the fingerprint, and of each array's bytes."""
    names = sorted(arrays)
    head = [record.id, record.digest, record.count, ",".join(record.flags), record.backend]
    shapes = [(name, arrays[name].dtype.str, arrays[name].shape) for name in names]
    text = json.dumps([*head, shapes], separators=(",", ":"))  # ASCII: a lone surrogate is escaped
    digest = hashlib.sha256(text.encode())
    for name in names:
        digest.update(np.ascontiguousarray(arrays[name]).data.cast("B"))
    return digest.hexdigest()


def record_of(entry: np.void) -> VideoRecord:
    """Return the record in one entry of a table. Raises ValueError if the entry is damaged."""
    return VideoRecord(
        id=decode_text(bytes(entry["id"])),
        digest=decode_text(bytes(entry["digest"])),
        fingerprint=Fingerprint(int(entry["size"]), int(entry["mtime_ns"])),
        count=int(entry["count"]),
        flags=tuple(flag for flag in decode_text(bytes(entry["flags"])).split(",") if flag),
        backend=decode_text(bytes(entry["backend"])),
    )


def matches_digest(entry: np.void, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether an entry of a table and these arrays have the row digest stored in the entry."""
    try:
        return row_digest(record_of(entry), arrays).encode() == bytes(entry["row"])
    except ValueError:
        return False


def encode_text(text: str) -> bytes:
    """Encode as UTF-8; bytes of file names that are not UTF-8 survive."""
    return text.encode("utf-8", "surrogateescape")


def decode_text(data: bytes) -> str:
    """Invert `encode_text`."""
    return data.decode("utf-8", "surrogateescape")


def table_of(rows: Sequence[Row]) -> Table:
    """Return the records and digests of rows as one structured array, texts as UTF-8 of fixed width."""
    records = [row.record for row in rows]
    texts = {
        "id": [record.id for record in records],
        "digest": [record.digest for record in records],
        "row": [row_digest(row.record, row.arrays) for row in rows],
        "flags": [",".join(record.flags) for record in records],
        "backend": [record.backend for record in records],
    }
    columns = {name: list(map(encode_text, values)) for name, values in texts.items()}
    widths = {name: max(1, *map(len, values)) if values else 1 for name, values in columns.items()}
    table = np.empty(len(rows), dtype=_table_dtype(widths))
    for name, values in columns.items():
        table[name] = values
    table["count"] = [record.count for record in records]
    table["size"] = [record.fingerprint.size for record in records]
    table["mtime_ns"] = [record.fingerprint.mtime_ns for record in records]
    return table


def _table_dtype(widths: Mapping[str, int]) -> np.dtype[Any]:
    texts = [(name, h5py.string_dtype("utf-8", widths[name])) for name in TEXTS]
    return np.dtype(texts + [(name, "<i8") for name in NUMBERS])


def join_columns(tables: Sequence[Table]) -> Table:
    """Concatenate tables whose text columns may differ in width."""
    widths = {name: max((table.dtype[name].itemsize for table in tables), default=1) for name in TEXTS}
    joined = np.empty(sum(map(len, tables)), dtype=_table_dtype(widths))
    start = 0
    for table in tables:
        for name in (*TEXTS, *NUMBERS):
            joined[name][start : start + len(table)] = table[name]
        start += len(table)
    return joined


def encode_part(
    table: Table, arrays: Mapping[str, Sequence[NDArray[Any]] | NDArray[Any]], attributes: Mapping[str, Any]
) -> bytes:
    """Return the bytes of a part file.

    Parameters
    ----------
    table : structured ndarray of shape (n,)
        Records, as from `table_of`.
    arrays : mapping of name to n arrays of one shape
        The quantities, row by row.
    attributes : mapping
        HDF5 attributes: `sequence`, `dataset`, `variant`, `key`.
    """
    # Built in memory, then written with os.write: HDF5 does not recover reliably from a full disk.
    with h5py.File("part", "w", driver="core", backing_store=False, libver=("v110", "v110")) as part:
        for name, value in {"format": FORMAT, "schema": SCHEMA, **attributes}.items():
            # Fixed length: HDF5 keeps strings of variable length in a heap without a checksum.
            part.attrs[name] = np.array(encode_text(value), _text_dtype(value)) if isinstance(value, str) else value
        _add(part, "rows", table)
        for name in sorted(arrays):
            _add(part, name, np.asarray(arrays[name]))
        part.flush()
        image: bytes = part.id.get_file_image()
    return image


def _text_dtype(text: str) -> np.dtype[Any]:
    dtype: np.dtype[Any] = h5py.string_dtype("utf-8", max(1, len(encode_text(text))))
    return dtype


def text_of(part: h5py.File, name: str) -> str:
    """Return a text attribute of a part. Raises KeyError or OSError."""
    value = part.attrs[name]
    return decode_text(value) if isinstance(value, bytes) else str(value)


def _add(part: h5py.File, name: str, data: NDArray[Any]) -> None:
    row_bytes = max(1, data.nbytes // len(data))
    chunk = max(1, min(len(data), CHUNK_BYTES // row_bytes))
    part.create_dataset(name, data=data, chunks=(chunk, *data.shape[1:]), fletcher32=True)


def part_name(sequence: int, image: bytes) -> str:
    """Return a part's file name. Parts are read in the order of their names; of equal ids the last row wins."""
    return f"part-{sequence:08d}-{digest_digits(image)}.h5"


def digest_digits(image: bytes) -> str:
    """Return the first 16 hex digits of the sha256 of a part's bytes."""
    return hashlib.sha256(image).hexdigest()[:16]


def sequence_of(path: Path) -> int:
    """Return a part's sequence number."""
    return int(path.name[5:13])


def name_digits(path: Path) -> str:
    """Return the first 16 hex digits of the sha256 of a part's bytes, stated in its name."""
    return path.name[14:30]


def list_parts(folder: Path) -> list[Path]:
    """Return the parts of a store in order.

    A writer may merge small parts meanwhile: the merged part appears before the old ones are removed, but a listing in
    progress can miss both. Two equal listings in a row cannot.
    """
    listing = None
    while listing != (listing := _listing(folder)):
        pass
    return listing


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if PART.fullmatch(entry.name))
    except OSError as error:
        raise ActionVitError(f"{folder}: cannot be listed: {error.strerror}; is the disk still there?") from error


def open_part(path: Path) -> h5py.File:
    """Open a part for reading.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    DamagedPart
        If the file is not HDF5.
    ActionVitError
        If permissions forbid reading.
    """
    try:
        require_file(path)
        # Parts never change, so no lock is needed; read-only and network disks may have none.
        with contextlib.suppress(OSError):
            return h5py.File(path, "r", locking=False)
        return h5py.File(path, "r")  # this process may have it open with a lock; HDF5 refuses to mix
    except PermissionError as error:
        raise ActionVitError(f"{path}: cannot be read: {os.strerror(errno.EACCES)}; fix its permissions") from error
    except OSError as error:
        if not path.exists():
            raise FileNotFoundError(path) from error
        raise DamagedPart(path, one_line(error)) from error


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ActionVitError
        If permissions or the disk prevent reading, which does not mean that the file is damaged.
    """
    try:
        require_file(path)
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ActionVitError(
            f"{path}: cannot be read: {error.strerror}; check its permissions and the disk, nothing was changed"
        ) from error


def read_table(path: Path, key: FeatureKey) -> tuple[Table, Quantities]:
    """Return a part's table and quantities. Raises like `open_part` and `read_part_table`."""
    with open_part(path) as part:
        return read_part_table(part, path, key)


def read_part_table(
    part: h5py.File, path: Path, key: FeatureKey, read: Callable[[h5py.Dataset], NDArray[Any]] = lambda data: data[:]
) -> tuple[Table, Quantities]:
    """Return the table, read by `read`, and the quantities of an open part.

    Raises
    ------
    DamagedPart
        If the part cannot be read.
    ForeignPart
        If the part belongs to a store with another key.
    """
    try:
        if part.attrs["schema"] != SCHEMA:
            raise ActionVitError(f"{path}: schema {part.attrs['schema']}, expected {SCHEMA}; update actionvit")
        if (text := text_of(part, "key")) != key.canonical():
            raise ForeignPart(path, key, FeatureKey.parse(text))
        # By name: `items` yields None instead of an error for a dataset whose header is damaged.
        quantities = {name: (part[name].shape[1:], part[name].dtype) for name in part if name != "rows"}
        table: Table = read(part["rows"])
        if any(len(part[name]) != len(table) for name in quantities):
            raise DamagedPart(path, "its arrays differ in length")
        return table, quantities
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise DamagedPart(path, one_line(error)) from error


def read_despite_checksum(data: h5py.Dataset, start: int = 0, stop: int | None = None) -> NDArray[Any]:
    """Return some rows of a dataset, also out of chunks with a wrong checksum: the rows' digests decide."""
    try:
        rows: NDArray[Any] = data[start:stop]
    except OSError:
        rows = read_unchecked(data)[start:stop]
    return rows


def read_unchecked(data: h5py.Dataset) -> NDArray[Any]:
    """Return a whole dataset, ignoring its chunks' checksums; the caller must check the rows' digests."""
    chunk, row = data.chunks[0], data.dtype.itemsize * math.prod(data.shape[1:])
    blocks = [data.id.read_direct_chunk((start,) + (0,) * (data.ndim - 1))[1] for start in range(0, len(data), chunk)]
    joined = b"".join(block[: chunk * row] for block in blocks)
    return np.frombuffer(joined, data.dtype).reshape(-1, *data.shape[1:])[: len(data)]


def read_positions(path: Path, name: str, offset: NDArray[np.int64], out: NDArray[Any], to: NDArray[np.int64]) -> None:
    """Copy some rows of a quantity into an array; each chunk is read once, in storage order.

    Parameters
    ----------
    path : Path
        The part file.
    name : str
        The quantity.
    offset : ndarray of int64, shape (m,)
        Rows in the part, ascending.
    out : ndarray of shape (n, ...)
        The array to fill.
    to : ndarray of int64, shape (m,)
        Rows in `out`.

    Raises
    ------
    DamagedPart
        If the rows cannot be read.
    """
    with open_part(path) as part:
        try:
            data = part[name]
            chunk = data.chunks[0]
            step = max(1, BLOCK_BYTES // max(1, data.dtype.itemsize * math.prod(data.shape[1:]) * chunk)) * chunk
            block = offset // step
            for start, stop in _runs(block):
                low, high = offset[start] // chunk * chunk, (offset[stop - 1] // chunk + 1) * chunk
                out[to[start:stop]] = data[low:high][offset[start:stop] - low]
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise DamagedPart(path, f"{name}: {one_line(error)}") from error


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of equal values."""
    edges = np.flatnonzero(np.diff(values)) + 1
    bounds = [0, *edges.tolist(), len(values)]
    return list(itertools.pairwise(bounds)) if len(values) else []
