"""The one writer of a store: rows go in, part files come out, and nothing published is ever touched in place."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from actionvit.errors import ActionVitError
from actionvit.features import atomic
from actionvit.features.failures import Failure
from actionvit.features.store import failures
from actionvit.features.store.compaction import publish_part, remove_rows, replace_parts
from actionvit.features.store.failures import FAILURES, SEEN, Seen
from actionvit.features.store.locks import locked
from actionvit.features.store.parts import Quantities, Row, list_parts, plain, record_of, sequence_of, table_of
from actionvit.features.store.plan import Plan

if TYPE_CHECKING:
    from actionvit.features.store.store import FeatureStore

logger = logging.getLogger(__name__)

PART_BYTES = 1 << 26
"""Small parts are merged until they are about this big."""
MANY_PARTS = 16
"""So many small parts at the end of a store are merged."""
COPY_ROWS = 64
"""Rows copied at once: so many are embedded again where one of them cannot be read."""
RECORD_BYTES = 1 << 10
"""About what a waiting row's record takes beside its arrays."""


class Writer:
    """A context that appends rows and failures and publishes them every few seconds or megabytes.

    A row is published whole or not at all. Rows are published at the first append that is `flush_seconds` after the
    last publication, or when `flush_bytes` of them wait: killed at any instant, the store lacks that much work.
    """

    def __init__(self, store: FeatureStore, *, wait: bool, flush_seconds: float, flush_bytes: int) -> None:
        self.store = store
        self.wait = wait
        self.flush_seconds = flush_seconds
        self.flush_bytes = flush_bytes
        self._stack = contextlib.ExitStack()
        self._records: dict[str, dict[str, Any]] = {}
        self._arrays: dict[str, Mapping[str, NDArray[Any]]] = {}
        self._failed: dict[str, Failure] = {}
        self._bytes = 0
        self._since = 0.0

    def __enter__(self) -> Writer:
        """Take the lock, sweep what a killed writer left, read what is there."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.store.folder, wait=self.wait))
            atomic.remove_stale_temporaries(self.store.folder)
            self.store.save_description()
            remove_rows(self.store)
            self._quantities = dict(self.store.quantities)
            self._ledger = failures.load(Failure, self.store.folder / FAILURES)
            self._parts = list_parts(self.store.folder)
            self._sequence = sequence_of(self._parts[-1]) + 1 if self._parts else 0
            self._stack = stack.pop_all()
        self._since = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish what was appended, also after an exception, and give the lock back."""
        with self._stack:
            try:
                self.flush()
            except ActionVitError as second:
                if error is None:
                    raise
                logger.error("the last rows were not published: %s", second)
            finally:
                self.store.forget()

    def append(self, row: Row) -> None:
        """Take a row; its arrays are copied. ValueError if they are not like the store's."""
        arrays = {name: plain(array) for name, array in row.arrays.items()}
        quantities: Quantities = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        self._quantities = self._quantities or quantities
        if quantities != self._quantities:
            raise ValueError(f"row {row.id}: got {_shapes(quantities)}, expected {_shapes(self._quantities)}")
        self._failed.pop(row.id, None)
        self._records[row.id] = record_of(row, arrays)
        self._arrays[row.id] = arrays
        self._bytes += RECORD_BYTES + sum(array.nbytes for array in arrays.values())
        self._flush_if_due()

    def add_failure(self, failure: Failure) -> None:
        """Record that a video gave no row; a row from an earlier session, of another file, is removed."""
        self._failed[failure.id] = failure
        self._flush_if_due()

    def adopt(self, plan: Plan) -> list[str]:
        """Do what a plan asks for beside embedding; return the ids whose row could not be copied: embed those.

        Rows whose content is known under another id are copied, new fingerprints noted, failures of videos that are no
        more forgotten, and rows of videos that changed removed: they are wrong, and an extraction that is killed must
        not leave them.
        """
        lost = set(plan.copies)
        for store, twins in plan.copies_by_store():
            for id, row in _readable(store, list(twins.items())):
                self.append(replace(row, id=id, fingerprint=plan.fingerprints[id]))
                lost.remove(id)
        self.flush()
        self._remove(plan.changed)
        index, seen = self.store.index, failures.load(Seen, self.store.folder / SEEN)
        for id in plan.fingerprints.keys() - plan.copies.keys():
            if (at := index.find(id)) is not None:
                seen[id] = Seen(id, index.text("digest", at), *plan.fingerprints[id])
        failures.save(Seen, self.store.folder / SEEN, seen)
        for id in plan.forgotten:
            self._ledger.pop(id, None)
        failures.save(Failure, self.store.folder / FAILURES, self._ledger)
        return sorted(lost)

    def flush(self) -> None:
        """Publish everything appended so far."""
        records, arrays, failed = self._records, self._arrays, self._failed
        self._records, self._arrays, self._failed, self._bytes = {}, {}, {}, 0
        self._remove([*records, *failed])
        if records:
            self._publish(records, arrays)
            try:
                self._merge_small_parts()
            except (ActionVitError, OSError) as error:
                if not self.store.folder.is_dir():
                    where = f"{self.store.folder}: cannot be written, it is gone"
                    raise ActionVitError(f"{where} ({error}); bring it back and run again") from error
                # A full disk, say; every row is published all the same.
                logger.warning("%s: small parts stay unmerged: %s", self.store.folder, error)
                self._parts = []
        if failed or not records.keys().isdisjoint(self._ledger):
            kept = {id: line for id, line in self._ledger.items() if id not in records}
            self._ledger = kept | failed
            failures.save(Failure, self.store.folder / FAILURES, self._ledger)
        self._since = time.monotonic()

    def _remove(self, ids: Collection[str]) -> None:
        """Remove the rows of some videos, if any was there when this writer began or last looked."""
        if any(self.store.index.find(id) is not None for id in ids):
            remove_rows(self.store, ids)
            self._parts = list_parts(self.store.folder)

    def _flush_if_due(self) -> None:
        if self._bytes >= self.flush_bytes or time.monotonic() - self._since >= self.flush_seconds:
            self.flush()

    def _publish(self, records: dict[str, dict[str, Any]], arrays: dict[str, Mapping[str, NDArray[Any]]]) -> None:
        stacks = {name: [arrays[id][name] for id in records] for name in self._quantities}
        table = table_of(list(records.values()))
        path = publish_part(self.store.folder, self._sequence, table, stacks, self.store.description)
        self._sequence += 1
        self._parts.append(path)

    def _merge_small_parts(self) -> None:
        """Keep the number of parts in proportion to the bytes, however often a slow extraction publishes."""
        sizes = [path.stat().st_size for path in self._parts[-4 * MANY_PARTS :]]
        small = list(itertools.takewhile(lambda size: size < PART_BYTES // 2, reversed(sizes)))
        if len(small) < MANY_PARTS:
            return
        group: list[Path] = []
        room = PART_BYTES
        merged = self._parts[: -len(small)]
        for path, size in zip(self._parts[-len(small) :], reversed(small), strict=True):
            if group and size > room:
                merged.append(self._merge(group))
                group, room = [], PART_BYTES
            group.append(path)
            room -= size
        self._parts = [*merged, self._merge(group)]

    def _merge(self, group: list[Path]) -> Path:
        new = replace_parts(group, self.store.description) if len(group) > 1 else group[0]
        assert new is not None  # nothing was dropped
        return new


def _readable(store: FeatureStore, twins: list[tuple[str, str]]) -> Iterator[tuple[str, Row]]:
    """Yield (new id, row) for (new id, id there); what is damaged, or gone since it was planned, costs few others."""
    for start in range(0, len(twins), COPY_ROWS):
        some = twins[start : start + COPY_ROWS]
        try:
            yield from zip((id for id, _ in some), store.iterate([there for _, there in some]), strict=True)
        except ActionVitError as error:
            logger.warning("rows are embedded again instead of copied: %s", error)


def _shapes(quantities: Quantities) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in sorted(quantities.items()))
