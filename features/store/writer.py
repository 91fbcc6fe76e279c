"""The single writer of a store: takes rows and failures, publishes part files, never changes a published file."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from actionvit.errors import ActionVitError
from actionvit.features import atomic
from actionvit.features.failures import Failure
from actionvit.features.store import failures
from actionvit.features.store.compaction import adopt_parts, publish_part, remove_rows, replace_parts
from actionvit.features.store.failures import FAILURES, SEEN, Seen
from actionvit.features.store.locks import locked
from actionvit.features.store.manifest import settle
from actionvit.features.store.parts import Quantities, Row, list_parts, plain, sequence_of, table_of
from actionvit.features.store.plan import Plan
from actionvit.features.store.store import FeatureStore

logger = logging.getLogger(__name__)

PART_BYTES = 1 << 26
"""Size up to which small parts are merged."""
MANY_PARTS = 16
"""Number of small parts at the end of a store that triggers a merge."""
COPY_ROWS = 64
"""Rows copied at once; if one of them cannot be read, all of them are embedded again."""
RECORD_BYTES = 1 << 10
"""Approximate size of a waiting row's record, besides its arrays."""


class Writer:
    """A context that appends rows and failures and publishes them every few seconds or megabytes.

    A row is published complete or not at all. Publication happens at the first append that is `flush_seconds` after the
    last one, or when `flush_bytes` of rows wait: a kill costs at most that much work.

    Parameters
    ----------
    store : FeatureStore
        The store to write; one writer at a time.
    wait : bool
        Wait for another writer to finish instead of raising ActionVitError with its host and process.
    flush_seconds, flush_bytes : float, int
        Maximum age in seconds of the oldest unpublished row, and maximum size in bytes of all of them.
    """

    def __init__(
        self, store: FeatureStore, *, wait: bool = False, flush_seconds: float = 5.0, flush_bytes: int = 1 << 26
    ) -> None:
        self.store = store
        self.wait = wait
        self.flush_seconds = flush_seconds
        self.flush_bytes = flush_bytes
        self._stack = contextlib.ExitStack()
        self._rows: dict[str, Row] = {}
        self._failed: dict[str, Failure] = {}
        self._bytes = 0
        self._last_flush = 0.0

    def __enter__(self) -> Writer:
        """Take the lock, remove files that a killed writer left, read the store."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.store.folder, wait=self.wait))
            atomic.remove_stale_temporaries(self.store.folder)
            self.store.write_key_file()
            adopt_parts(self.store)
            remove_rows(self.store)
            self._quantities = dict(self.store.quantities)
            self._failure_log = failures.load(Failure, self.store.folder / FAILURES)
            self._parts = list_parts(self.store.folder)
            self._sequence = sequence_of(self._parts[-1]) + 1 if self._parts else 0
            self._stack = stack.pop_all()
        self._last_flush = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Publish everything appended, also after an exception, and release the lock."""
        with self._stack:
            try:
                self.flush()
                settle(self.store.folder)
            except ActionVitError as second:
                if error is None:
                    raise
                logger.error("the last rows were not published: %s", second)
            finally:
                self.store.invalidate()

    def append(self, row: Row) -> None:
        """Add a row; arrays are copied. Raises ValueError if their names, shapes or dtypes are not the store's."""
        row = Row(row.record, {name: plain(array) for name, array in row.arrays.items()})
        quantities: Quantities = {name: (array.shape, array.dtype) for name, array in row.arrays.items()}
        self._quantities = self._quantities or quantities
        if quantities != self._quantities:
            raise ValueError(f"row {row.id}: got {_shapes(quantities)}, expected {_shapes(self._quantities)}")
        self._failed.pop(row.id, None)
        self._rows[row.id] = row
        self._bytes += RECORD_BYTES + sum(array.nbytes for array in row.arrays.values())
        self._flush_if_due()

    def add_failure(self, failure: Failure) -> None:
        """Record that a video gave no row; a row from an earlier session, of another file, is removed."""
        self._failed[failure.id] = failure
        self._flush_if_due()

    def apply(self, plan: Plan) -> list[str]:
        """Carry out everything in a plan except embedding; return ids whose row could not be copied: embed those.

        Copies rows of videos whose content has a row under another id, records new fingerprints, removes obsolete lines
        of the failure log, and removes rows of changed videos: they are wrong, and must not survive if this
        extraction is killed.
        """
        not_copied = set(plan.reusable)
        for store, sources in plan.reusable_by_store():
            for id, row in _readable_rows(store, list(sources.items())):
                self.append(Row(replace(row.record, id=id, fingerprint=plan.fingerprints[id]), row.arrays))
                not_copied.remove(id)
        self.flush()
        self._remove(plan.changed)
        index, seen = self.store.index, failures.load(Seen, self.store.folder / SEEN)
        for id in plan.fingerprints.keys() - plan.reusable.keys():
            if (row_number := index.find(id)) is not None:
                seen[id] = Seen(id, index.record(row_number).digest, *plan.fingerprints[id])
        failures.save(Seen, self.store.folder / SEEN, seen)
        for id in plan.obsolete_failures:
            self._failure_log.pop(id, None)
        failures.save(Failure, self.store.folder / FAILURES, self._failure_log)
        return sorted(not_copied)

    def flush(self) -> None:
        """Publish everything appended so far."""
        rows, failed = self._rows, self._failed
        self._rows, self._failed, self._bytes = {}, {}, 0
        self._remove([*rows, *failed])
        if rows:
            self._publish(list(rows.values()))
            self._try_to_merge_small_parts()
        if failed or not rows.keys().isdisjoint(self._failure_log):
            remaining = {id: line for id, line in self._failure_log.items() if id not in rows}
            self._failure_log = remaining | failed
            failures.save(Failure, self.store.folder / FAILURES, self._failure_log)
        self._last_flush = time.monotonic()

    def _remove(self, ids: Collection[str]) -> None:
        """Remove the rows of some videos that were in the store when this writer last read it."""
        if any(self.store.index.find(id) is not None for id in ids):
            remove_rows(self.store, ids)
            self._parts = list_parts(self.store.folder)

    def _flush_if_due(self) -> None:
        if self._bytes >= self.flush_bytes or time.monotonic() - self._last_flush >= self.flush_seconds:
            self.flush()

    def _publish(self, rows: list[Row]) -> None:
        arrays = {name: [row.arrays[name] for row in rows] for name in self._quantities}
        path = publish_part(self.store, self._sequence, table_of(rows), arrays)
        self._sequence += 1
        self._parts.append(path)

    def _try_to_merge_small_parts(self) -> None:
        try:
            self._merge_small_parts()
        except (ActionVitError, OSError) as error:
            if not self.store.folder.is_dir():
                where = f"{self.store.folder}: cannot be written, the folder is gone"
                raise ActionVitError(f"{where} ({error}); bring it back and run again") from error
            # For example a full disk. All rows are published nevertheless.
            logger.warning("%s: small parts stay unmerged: %s", self.store.folder, error)
            self._parts = []

    def _merge_small_parts(self) -> None:
        """Keep the number of parts proportional to the bytes, however often a slow extraction publishes."""
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
        merged = replace_parts(self.store, group) if len(group) > 1 else group[0]
        assert merged is not None  # no row was dropped
        return merged


def _readable_rows(store: FeatureStore, ids: list[tuple[str, str]]) -> Iterator[tuple[str, Row]]:
    """Yield (new id, row) for (new id, id there); skip blocks with rows that are damaged or no longer there."""
    for start in range(0, len(ids), COPY_ROWS):
        block = ids[start : start + COPY_ROWS]
        try:
            yield from zip((id for id, _ in block), store.iter_rows([source for _, source in block]), strict=True)
        except ActionVitError as error:
            logger.warning("rows are embedded again instead of copied: %s", error)


def _shapes(quantities: Quantities) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in sorted(quantities.items()))
