"""Part files: some rows of a store in one immutable HDF5 file, named by order and content.

`part-00000007-<sha256, 16 digits>.h5` holds a table `rows` (one compound dataset) and one chunked dataset a quantity,
n rows each. HDF5 checks its own metadata (format 1.10) and each chunk (`fletcher32`) when read; the digest in the name
covers every byte, and the digest in each row's record covers that row, wherever it is copied to.
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

from actionvit.errors import ActionVitError
from actionvit.features.fingerprint import Fingerprint
from actionvit.features.store.keys import FeatureKey, describe

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
    """What a store keeps of one video."""

    id: str
    """The dataset's id of the video."""
    digest: str
    """sha256 of the video's content, in hex (`files.content_digest`)."""
    fingerprint: Fingerprint
    """Size and time that vouched for the content when it was embedded."""
    count: int
    """Frames in the video."""
    flags: tuple[str, ...]
    """What was odd about decoding it."""
    backend: str
    """Which decoder."""
    arrays: Mapping[str, NDArray[Any]]
    """By quantity; names, shapes and dtypes are the same for all rows of a store."""

    def __post_init__(self) -> None:
        """Refuse what a part cannot hold."""
        if not self.id or "\0" in self.id:
            raise ValueError(f"row id: got {self.id!r}, expected text without NUL")
        if not re.fullmatch("[0-9a-f]{64}", self.digest):
            raise ValueError(f"row digest of {self.id}: got {self.digest!r}, expected 64 hex digits")
        if any("," in flag or not flag for flag in self.flags):
            raise ValueError(f"row flags of {self.id}: got {self.flags!r}, expected words without commas")
        if not self.arrays or "rows" in self.arrays:
            raise ValueError(f"row arrays of {self.id}: got {sorted(self.arrays)}, expected some, none called `rows`")


class DamagedPart(ActionVitError):  # noqa: N818 - it is an error by its base
    """A part file that does not hold what was written."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"{path}: damaged ({detail}); run `actionvit cache verify {path.parent} --repair`")
        self.path = path
        self.detail = detail


class ForeignPart(ActionVitError):  # noqa: N818 - it is an error by its base
    """A part of another store."""

    def __init__(self, path: Path, key: FeatureKey, other: FeatureKey) -> None:
        super().__init__(
            f"{path}: belongs to a store with another key: {describe(key.differences(other))} (here: the folder's "
            f"key.json, there: the part); move it to its own folder, or run `actionvit cache verify {path.parent}`"
        )


def plain(array: NDArray[Any]) -> NDArray[Any]:
    """Return a little-endian, C-ordered copy."""
    return np.array(array, dtype=np.asarray(array).dtype.newbyteorder("<"), order="C", copy=True)


def row_digest(record: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the sha256 of one row: what is known of the video (not its fingerprint) and every array's bytes."""
    names = sorted(arrays)
    head = [record["id"], record["digest"], int(record["count"]), record["flags"], record["backend"]]
    shapes = [(name, arrays[name].dtype.str, arrays[name].shape) for name in names]
    text = json.dumps([*head, shapes], separators=(",", ":"))  # ASCII: a lone surrogate is escaped
    digest = hashlib.sha256(text.encode())
    for name in names:
        digest.update(np.ascontiguousarray(arrays[name]).data.cast("B"))
    return digest.hexdigest()


def record_of(row: Row, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return a row's entry in the table `rows`, its digest included."""
    record = {"id": row.id, "digest": row.digest, "count": row.count, "backend": row.backend}
    record |= {"flags": ",".join(row.flags), "size": row.fingerprint.size, "mtime_ns": row.fingerprint.mtime_ns}
    return record | {"row": row_digest(record, arrays)}


TEXTS = ("id", "digest", "row", "flags", "backend")
NUMBERS = ("count", "size", "mtime_ns")


def matches_digest(record: np.void, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether the digest in a row's entry of the table `rows` is that of the entry and these arrays."""
    texts = {name: decode_text(bytes(record[name])) for name in TEXTS}
    return row_digest({**texts, "count": int(record["count"])}, arrays) == texts["row"]


def encode_text(text: str) -> bytes:
    """UTF-8; what a file name holds beyond that survives."""
    return text.encode("utf-8", "surrogateescape")


def decode_text(data: bytes) -> str:
    """Undo `encode_text`."""
    return data.decode("utf-8", "surrogateescape")


def table_of(records: Sequence[Mapping[str, Any]]) -> Table:
    """Return records as one structured array, texts as UTF-8 of fixed width."""
    columns = {name: [encode_text(record[name]) for record in records] for name in TEXTS}
    widths = {name: max(1, *map(len, values)) if values else 1 for name, values in columns.items()}
    table = np.empty(len(records), dtype=_table_dtype(widths))
    for name in TEXTS:
        table[name] = columns[name]
    for name in NUMBERS:
        table[name] = [record[name] for record in records]
    return table


def _table_dtype(widths: Mapping[str, int]) -> np.dtype[Any]:
    texts = [(name, h5py.string_dtype("utf-8", widths[name])) for name in TEXTS]
    return np.dtype(texts + [(name, "<i8") for name in NUMBERS])


def join_columns(tables: Sequence[Table]) -> Table:
    """Concatenate tables whose texts may differ in width."""
    widths = {name: max((table.dtype[name].itemsize for table in tables), default=1) for name in TEXTS}
    whole = np.empty(sum(map(len, tables)), dtype=_table_dtype(widths))
    start = 0
    for table in tables:
        for name in (*TEXTS, *NUMBERS):
            whole[name][start : start + len(table)] = table[name]
        start += len(table)
    return whole


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
        What the file says of itself: `sequence`, `dataset`, `variant`, `key`.
    """
    # Built in memory and handed to one write: HDF5 on a disk that fills up is not to be trusted, os.write is.
    with h5py.File("part", "w", driver="core", backing_store=False, libver=("v110", "v110")) as part:
        for name, value in {"format": FORMAT, "schema": SCHEMA, **attributes}.items():
            # Of fixed length: HDF5 keeps those of variable length in a heap that no checksum guards.
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
    """Return a text that a part says of itself. Raises KeyError or OSError if it does not."""
    value = part.attrs[name]
    return decode_text(value) if isinstance(value, bytes) else str(value)


def _add(part: h5py.File, name: str, data: NDArray[Any]) -> None:
    row_bytes = max(1, data.nbytes // len(data))
    chunk = max(1, min(len(data), CHUNK_BYTES // row_bytes))
    part.create_dataset(name, data=data, chunks=(chunk, *data.shape[1:]), fletcher32=True)


def part_name(sequence: int, image: bytes) -> str:
    """Return a part's file name; parts are read in the order of their names, later rows win."""
    return f"part-{sequence:08d}-{hashlib.sha256(image).hexdigest()[:16]}.h5"


def sequence_of(path: Path) -> int:
    """Return the place of a part in the order of parts."""
    return int(path.name[5:13])


def part_digits(path: Path) -> str:
    """Return the 16 hex digits with which the sha256 of a part's bytes begins."""
    return path.name[14:30]


def list_parts(folder: Path) -> list[Path]:
    """Return the parts of a store in order.

    A writer may replace small parts by one of their rows meanwhile: the new one appears before the old ones go, but
    a listing that was under way can miss both. Two equal listings in a row cannot.
    """
    found = None
    while found != (found := _listing(folder)):
        pass
    return found


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
        If it went.
    DamagedPart
        If it is not HDF5.
    ActionVitError
        If this user may not read it.
    """
    try:
        # Parts never change: no lock is needed, and a read-only or a network disk may have none.
        with contextlib.suppress(OSError):
            return h5py.File(path, "r", locking=False)
        return h5py.File(path, "r")  # this process may have it open with a lock, which HDF5 does not mix
    except PermissionError as error:
        raise ActionVitError(f"{path}: cannot be read: {os.strerror(errno.EACCES)}; mend its permissions") from error
    except OSError as error:
        if not path.exists():
            raise FileNotFoundError(path) from error
        raise DamagedPart(path, _short(error)) from error


def read_table(
    path: Path, key: FeatureKey, read: Callable[[h5py.Dataset], NDArray[Any]] = lambda data: data[:]
) -> tuple[Table, Quantities]:
    """Return a part's records, as `read` reads them, and its quantities.

    Raises
    ------
    DamagedPart
        If it cannot be read.
    ForeignPart
        If it belongs to a store with another key.
    """
    with open_part(path) as part:
        try:
            if part.attrs["schema"] != SCHEMA:
                raise ActionVitError(f"{path}: schema {part.attrs['schema']}, expected {SCHEMA}; update actionvit")
            if (text := text_of(part, "key")) != key.canonical():
                raise ForeignPart(path, key, FeatureKey.parse(text))
            # By name: `items` gives None, not an error, for a dataset whose header is damaged.
            quantities = {name: (part[name].shape[1:], part[name].dtype) for name in part if name != "rows"}
            table: Table = read(part["rows"])
            if any(len(part[name]) != len(table) for name in quantities):
                raise DamagedPart(path, "its arrays differ in length")
            return table, quantities
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise DamagedPart(path, _short(error)) from error


def read_unchecked(data: h5py.Dataset) -> NDArray[Any]:
    """Return a whole dataset without regard to its chunks' checksums, for who knows the rows' digests."""
    chunk, row = data.chunks[0], data.dtype.itemsize * math.prod(data.shape[1:])
    blocks = [data.id.read_direct_chunk((start,) + (0,) * (data.ndim - 1))[1] for start in range(0, len(data), chunk)]
    whole = b"".join(block[: chunk * row] for block in blocks)
    return np.frombuffer(whole, data.dtype).reshape(-1, *data.shape[1:])[: len(data)]


def read_positions(path: Path, name: str, at: NDArray[np.int64], out: NDArray[Any], to: NDArray[np.int64]) -> None:
    """Copy rows `at` (rising) of a quantity into `out[to]`, each chunk read once, in storage order."""
    with open_part(path) as part:
        try:
            data = part[name]
            chunk = data.chunks[0]
            step = max(1, BLOCK_BYTES // max(1, data.dtype.itemsize * math.prod(data.shape[1:]) * chunk)) * chunk
            block = at // step
            for start, stop in _runs(block):
                low, high = at[start] // chunk * chunk, (at[stop - 1] // chunk + 1) * chunk
                out[to[start:stop]] = data[low:high][at[start:stop] - low]
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise DamagedPart(path, f"{name}: {_short(error)}") from error


def _runs(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of equal values."""
    edges = np.flatnonzero(np.diff(values)) + 1
    bounds = [0, *edges.tolist(), len(values)]
    return list(itertools.pairwise(bounds)) if len(values) else []


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
