"""Writers of exported stores: npz, HDF5, Parquet, safetensors, and one `.npy` file per video.

Every writer takes a path, `texts` (n strings by name: ids, labels, ...), `arrays` (`Blocks` of n rows by name), and
`about`, a JSON text with the origin of the rows.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.store.store import FeatureStore

BLOCK_BYTES = 1 << 26
HDF5_OVERHEAD = 1 << 20
"""Upper bound on the bytes of HDF5's own structures in an export."""
TEXT = h5py.string_dtype()
SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "float64": "F64"}


class Blocks:
    """One quantity of all rows, read a few megabytes at a time."""

    def __init__(self, store: FeatureStore, ids: Sequence[str], name: str) -> None:
        self.store, self.ids, self.name = store, ids, name
        shape, self.dtype = store.quantities[name]
        self.shape = (len(ids), *shape)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, len(self.ids), step):
            yield self.read(slice(start, start + step))

    def read(self, rows: slice) -> NDArray[Any]:
        """Return some rows, in id order."""
        return self.store.read(self.ids[rows], self.name)


Texts = Mapping[str, list[str]]
Arrays = Mapping[str, Blocks]


def write_npz(path: Path, texts: Texts, arrays: Arrays, about: str) -> None:
    """Write like `np.savez`, without holding an array in memory; `about` is the archive's comment."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in texts.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.array(values, dtype=np.str_), allow_pickle=False)
        for name, blocks in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": blocks.dtype.str, "fortran_order": False, "shape": blocks.shape}
                np.lib.format.write_array_header_1_0(member, header)
                for block in blocks:
                    member.write(block.data.cast("B"))
        archive.comment = about.encode()


def write_h5(path: Path, texts: Texts, arrays: Arrays, about: str) -> None:
    """Write one HDF5 dataset per text and array; `about` is the attribute `actionvit`."""
    with _DeferredErrors(path, "w+b") as stream:
        content = sum(math.prod(blocks.shape) * blocks.dtype.itemsize for blocks in arrays.values())
        content += sum(4 * len(value) + 64 for values in texts.values() for value in values)
        # HDF5 may crash the process when the disk fills up: reserve all space first.
        os.posix_fallocate(stream.fileno(), 0, content + len(about) + HDF5_OVERHEAD)
        with h5py.File(stream, "w") as file:
            file.attrs["actionvit"] = about
            for name, values in texts.items():
                encoded = [value.encode("utf-8", "surrogateescape") for value in values]
                file.create_dataset(name, data=encoded, dtype=TEXT)
            for name, blocks in arrays.items():
                data = file.create_dataset(name, shape=blocks.shape, dtype=blocks.dtype)
                start = 0
                for block in blocks:
                    stream.check()
                    data[start : start + len(block)] = block
                    start += len(block)
        stream.check()
        os.ftruncate(stream.fileno(), stream.end)


class _DeferredErrors(io.FileIO):
    """A file that reports its first error in `check` only: HDF5 crashes the process when a write fails."""

    error: OSError | None = None
    end = 0
    """Size as HDF5 sees it; the file keeps its reserved space until the end."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return super().seek(self.end + offset if whence == os.SEEK_END else offset, os.SEEK_SET)

    def write(self, data: Any, /) -> int:
        view = memoryview(data)
        try:
            while view and self.error is None:
                view = view[super().write(view) :]
            self.end = max(self.end, self.tell())
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None, /) -> int:
        self.end = size or 0
        return self.end

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self.error is not None:
            raise self.error


def write_parquet(path: Path, texts: Texts, arrays: Arrays, about: str) -> None:
    """Write one row per video; `about` is the metadata entry `actionvit`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ActionVitError("export to parquet needs pyarrow: `pip install 'actionvit[parquet]'`") from error

    def nested(block: NDArray[Any]) -> pa.Array:
        column = pa.array(block.reshape(-1))  # nested in one list of fixed size per dimension
        for size in reversed(block.shape[1:]):
            column = pa.FixedSizeListArray.from_arrays(column, size)
        return column

    row_bytes = sum(blocks.dtype.itemsize * int(np.prod(blocks.shape[1:])) for blocks in arrays.values())
    step, writer = max(1, BLOCK_BYTES // max(1, row_bytes)), None
    for start in range(0, len(texts["id"]), step):
        rows = slice(start, start + step)
        columns = {name: [_readable(value) for value in values[rows]] for name, values in texts.items()}
        columns |= {name: nested(blocks.read(rows)) for name, blocks in arrays.items()}
        table = pa.table(columns, metadata={"actionvit": about})
        writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
        writer.write_table(table)
    assert writer is not None  # there are rows
    writer.close()


def _readable(text: str) -> str:
    """Return text without the lone surrogates that stand for bytes of odd file names."""
    return text.encode("utf-8", "replace").decode()


def write_safetensors(path: Path, texts: Texts, arrays: Arrays, about: str) -> None:
    """Write the arrays as tensors, and the texts, which the format cannot hold, as JSON lists in its metadata."""
    lists = {name: json.dumps(values) for name, values in texts.items()}
    header: dict[str, Any] = {"__metadata__": {"actionvit": about, **lists}}
    start = 0
    for name, blocks in arrays.items():
        end = start + math.prod(blocks.shape) * blocks.dtype.itemsize
        kind = SAFETENSORS_TYPES[blocks.dtype.name]
        header[name] = {"dtype": kind, "shape": blocks.shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligned tensors
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for blocks in arrays.values():
            for block in blocks:
                file.write(block.data.cast("B"))


def write_npy_folder(folder: Path, texts: Texts, arrays: Arrays, about: str) -> None:
    """Write `frame` of each video as an `.npy` file, (T, D), or (K, T, D) for several views; list them in `videos.csv`.

    A file has the path of its video, without suffix where that leaves the names distinct.
    """
    ids = texts["id"]
    short = [str(PurePosixPath(id).with_suffix("")) for id in ids]
    names = [f"{name if short.count(name) == 1 else id}.npy" for id, name in zip(ids, short, strict=True)]
    if unsafe := [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]:
        raise ActionVitError(f"{unsafe[0]!r} leads out of the folder; export to another format")
    rows = (row for block in arrays["frame"] for row in block)
    for name, row in zip(names, rows, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, row[0] if len(row) == 1 else row, allow_pickle=False)
    with (folder / "videos.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *texts])
        writer.writerows(zip(names, *texts.values(), strict=True))
    (folder / "about.json").write_text(about + "\n", encoding="utf-8")


def npy_folder_files(folder: Path) -> set[str]:
    """Return the files that `write_npy_folder` wrote, relative to the folder; empty if it is not such a folder."""
    try:
        with (folder / "videos.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            names = {str(PurePosixPath(row["file"])) for row in csv.DictReader(file)}
    except (OSError, ValueError, LookupError, TypeError, csv.Error):
        return set()
    own = {"videos.csv", "about.json"}
    return own | {name for name in names if name.endswith(".npy")} if (folder / "about.json").is_file() else set()


def read_about(path: Path) -> dict[str, Any]:
    """Return the origin that an export states, as given to its writer; empty if the path is no export."""
    try:
        about = json.loads(_about_text(path))
        return about if isinstance(about, dict) else {}
    except (OSError, ValueError, LookupError, TypeError, ImportError, zipfile.BadZipFile):
        return {}


def _about_text(path: Path) -> str | bytes:
    if path.is_dir():
        return (path / "about.json").read_text(encoding="utf-8")
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            return str(file.attrs["actionvit"])
    with path.open("rb") as opened:
        start = opened.read(8)
        if start.startswith(b"PAR1"):
            import pyarrow.parquet as pq

            return bytes(pq.read_schema(path).metadata[b"actionvit"])
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return archive.comment
        size = int.from_bytes(start, "little")
        if size > path.stat().st_size:
            raise ValueError("not a safetensors file")
        return str(json.loads(opened.read(size))["__metadata__"]["actionvit"])
