"""A store as one file that other tools read: `id`, `label`, `clip`, `frame`, `index`, rows in id order."""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.atomic import atomic_path
from actionvit.features.store.store import FeatureStore

Form = Literal["npz", "parquet", "h5"]
FIXED = ("clip", "frame", "index")
BLOCK_BYTES = 1 << 26
HDF5_OVERHEAD = 1 << 20
"""Upper bound on the bytes of HDF5's own structures in an export."""


def export_store(
    store: FeatureStore, labels: Mapping[str, str], out: Path, form: Form, *, also: Sequence[str] = ()
) -> list[str]:
    """Write a store's rows, in id order, as one file; return their ids.

    Parameters
    ----------
    store : FeatureStore
        What is written: `id (N,)`, `label (N,)`, `clip (N, K, D)`, `frame (N, K, T, D)`, `index (N, K, T)`.
    labels : mapping
        From id to class name; the label is empty where it is silent.
    out : Path
        The file; it appears whole, replacing one that is there.
    form : {"npz", "parquet", "h5"}
        `parquet` holds a row a video, arrays as nested fixed-size lists; it needs pyarrow.
    also : sequence of str
        Further quantities of the store, such as `layer9`.

    Raises
    ------
    ActionVitError
        If a quantity is not there, the file cannot be written, or pyarrow is wanted and absent.
    """
    if unknown := [name for name in also if name not in store.quantities]:
        there = ", ".join(sorted(store.quantities))
        raise ActionVitError(f"{store.folder}: no quantity {unknown[0]!r}, only {there}; leave it out")
    if not len(store):
        raise ActionVitError(f"{store.folder}: no rows to export; run `actionvit extract` first")
    ids, names = store.ids, [name for name in (*FIXED, *also) if name in store.quantities]
    texts = {"id": ids, "label": [labels.get(id, "") for id in ids]}
    about = {"dataset": store.dataset, "variant": store.variant, "digest": store.digest(), "key": store.key.to_dict()}
    write = {"npz": _write_npz, "parquet": _write_parquet, "h5": _write_h5}[form]
    with atomic_path(out) as temporary:
        blocks = {name: _Blocks(store, ids, name) for name in dict.fromkeys(names)}
        write(temporary, texts, blocks, json.dumps(about))
        if store.digest_of(ids) != about["digest"]:
            raise ActionVitError(f"{store.folder}: rows changed while they were exported; run this again")
    return ids


class _Blocks:
    """A quantity of all rows, read a few megabytes at a time."""

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
Arrays = Mapping[str, _Blocks]


def _write_npz(path: Path, texts: Texts, arrays: Arrays, about: str) -> None:
    """Write what `np.savez` would, without holding an array in memory; the archive's comment says what it is."""
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


def _write_h5(path: Path, texts: Texts, arrays: Arrays, about: str) -> None:
    with _Patient(path, "w+b") as stream:
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


class _Patient(io.FileIO):
    """A file that keeps its first error to itself until asked: HDF5 crashes the process when it cannot write."""

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


TEXT = h5py.string_dtype()


def _write_parquet(path: Path, texts: Texts, arrays: Arrays, about: str) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ActionVitError("export to parquet needs pyarrow: `pip install 'actionvit[parquet]'`") from error

    def nested(block: NDArray[Any]) -> pa.Array:
        column = pa.array(block.reshape(-1))  # and around it a list a dimension, of fixed size
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
