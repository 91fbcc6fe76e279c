"""The feature store: one folder per dataset and key, of immutable part files; see docs/reference/cache-format.md."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.atomic import TEMPORARY_PREFIX, atomic_write, make_folder, remove_stale_temporaries
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import require_file
from actionvit.features.store.checked_json import parse_checked, render_checked
from actionvit.features.store.failures import FAILURES, load
from actionvit.features.store.index import Index
from actionvit.features.store.keys import FeatureKey, describe
from actionvit.features.store.locks import locked
from actionvit.features.store.manifest import compare
from actionvit.features.store.parts import BLOCK_BYTES, SCHEMA, Quantities, Row
from actionvit.features.video_record import VideoRecord

KEY = "key.json"
T = TypeVar("T")
logger = logging.getLogger(__name__)


class FeatureStore:
    """Rows by video id under one key. A snapshot: `refresh` reads rows published since."""

    def __init__(self, folder: Path, key: FeatureKey, dataset: str, variant: str, info: dict[str, Any]) -> None:
        self.folder = folder
        self.key = key
        self.dataset = dataset
        self.variant = variant
        self.info = info
        """Facts that change no number: the dataset's root and layout, number of videos, name of the weights."""
        self._index: Index | None = None

    @classmethod
    def create(cls, folder: Path, *, key: FeatureKey, dataset: str, variant: str, info: dict[str, Any]) -> FeatureStore:
        """Open the store of a key, or create it; write `info`.

        Parameters
        ----------
        folder : Path
            The store's folder, as from `catalog.store_folder`.
        key : FeatureKey
            Every setting that changes the embeddings.
        dataset, variant : str
            Names of the dataset and of the encoder.
        info : dict
            JSON values that do not change the embeddings, such as the dataset's root.

        Raises
        ------
        ActionVitError
            If the folder holds a store with another key (the error names the fields), or cannot be written.
        """
        store = cls.open_or_new(folder, key=key, dataset=dataset, variant=variant)
        store.write_info(info)
        store.invalidate()
        return store

    @classmethod
    def open_or_new(cls, folder: Path, *, key: FeatureKey, dataset: str, variant: str) -> FeatureStore:
        """Open the store of a key, or return an empty one; write nothing. Raises like `create`."""
        store = cls(folder, key, dataset, variant, {})
        if (folder / KEY).exists():
            existing = cls.open(folder)
            existing._require_key(key)
            store.info = existing.info
        else:
            store._index = Index([], [], {})
        return store

    def write_info(self, info: dict[str, Any]) -> None:
        """Make the store if there is none, and write `info`; the snapshot stays as it is. Raises like `create`."""
        self.info = json.loads(json.dumps(info))
        make_folder(self.folder)
        if not (self.folder / KEY).exists():
            with locked(self.folder, wait=True):
                if not (self.folder / KEY).exists():
                    self.write_key_file()
        existing = self.open(self.folder)
        existing._require_key(self.key)
        if existing.info != self.info or any(self.folder.glob(f"{TEMPORARY_PREFIX}*")):
            # If another writer holds the lock, it sweeps and writes the key file itself.
            with contextlib.suppress(ActionVitError), locked(self.folder):
                remove_stale_temporaries(self.folder)
                self.write_key_file()

    def _require_key(self, key: FeatureKey) -> None:
        if differences := self.key.differences(key):
            raise ActionVitError(
                f"{self.folder}: this store has another key: {describe(differences, 'in the store', 'requested')}; use "
                f"another folder"
            )

    @classmethod
    def open(cls, folder: Path) -> FeatureStore:
        """Open a store for reading. Raises ActionVitError if there is none or its `key.json` was altered."""
        try:
            require_file(folder / KEY)
            data = (folder / KEY).read_bytes()
        except OSError as error:
            raise ActionVitError(
                f"{folder}: no feature store here ({KEY}: {error.strerror}); `actionvit cache ls` lists stores, "
                f"`actionvit extract` makes one"
            ) from error
        value = parse_checked(data)
        if value is None:
            raise ActionVitError(f"{folder / KEY}: damaged; run `actionvit cache verify {folder} --repair`")
        if value["schema"] != SCHEMA:
            raise ActionVitError(f"{folder / KEY}: schema {value['schema']}, expected {SCHEMA}; update actionvit")
        key = FeatureKey.from_dict(value["key"])
        return cls(folder, key, value["dataset"], value["variant"], value["info"])

    @property
    def part_attributes(self) -> dict[str, str]:
        """HDF5 attributes of each part: the store it belongs to."""
        return {"dataset": self.dataset, "variant": self.variant, "key": self.key.canonical()}

    def write_key_file(self) -> None:
        """Write `key.json` if its content changes. Only the holder of the lock may call this."""
        value = {"schema": SCHEMA, "dataset": self.dataset, "variant": self.variant, "info": self.info}
        data = render_checked(value | {"key": self.key.to_dict()})
        path = self.folder / KEY
        if not path.exists() or path.read_bytes() != data:
            atomic_write(path, data)

    @property
    def index(self) -> Index:
        """The index of the rows; read on first access. Parts that are missing are logged as a warning."""
        if self._index is None:
            self._index = Index.load(self.folder, self.key)
            for warning in self.warnings():
                logger.warning("%s", warning)
        return self._index

    def warnings(self) -> list[str]:
        """Return one line per kind of difference between the parts in the folder and the manifest; usually none."""
        differences = compare(self.folder)
        if differences is None:
            return []
        lines = []
        if missing := differences.missing:
            count, rows = len(missing), sum(missing.values())
            lines.append(f"{count} of its part files, with {rows} rows, are missing")
        if added := [*differences.unlisted, *differences.duplicates, *differences.renamed]:
            lines.append(f"{len(added)} of its part files were copied or renamed ({added[0]} is the first)")
        return [f"{self.folder}: {line}; run `actionvit cache verify {self.folder}`" for line in lines]

    def invalidate(self) -> None:
        """Drop the snapshot; the next access reads the parts again."""
        self._index = None

    def refresh(self) -> None:
        """Read the parts again."""
        self._index = Index.load(self.folder, self.key)

    @property
    def ids(self) -> list[str]:
        """Ids of published rows, sorted."""
        return list(self.index.ids)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def quantities(self) -> Quantities:
        """(shape, dtype) of one row's arrays by name; empty before the first row."""
        return self.index.quantities

    def read(self, ids: Sequence[str], name: str) -> NDArray[Any]:
        """Return one quantity of some videos; each chunk is read once.

        Parameters
        ----------
        ids : sequence of str
            N ids; each must have a row.
        name : str
            `clip`, `frame`, `index` or another of `quantities`.

        Returns
        -------
        ndarray of shape (N, ...)
            In the order of `ids`.

        Raises
        ------
        ActionVitError
            If some videos have no row, or a part is damaged.
        """
        return self._on_one_snapshot(ids, lambda index, rows: index.read(rows, name))

    def _on_one_snapshot(self, ids: Sequence[str], read: Callable[[Index, NDArray[np.int64]], T]) -> T:
        """Read from one consistent set of parts; start again if a writer has replaced a part."""
        while True:
            rows = self._locate(ids)
            try:
                return read(self.index, rows)
            except FileNotFoundError:
                self.refresh()

    def _locate(self, ids: Sequence[str]) -> NDArray[np.int64]:
        rows, missing = self.index.locate(ids)
        if missing:
            self.refresh()
            rows, missing = self.index.locate(ids)
        if missing:
            raise ActionVitError(
                f"{self.folder}: {len(missing)} of {len(ids)} videos have no embedding here ({missing[0]!r} is the "
                f"first); run `actionvit extract` for the rest"
            )
        return rows

    def records(self, ids: Sequence[str]) -> list[VideoRecord]:
        """Return the records of some videos, in the order given. Raises like `read`."""
        rows = self._locate(ids)
        return [self.index.record(int(row)) for row in rows]

    def count_flagged(self, ids: Sequence[str]) -> int:
        """Return how many of some videos have flags. Raises like `read`."""
        rows = self._locate(ids)
        return int((self.index.columns["flags"][rows] != b"").sum())

    def iter_rows(self, ids: Sequence[str]) -> Iterator[Row]:
        """Yield rows in the order given, a few megabytes in memory at a time. Raises like `read`.

        Each row is checked against its digest; otherwise a copy would compute a valid digest over damaged data.
        """

        def read(index: Index, rows: NDArray[np.int64]) -> tuple[list[VideoRecord], dict[str, NDArray[Any]]]:
            arrays = {name: index.read(rows, name) for name in index.quantities}
            index.check(rows, arrays)
            return [index.record(int(row)) for row in rows], arrays

        row_bytes = sum(dtype.itemsize * math.prod(shape) for shape, dtype in self.quantities.values())
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, len(ids), step):
            records, arrays = self._on_one_snapshot(ids[start : start + step], read)
            for position, record in enumerate(records):
                yield Row(record, {name: array[position] for name, array in arrays.items()})

    def failures(self) -> list[Failure]:
        """Return the failure log: videos without a row, by id."""
        lines = load(Failure, self.folder / FAILURES)
        return [lines[id] for id in sorted(lines) if self.index.find(id) is None]

    def digest(self) -> str:
        """Return the sha256 over all rows' digests in id order; it does not depend on the division into parts."""
        return _digest(self.index.columns["row"])

    def digest_of(self, ids: Sequence[str]) -> str:
        """Return the same over some rows, in the order given. Raises like `read`."""
        rows = self._locate(ids)
        return _digest(self.index.columns["row"][rows])


def _digest(rows: NDArray[np.bytes_]) -> str:
    return hashlib.sha256(b"\n".join(rows.tolist())).hexdigest()
