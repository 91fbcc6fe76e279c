"""A store as one file that other tools read: `id`, `label`, `clip`, `frame`, `index`, rows in id order."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.store.store import FeatureStore
from actionvit.pipeline.datasets.dataset import load_dataset

Form = Literal["npz", "parquet", "h5"]
FIXED = ("clip", "frame", "index")
BLOCK_BYTES = 1 << 26


def export(
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
    write = {"npz": _write_npz, "parquet": _write_parquet, "h5": _write_h5}[form]
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        with _cleaned(temporary):
            write(temporary, texts, {name: _Blocks(store, ids, name) for name in dict.fromkeys(names)})
            temporary.replace(out)
    except OSError as error:
        raise ActionVitError(f"{out}: cannot be written: {error.strerror or error}; choose another --out") from error
    return ids


def labels_of(store: FeatureStore, root: Path | None = None) -> dict[str, str]:
    """Return the labels of the dataset at `root`, or of the one recorded when the store was extracted.

    Labels live in the dataset, never in the store: relabelled videos are exported under their new labels.

    Raises
    ------
    ActionVitError
        If there is no dataset (any more); the remedy is `--root`.
    """
    recorded, layout = store.info.get("root"), store.info.get("layout")
    if root is None:
        if recorded is None:
            raise ActionVitError(f"{store.folder}: does not say where its dataset is; give --root")
        root = Path(recorded) / f"{store.dataset}.csv" if layout == "csv" else Path(recorded)
    # A label is the folder's name with official lists and without, so they need not be found.
    dataset = load_dataset(root, layout="folder" if layout == "hmdb51" else layout)
    return {video.id: video.label for video in dataset.videos}


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


@contextlib.contextmanager
def _cleaned(path: Path) -> Iterator[None]:
    """Leave no half-written file behind."""
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _write_npz(path: Path, texts: Texts, arrays: Arrays) -> None:
    """Write what `np.savez` would, without holding an array in memory."""
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


def _write_h5(path: Path, texts: Texts, arrays: Arrays) -> None:
    with h5py.File(path, "w") as file:
        for name, values in texts.items():
            file.create_dataset(name, data=[value.encode("utf-8", "surrogateescape") for value in values], dtype=TEXT)
        for name, blocks in arrays.items():
            data = file.create_dataset(name, shape=blocks.shape, dtype=blocks.dtype)
            start = 0
            for block in blocks:
                data[start : start + len(block)] = block
                start += len(block)


TEXT = h5py.string_dtype()


def _write_parquet(path: Path, texts: Texts, arrays: Arrays) -> None:
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
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def _readable(text: str) -> str:
    """Return text without the lone surrogates that stand for bytes of odd file names."""
    return text.encode("utf-8", "replace").decode()
