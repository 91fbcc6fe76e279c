"""The feature store: one folder a dataset and key, of immutable part files; see docs/formats.md."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features.atomic import TEMPORARY_PREFIX, atomic_write, make_folder, remove_stale_temporaries
from actionvit.features.failures import Failure
from actionvit.features.fingerprint import Fingerprint
from actionvit.features.store.failures import FAILURES, load
from actionvit.features.store.index import Index, RowInfo
from actionvit.features.store.keys import FeatureKey, describe
from actionvit.features.store.locks import locked
from actionvit.features.store.parts import BLOCK_BYTES, SCHEMA, Quantities, Row, decode_text, encode_text
from actionvit.features.store.plan import Plan, make_plan
from actionvit.features.store.writer import Writer

__all__ = ["FeatureKey", "FeatureStore", "Fingerprint", "Plan", "Row", "RowInfo", "Writer"]

KEY = "key.json"
T = TypeVar("T")


class FeatureStore:
    """Rows by video id, bound to one key. A snapshot: `refresh` shows what was published since."""

    def __init__(self, folder: Path, key: FeatureKey, dataset: str, variant: str, info: dict[str, Any]) -> None:
        self.folder = folder
        self.key = key
        self.dataset = dataset
        self.variant = variant
        self.info = info
        """What an extraction recorded that changes no number: the dataset's root, versions, ..."""
        self._index: Index | None = None

    @classmethod
    def create(cls, folder: Path, *, key: FeatureKey, dataset: str, variant: str, info: dict[str, Any]) -> FeatureStore:
        """Open the store of this key in `folder`, made if need be; new `info` is recorded.

        Raises
        ------
        ActionVitError
            If the folder holds a store with another key (it names the fields), or cannot be written.
        """
        store = cls.look(folder, key=key, dataset=dataset, variant=variant)
        store.record(info)
        store.forget()
        return store

    @classmethod
    def look(cls, folder: Path, *, key: FeatureKey, dataset: str, variant: str) -> FeatureStore:
        """Return the store as `create` would find it, and write nothing: one without rows where there is none."""
        store = cls(folder, key, dataset, variant, {})
        if (folder / KEY).exists():
            there = cls.open(folder)
            there._expect(key)
            store.info = there.info
        else:
            store._index = Index([], [], {})
        return store

    def record(self, info: dict[str, Any]) -> None:
        """Make the store if need be, and record `info`; the snapshot stays as it is. Raises like `create`."""
        self.info = json.loads(json.dumps(info))
        make_folder(self.folder)
        if not (self.folder / KEY).exists():
            with locked(self.folder, wait=True):
                if not (self.folder / KEY).exists():
                    self.save_description()
        there = self.open(self.folder)
        there._expect(self.key)
        if there.info != self.info or any(self.folder.glob(f"{TEMPORARY_PREFIX}*")):
            # What a killed writer left is swept; a living one holds the lock, and sees to both itself.
            with contextlib.suppress(ActionVitError), locked(self.folder):
                remove_stale_temporaries(self.folder)
                self.save_description()

    def _expect(self, key: FeatureKey) -> None:
        if differences := self.key.differences(key):
            raise ActionVitError(
                f"{self.folder}: this store has another key: {describe(differences)} (here: the store, there: what was "
                f"asked); use another folder"
            )

    @classmethod
    def open(cls, folder: Path) -> FeatureStore:
        """Open a store for reading. Raises ActionVitError if there is none or its `key.json` was altered."""
        try:
            data = (folder / KEY).read_bytes()
        except OSError as error:
            raise ActionVitError(
                f"{folder}: no feature store here ({KEY}: {error.strerror}); `actionvit cache ls` lists stores, "
                f"`actionvit extract` makes one"
            ) from error
        value = parse_description(data)
        if value is None:
            raise ActionVitError(f"{folder / KEY}: damaged; run `actionvit cache verify {folder} --repair`")
        if value["schema"] != SCHEMA:
            raise ActionVitError(f"{folder / KEY}: schema {value['schema']}, expected {SCHEMA}; update actionvit")
        key = FeatureKey.from_dict(value["key"])
        return cls(folder, key, value["dataset"], value["variant"], value["info"])

    @property
    def description(self) -> dict[str, str]:
        """What each part says of the store it belongs to."""
        return {"dataset": self.dataset, "variant": self.variant, "key": self.key.canonical()}

    def save_description(self) -> None:
        """Write `key.json` unless it says so already; only the holder of the lock may."""
        value = {"schema": SCHEMA, "dataset": self.dataset, "variant": self.variant, "info": self.info}
        data = render_description(value | {"key": self.key.to_dict()})
        path = self.folder / KEY
        if not path.exists() or path.read_bytes() != data:
            atomic_write(path, data)

    @property
    def index(self) -> Index:
        """Where the rows lie; read when first asked for."""
        if self._index is None:
            self._index = Index.load(self.folder, self.key)
        return self._index

    def forget(self) -> None:
        """Drop the snapshot; the next question reads the parts again."""
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
        """(shape, dtype) of one row's arrays by name; empty while there is no row."""
        return self.index.quantities

    def plan(
        self,
        videos: Sequence[tuple[str, Path]],
        *,
        verify: bool = False,
        retry_failed: bool = False,
        decoder: str = "",
        lenders: Sequence[FeatureStore] = (),
    ) -> Plan:
        """Say what has to be done for each of these videos; writes nothing.

        Parameters
        ----------
        videos : sequence of (id, path)
            The dataset; each id once.
        verify : bool
            Whether every published video's file is read again, instead of trusting size and time.
        retry_failed : bool
            Whether videos that failed with the same file and decoder are tried again.
        decoder : str
            Version of the decoding code; failures of another one are tried again.
        lenders : sequence of FeatureStore
            Other stores of the same key, whose rows will do as well; they are opened only where something is missing.
        """
        assert all(store.key == self.key for store in lenders)
        failures, stores = {failure.id: failure for failure in self.failures()}, [self, *lenders]
        return make_plan(stores, failures, videos, verify=verify, retry_failed=retry_failed, decoder=decoder)

    def writer(self, *, wait: bool = False, flush_seconds: float = 5.0, flush_bytes: int = 1 << 26) -> Writer:
        """Return the context in which rows are appended; one at a time a store.

        Parameters
        ----------
        wait : bool
            Whether to wait for another writer to finish instead of raising ActionVitError with its host and pid.
        flush_seconds, flush_bytes : float, int
            Rows are published when the oldest waits this long, or all waiting are this big.
        """
        return Writer(self, wait=wait, flush_seconds=flush_seconds, flush_bytes=flush_bytes)

    def read(self, ids: Sequence[str], name: str) -> NDArray[Any]:
        """Return a quantity of some videos, (len(ids), ...), in the order asked; each chunk is read once.

        Raises
        ------
        ActionVitError
            If some have no row, or a part is damaged.
        """
        return self._on_one_snapshot(ids, lambda index, rows: index.read(rows, name))

    def _on_one_snapshot(self, ids: Sequence[str], read: Callable[[Index, NDArray[np.int64]], T]) -> T:
        """Read from parts as they stood together; again, from the beginning, when a writer has replaced one."""
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

    def rows(self, ids: Sequence[str]) -> list[RowInfo]:
        """Return what is known of some videos' rows, in the order asked. Raises like `read`."""
        rows = self._locate(ids)
        return [self.index.info(int(row)) for row in rows]

    def flagged(self, ids: Sequence[str]) -> int:
        """Return how many of some videos were odd to decode. Raises like `read`."""
        rows = self._locate(ids)
        return int((self.index.columns["flags"][rows] != b"").sum())

    def iterate(self, ids: Sequence[str]) -> Iterator[Row]:
        """Yield whole rows in the order asked, a few megabytes in memory at a time. Raises like `read`.

        Each is compared with its digest, which who copies it would else make anew: right for wrong numbers.
        """

        def whole(index: Index, rows: NDArray[np.int64]) -> tuple[list[RowInfo], dict[str, NDArray[Any]]]:
            arrays = {name: index.read(rows, name) for name in index.quantities}
            index.check(rows, arrays)
            return [index.info(int(row)) for row in rows], arrays

        row_bytes = sum(dtype.itemsize * math.prod(shape) for shape, dtype in self.quantities.values())
        step = max(1, BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, len(ids), step):
            infos, arrays = self._on_one_snapshot(ids[start : start + step], whole)
            for at, info in enumerate(infos):
                mine = {name: array[at] for name, array in arrays.items()}
                yield Row(info.id, info.digest, info.fingerprint, info.count, info.flags, info.backend, mine)

    def row(self, id: str) -> Row:
        """Return one row, arrays included. Raises like `read`."""
        return next(self.iterate([id]))

    def failures(self) -> list[Failure]:
        """Return the videos that gave no row, by id."""
        found = load(Failure, self.folder / FAILURES)
        return [found[id] for id in sorted(found) if self.index.find(id) is None]

    def digest(self) -> str:
        """Return the sha256 over all rows' digests in id order: equal for equal rows, however parts divide them."""
        return _digest(self.index.columns["row"])

    def digest_of(self, ids: Sequence[str]) -> str:
        """Return the same over some rows, in the order given. Raises like `read`."""
        rows = self._locate(ids)
        return _digest(self.index.columns["row"][rows])


def _digest(rows: NDArray[np.bytes_]) -> str:
    return hashlib.sha256(b"\n".join(rows.tolist())).hexdigest()


def render_description(value: dict[str, Any]) -> bytes:
    """Return the bytes of `key.json`; the last entry is the sha256 of the rest."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return encode_text(json.dumps(value | {"sha256": digest}, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def parse_description(data: bytes) -> dict[str, Any] | None:
    """Return what `key.json` says, or None unless every byte is as it was written."""
    try:
        value: dict[str, Any] = json.loads(decode_text(data))
        value.pop("sha256")
        return value if render_description(value) == data else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
